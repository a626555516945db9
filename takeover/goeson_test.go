package takeover

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"deckhand/engine/enginetest"
	"deckhand/supervisor"
)

// A device without a network goes on where the other supervisor ended: the keys of
// its containers open the API, and the last target is in force.
func TestDeckhandGoesOn(t *testing.T) {
	p := newPlace(t)
	_, err := p.take()
	must(t, err)
	fake := enginetest.NewFake(enginetest.Config{})
	engine := httptest.NewServer(fake)
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := probe.Addr().String()
	must(t, probe.Close())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- supervisor.Run(ctx, supervisor.Config{
			ConfigFile: p.config, Engine: strings.Replace(engine.URL, "http://", "tcp://", 1), DataDir: p.data,
			RunDir: filepath.Join(p.dir, "run"), Listen: address, HostRoot: t.TempDir(), Log: zerolog.Nop(),
		})
	}()
	defer func() {
		cancel()
		must(t, <-ended)
		fake.Close()
		engine.Close()
	}()

	ask := func(path, key string) (int, string) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path+"?apikey="+key, nil)
		must(t, err)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		must(t, err)
		return res.StatusCode, string(b)
	}
	until := func(path, key, what string) {
		t.Helper()
		late := time.After(30 * time.Second)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for code, body := ask(path, key); code != 200 || !strings.Contains(body, what); code, body = ask(path, key) {
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("%s: %d %s", path, code, body)
			}
		}
	}
	until("/v2/device/name", webKey, "hidden-glade")
	until("/v2/applications/1234/state", webKey, `"commit":"c0ffee01"`)
	for key, want := range map[string]int{webKey: 200, global: 200, strings.Repeat("c", 32): 401} {
		if code, body := ask("/v2/version", key); code != want {
			t.Errorf("%d %s, want %d", code, body, want)
		}
	}
}
