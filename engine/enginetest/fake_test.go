package enginetest_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/reconcile"
	"deckhand/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	image   = "registry.test/suite/image:1"
	missing = "registry.test/suite/image:missing"
)

func fixture() enginetest.Fixture {
	return enginetest.Fixture{
		Image: image, Digest: "registry.test/suite/image@" + enginetest.DigestOf(image), Other: "registry.test/suite/other:1", Missing: missing,
	}
}

// open makes an engine on a fake one.
func open(t *testing.T, cfg enginetest.Config) (*engine.Engine, *enginetest.Fake) {
	t.Helper()
	if cfg.Pull == nil {
		cfg.Pull = func(ref string) enginetest.Pull { return enginetest.Pull{Missing: ref == missing} }
	}
	f := enginetest.NewFake(cfg)
	e, err := engine.New(engine.Config{Host: "tcp://fake:1", Transport: f, RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		f.Close()
	})
	return e, f
}

// The simulated engine does what a real one does: the same suite runs against
// both.
func TestConformance(t *testing.T) {
	enginetest.Run(t, fixture(), func(t *testing.T) enginetest.Device {
		e, _ := open(t, enginetest.Config{})
		return e
	})
}

// plain is a client on a fake engine.
func plain(t *testing.T) *client.Client {
	t.Helper()
	f := enginetest.NewFake(enginetest.Config{Pull: func(ref string) enginetest.Pull { return enginetest.Pull{Missing: ref == missing} }})
	c, err := client.NewClientWithOpts(client.WithHost("tcp://fake:1"), client.WithHTTPClient(&http.Client{Transport: f}), client.WithVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return c
}

func TestTraps(t *testing.T) { enginetest.Traps(t, fixture(), plain) }

// After a restart of the engine, or of the device, its restart policies decide
// what runs, and whoever listened must listen anew.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, f := open(t, enginetest.Config{})
		hints := e.Watch(t.Context())
		<-hints
		if err := e.Do(t.Context(), reconcile.Fetch{Image: image}, nil); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, policy := range []string{"no", "on-failure", "unless-stopped", "always"} {
			for _, stopped := range []bool{false, true} {
				name := fmt.Sprintf("%s-%t", policy, stopped)
				run(t, e, f, name, policy, stopped)
				want[name] = "exited"
				if policy == "always" || policy != "no" && !stopped {
					want[name] = "running" // "always" forgets that somebody stopped it
				}
			}
		}
		synctest.Wait()
		for len(hints) > 0 {
			<-hints
		}
		f.Restart()
		<-hints
		got := map[string]string{}
		for _, b := range f.Boxes() {
			got[b.ID] = b.Status
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// run starts a container of the name with a restart policy, and may stop it again.
func run(t *testing.T, e *engine.Engine, f *enginetest.Fake, name, policy string, stopped bool) {
	t.Helper()
	app := reconcile.App{UUID: "a1", ID: 1, Name: "shop"}
	v := state.Service{Name: name, Image: image, Spec: state.Spec{Restart: state.RestartPolicy{Name: policy}}}
	v.Hash = v.Spec.Hash()
	f.Name(name)
	steps := []reconcile.Step{
		reconcile.Create{App: app, Service: v, Commit: "c"}, reconcile.Start{App: app, Service: name, Container: name},
	}
	if stopped {
		steps = append(steps, reconcile.Stop{App: app, Service: name, Container: name})
	}
	for _, s := range steps {
		if err := e.Do(t.Context(), s, nil); err != nil {
			t.Fatal(err)
		}
	}
}
