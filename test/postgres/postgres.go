// Package postgres starts a private PostgreSQL for the tests of one process: a
// cluster in a temporary folder, reached through a socket in it and not over the
// network, ended with the process.
//
// The tests of the cloud run on SQLite unless DECKHAND_TEST_DATABASE says
// "postgres".
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"deckhand/test/child"
)

// Wanted says whether the tests of the cloud are to run on PostgreSQL.
func Wanted() bool { return os.Getenv("DECKHAND_TEST_DATABASE") == "postgres" }

// Server is a running cluster.
type Server struct {
	dir    string
	launch func() *exec.Cmd
	cmd    *exec.Cmd
	ended  <-chan error
	number atomic.Int64
}

// startTime is how long a cluster may take to come up.
const startTime = 60 * time.Second

// Start makes a cluster and starts it. Nothing in it survives a power loss: it
// does not wait for the disk. Further settings are like "max_connections=20".
func Start(ctx context.Context, settings ...string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "deckhand-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	if err := s.start(ctx, bin, settings); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, bin string, settings []string) error {
	owner, err := s.owner()
	if err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync") //nolint:gosec // found, not given
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
	initdb.Dir = s.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	args := []string{"-D", data, "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=64MB", "-c", "max_connections=100"}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	s.launch = func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "postgres"), args...) //nolint:gosec // it ends in Stop, or with us
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
		cmd.Dir = s.dir
		return cmd
	}
	return s.Resume(ctx)
}

// Pause ends the cluster as an operator does: connections are cut, what is in it is
// kept. Nobody can connect until Resume.
func (s *Server) Pause() error {
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("pause PostgreSQL: %w", err)
	}
	err := <-s.ended
	s.cmd = nil
	return err
}

// Resume starts the cluster, again after Pause, and waits until it answers.
func (s *Server) Resume(ctx context.Context) error {
	s.cmd = s.launch()
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	// A test process that is killed takes its cluster along.
	if s.ended, err = child.Start(s.cmd, syscall.SIGQUIT); err != nil {
		s.cmd = nil
		return err
	}
	return s.ready(ctx)
}

// owner is who runs the cluster: PostgreSQL refuses root.
func (s *Server) owner() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, errUser := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGroup := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(errUser, errGroup, os.Chown(s.dir, int(uid), int(gid))); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case ended := <-s.ended:
			s.cmd = nil
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("it ended at once: %w\n%s", ended, log)
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// programs is the folder of the newest PostgreSQL on this machine.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
	if len(found) > 0 {
		return filepath.Dir(found[0]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("start PostgreSQL: it is not installed; run scripts/setup.sh postgres")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

func version(program string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(program))))
	return n
}

func (s *Server) url(database string) string {
	return "postgres://postgres@/" + database + "?host=" + url.QueryEscape(s.dir)
}

// Exec runs a statement on the cluster's own database, to make and drop others.
func (s *Server) Exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// Create makes a database, as a copy of template ("" for an empty one), and
// returns its name and URL.
func (s *Server) Create(ctx context.Context, template string) (name, url string, err error) {
	name = fmt.Sprintf("test_%d", s.number.Add(1))
	statement := "CREATE DATABASE " + name
	if template != "" {
		statement += " TEMPLATE " + template
	}
	return name, s.url(name), s.Exec(ctx, statement)
}

// Drop removes a database and ends who is still on it.
func (s *Server) Drop(ctx context.Context, name string) error {
	return s.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
}

// BreakAll ends all connections, as a restart of the cluster does.
func (s *Server) BreakAll(ctx context.Context) error {
	return s.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
}

// quickExit is the exit code of a cluster that was told to end at once.
const quickExit = 2

// Stop ends the cluster and removes it.
func (s *Server) Stop() error {
	var err error
	if s.cmd != nil {
		err = s.cmd.Process.Signal(syscall.SIGQUIT) // at once; nothing in it is kept
		if ended := <-s.ended; err == nil && s.cmd.ProcessState.ExitCode() != quickExit {
			err = ended
		}
		s.cmd = nil
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
