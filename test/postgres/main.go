package postgres

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

// one is the cluster of this test process.
var one struct {
	mu       sync.Mutex
	server   *Server
	template string
}

// Tests are those of a package: a *testing.M.
type Tests interface{ Run() int }

// Main runs a package's tests, and ends the cluster that they may have started.
func Main(m Tests) {
	code := m.Run()
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.server != nil {
		if err := one.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// Cluster is the cluster of this test process, started when first asked for. The
// package's TestMain must be Main, or the cluster's folder stays behind.
func Cluster(t testing.TB) *Server {
	t.Helper()
	one.mu.Lock()
	defer one.mu.Unlock()
	return cluster(t)
}

func cluster(t testing.TB) *Server {
	t.Helper()
	if one.server == nil {
		server, err := Start(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		one.server = server
	}
	return one.server
}

// Database makes a database for one test and returns its URL. It is a copy of
// what prepare made of an empty one, once for all tests of the process; nil: empty.
func Database(t testing.TB, prepare func(url string) error) string {
	t.Helper()
	name, url, err := copied(t, prepare)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Cluster(t).Drop(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	return url
}

func copied(t testing.TB, prepare func(url string) error) (name, url string, err error) {
	t.Helper()
	one.mu.Lock()
	defer one.mu.Unlock()
	ctx := context.Background()
	server := cluster(t)
	if prepare == nil {
		return server.Create(ctx, "")
	}
	if one.template == "" {
		name, url, err := server.Create(ctx, "")
		if err != nil {
			return "", "", err
		}
		if err := prepare(url); err != nil {
			return "", "", err
		}
		one.template = name
	}
	return server.Create(ctx, one.template)
}
