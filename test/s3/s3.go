// Package s3 starts a private S3 server for the tests of one process: versitygw on a
// temporary folder, on loopback, ended with the process. Its module is in server/, so
// that nobody else's dependencies grow.
//
// An object of it is a file below Dir, whose time is the object's: a test can make
// objects look old.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"deckhand/test/child"
)

// Wanted says whether the tests of what can be in a folder or a bucket are to run on a
// bucket.
func Wanted() bool { return os.Getenv("DECKHAND_TEST_IMAGES") == "s3" }

// The key of all servers. Tests set the usual variables to it.
const (
	Key    = "deckhand-test"
	Secret = "not-a-secret"
)

// Server is a running one.
type Server struct {
	URL string
	// Dir has a folder for each bucket.
	Dir string

	cmd     *exec.Cmd
	ended   <-chan error
	buckets atomic.Int64
}

// one is the server of this test process.
var one struct {
	mu     sync.Mutex
	server *Server
}

// One is the server of this test process, started when first asked for. The package's
// TestMain runs Tests, or the server's folder stays behind.
func One(t testing.TB) *Server {
	t.Helper()
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.server == nil {
		server, err := Start(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		one.server = server
	}
	return one.server
}

// Tests are those of a package that may use One.
type Tests struct{ M *testing.M }

// Run runs them, and ends the server that they may have started.
func (t Tests) Run() int {
	code := t.M.Run()
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.server != nil {
		if err := one.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the S3 server:", err)
			code = max(code, 1)
		}
	}
	return code
}

// program builds the server, or finds it built.
func program(ctx context.Context) (string, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("where is the source of test/s3?")
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile="+filepath.Join("test", "s3", "server", "go.mod"), "-n", "versitygw")
	cmd.Dir = filepath.Join(filepath.Dir(here), "..", "..")
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build the S3 server: %w\n%s", err, problems.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// startTime is how long a server may take to come up.
const startTime = 60 * time.Second

// Start starts a server.
func Start(ctx context.Context) (*Server, error) {
	path, err := program(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "deckhand-s3-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir}
	if err := s.start(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("start the S3 server: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, path string) error {
	free, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		return err
	}
	s.URL = "http://" + address
	s.cmd = exec.Command(path, "--port", address, "--quiet", "--keep-alive", "posix", s.Dir) //nolint:gosec // it ends in Stop, or with us
	s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+Key, "ROOT_SECRET_ACCESS_KEY="+Secret)
	// A test process that is killed takes its server along.
	if s.ended, err = child.Start(s.cmd, syscall.SIGKILL); err != nil {
		s.cmd = nil
		return err
	}
	return s.ready(ctx)
}

func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, http.NoBody)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(req)
		if err == nil {
			return answer.Body.Close()
		}
		select {
		case ended := <-s.ended:
			s.cmd = nil
			return fmt.Errorf("it ended: %w", ended)
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Stop ends the server and removes what it has.
func (s *Server) Stop() error {
	var err error
	if s.cmd != nil {
		err = s.cmd.Process.Kill()
		<-s.ended //nolint:errcheck // it was killed
	}
	return errors.Join(err, os.RemoveAll(s.Dir))
}

// Bucket makes a bucket and gives its address, with a prefix in it. The variables of
// the test have the key.
func (s *Server) Bucket(t testing.TB) (name, address string) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", Key)
	t.Setenv("AWS_SECRET_ACCESS_KEY", Secret)
	name = fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	if err := os.Mkdir(filepath.Join(s.Dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	return name, "s3://" + name + "/images?endpoint=" + s.URL
}

// Age makes all objects of a bucket look as if they had been written then.
func (s *Server) Age(t testing.TB, bucket string, then time.Time) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.Dir, bucket), func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := os.Chtimes(path, then, then); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
