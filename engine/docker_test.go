//go:build engine && linux

package engine_test

import (
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/state"
	"deckhand/test/dockerd"
)

// docker is the engine that the tests of this package share.
var docker = sync.OnceValue(func() *dockerd.Engine {
	e, stop := dockerd.StartMain()
	atEnd = append(atEnd, stop)
	return e
})

func open(t *testing.T, change func(*engine.Config)) *engine.Engine {
	t.Helper()
	cfg := engine.Config{
		Host: docker().Host, RunDir: docker().Dir(t), Log: zerolog.New(zerolog.NewTestWriter(t)),
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
	api := apiNetwork(t)
	enginetest.Run(t, f, func(t *testing.T) enginetest.Device {
		return open(t, func(c *engine.Config) { c.API = api })
	})
}
