package supervisor

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"deckhand/engine/enginetest"
)

// silence is an engine that can stop to answer, like a process that is stopped: what
// was sent is taken, and nothing comes back.
type silence struct{ until atomic.Pointer[chan struct{}] }

func (s *silence) begin() { c := make(chan struct{}); s.until.Store(&c) }
func (s *silence) end()   { close(*s.until.Swap(nil)) }

func (s *silence) before(ctx context.Context, _ enginetest.Call) error {
	c := s.until.Load()
	if c == nil {
		return nil
	}
	select {
	case <-*c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unhealthy is what /v3/status says is wrong, and the status of /v1/healthy.
func unhealthy(t *testing.T, s *Supervisor) (status int, all []Ailment) {
	t.Helper()
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.api(true).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w
	}
	var v View
	if err := json.Unmarshal(ask("/v3/status").Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return ask("/v1/healthy").Code, v.Unhealthy
}

// becomes waits until /v1/healthy answers with a status, and gives what is wrong then.
func becomes(t *testing.T, s *Supervisor, status int, within time.Duration) (after time.Duration, all []Ailment) {
	t.Helper()
	for began := time.Now(); ; <-time.After(time.Second) {
		synctest.Wait()
		got, all := unhealthy(t, s)
		if got == status {
			return time.Since(began), all
		}
		if time.Since(began) > within {
			t.Fatalf("%s, and the health is %d: %v", within, got, all)
		}
	}
}

// An engine that hangs is told as such after the patience with it, with the time since
// when it does not answer, and forgotten as soon as it answers. While nobody asks how
// the device is, the engine is left alone.
func TestASilentEngine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		quiet := &silence{}
		var pings atomic.Int64
		fake := enginetest.NewFake(enginetest.Config{Before: func(ctx context.Context, c enginetest.Call) error {
			pings.Add(1)
			return quiet.before(ctx, c)
		}})
		defer fake.Close()
		s, err := open(Config{ConfigFile: file, Engine: "tcp://simulated:1", DataDir: filepath.Join(dir, "data"), HostRoot: dir, Log: zerolog.Nop(), wire: fake})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.loadConfig()
		s.started = time.Now()
		done := make(chan error, 1)
		go func() { done <- s.runner.Run(ctx) }()
		watched := make(chan struct{})
		go func() { defer close(watched); s.watchEngine(ctx) }()
		<-time.After(time.Minute)
		asked := pings.Load()
		<-time.After(24 * time.Hour)
		if n := pings.Load() - asked; n != 0 {
			t.Errorf("%d questions to the engine on a day on which nobody asked how the device is", n)
		}
		if _, all := becomes(t, s, http.StatusOK, 0); len(all) != 0 {
			t.Errorf("at first: %v", all)
		}

		began := time.Now()
		quiet.begin()
		after, told := becomes(t, s, http.StatusInternalServerError, engineSilence+2*signEvery)
		if after < engineSilence-signEvery {
			t.Errorf("told after %s", after)
		}
		if len(told) != 1 || told[0].Check != "engine" || !strings.HasPrefix(told[0].Text, "it does not answer: ") || told[0].Advice == "" {
			t.Fatalf("told %v", told)
		}
		if since := told[0].Since; since.Before(began) || since.After(began.Add(signEvery+time.Second)) || time.Since(since) < engineSilence {
			t.Errorf("since %s, and it fell silent at %s", since, began)
		}
		quiet.end()
		becomes(t, s, http.StatusOK, 2*signAgain)

		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		<-watched
		s.close()
	})
}
