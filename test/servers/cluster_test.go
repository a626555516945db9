//go:build engine

package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"deckhand/test/postgres"
	"deckhand/test/s3"
	"deckhand/test/system"
)

// TestMain ends the database and the store.
func TestMain(m *testing.M) { postgres.Main(s3.Tests{M: m}) }

// patience bounds every wait of these tests.
const patience = time.Minute

// pollInterval is that of the servers: a device is offline when it is not heard for
// one and a half of it.
const pollInterval = 4 * time.Second

// server is one process of a cloud.
type server struct {
	program  string
	url      string
	registry string // host:port
	args     []string
	log      *system.Log
	process  *system.Process
}

func (s *server) start(t *testing.T) {
	t.Helper()
	var err error
	if s.process, err = system.Run(s.log, nil, s.program, s.args...); err != nil {
		t.Fatal(err)
	}
}

// ready waits until the server takes requests.
func (s *server) ready(t *testing.T) {
	t.Helper()
	until(t, func(context.Context) error {
		if !s.process.Running() {
			t.Fatalf("the server ended with code %d:\n%s", s.process.ExitCode(), s.log)
		}
		got, err := do(t.Context(), plain, s.url, "GET", "/ready", "", "")
		if err == nil && got.status != http.StatusOK {
			err = fmt.Errorf("%d %s", got.status, got.body)
		}
		return err
	})
}

// cloud is two servers on one database and one folder or bucket, with a balancer in front.
type cloud struct {
	*testing.T
	a, b     *server
	balancer *balancer
	session  string // from a
}

// start starts both servers, with more flags, at the same moment on an empty database,
// and logs in at the first.
func start(t *testing.T, database string, more ...string) *cloud {
	t.Helper()
	c := &cloud{T: t, balancer: balance(t)}
	images, registry := t.TempDir(), freeAddr(t)
	program := filepath.Join(t.TempDir(), "deckhand-cloud")
	if err := system.BuildOne(t.Context(), "./cmd/deckhand-cloud", program); err != nil {
		t.Fatal(err)
	}
	for _, s := range []**server{&c.a, &c.b} {
		api, listen := freeAddr(t), freeAddr(t)
		if slices.Contains(more, "--registry-storage") {
			images = t.TempDir() // nobody shares it
		}
		*s = &server{program: program, url: "http://" + api, registry: listen, log: system.NewLog(nil), args: append([]string{"serve", "--data-dir", t.TempDir(), "--registry-dir", images, "--database", database,
			"--listen", api, "--registry-listen", listen, "--public-url", "http://" + c.balancer.addr, "--registry-host", registry,
			"--poll-interval", pollInterval.String()}, more...)}
		c.balancer.backends = append(c.balancer.backends, api)
	}
	c.a.start(t)
	c.b.start(t)
	t.Cleanup(c.stop)
	c.a.ready(t)
	c.b.ready(t)
	logins := regexp.MustCompile(`\buser +(\S+)\s+password +(\S+)`).FindAllStringSubmatch(c.a.log.String()+c.b.log.String(), -1)
	if len(logins) != 1 {
		t.Fatalf("%d logins were shown, want one:\n%s\n%s", len(logins), c.a.log, c.b.log)
	}
	c.session = c.want(http.StatusOK, c.a.url, "POST", "/login_", "", fmt.Sprintf(`{"username":%q,"password":%q}`, logins[0][1], logins[0][2]))
	return c
}

func (c *cloud) stop() {
	for _, s := range []*server{c.a, c.b} {
		if s.process.Running() {
			if err := s.process.Stop(); err != nil {
				c.Error(err)
			}
		}
		if c.Failed() {
			c.Logf("log of %s:\n%s", s.url, s.log)
		}
	}
}

// answer is what a server said.
type answer struct {
	status int
	header http.Header
	body   string
}

// do makes a request with a connection of its own unless a client is given; the error
// is that there was no answer.
func do(ctx context.Context, client *http.Client, url, method, path, key, body string, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// plain keeps no connections: each request is answered by who is there.
var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (c *cloud) want(status int, url, method, path, key, body string, headers ...string) string {
	c.Helper()
	got, err := do(c.Context(), plain, url, method, path, key, body, headers...)
	if err != nil {
		c.Fatal(err)
	}
	if got.status != status {
		c.Fatalf("%s %s: %d %s, want %d", method, path, got.status, got.body, status)
	}
	return got.body
}

// make posts a row and gives its id.
func (c *cloud) make(url, resource string, row map[string]any) int64 {
	c.Helper()
	b, err := json.Marshal(row)
	if err != nil {
		c.Fatal(err)
	}
	var made struct{ ID int64 }
	c.read(c.want(http.StatusCreated, url, "POST", "/v7/"+resource, c.session, string(b)), &made)
	return made.ID
}

func (c *cloud) read(body string, into any) {
	c.Helper()
	if err := json.NewDecoder(bytes.NewBufferString(body)).Decode(into); err != nil {
		c.Fatalf("%v in %s", err, body)
	}
}

// rows reads rows; the query is that behind the resource's name.
func rows[T any](c *cloud, url, resource, query string) []T {
	c.Helper()
	var all struct{ D []T }
	c.read(c.want(http.StatusOK, url, "GET", "/v7/"+resource+"?"+strings.ReplaceAll(query, " ", "%20"), c.session, ""), &all)
	return all.D
}

func until(t *testing.T, condition func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := system.Until(ctx, condition); err != nil {
		t.Fatal(err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := system.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// balancer passes each TCP connection to the first server that takes it.
type balancer struct {
	addr     string
	backends []string
}

func balance(t *testing.T) *balancer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{addr: listener.Addr().String()}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			passing.Go(func() { b.pass(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); passing.Wait() })
	return b
}

func (b *balancer) pass(client net.Conn) {
	defer client.Close()
	for _, addr := range b.backends {
		server, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		defer server.Close()
		go func() {
			_, _ = io.Copy(server, client) // ends with either side
			_ = server.Close()
		}()
		_, _ = io.Copy(client, server) // ends with either side
		return
	}
}
