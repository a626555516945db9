package enginetest_test

import (
	"net/http"
	"testing"

	"github.com/docker/docker/client"
	"go.uber.org/goleak"

	"deckhand/engine"
	"deckhand/engine/enginetest"
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
