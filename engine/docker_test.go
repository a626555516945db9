//go:build engine && linux

package engine_test

import (
	"os"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/state"
	"deckhand/test/dockerd"
)

var docker *dockerd.Engine

func TestMain(m *testing.M) {
	var stop func()
	docker, stop = dockerd.StartMain()
	code := m.Run()
	stop()
	if err := goleak.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

func open(t *testing.T, change func(*engine.Config)) *engine.Engine {
	t.Helper()
	cfg := engine.Config{
		Host: docker.Host, RunDir: docker.Dir(t), Log: zerolog.New(zerolog.NewTestWriter(t)),
		Identity: func() state.Identity {
			return state.Identity{UUID: "d0", Name: "bright-sun", DeviceType: "generic-amd64", Arch: "amd64", OSVersion: "Debian 12"}
		},
	}
	if change != nil {
		change(&cfg)
	}
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestConformance(t *testing.T) {
	f := enginetest.NewRegistry(t).Fixture(t, dockerd.Rootfs, dockerd.Idle)
	enginetest.Run(t, f, func(t *testing.T) enginetest.Device { return open(t, nil) })
}
