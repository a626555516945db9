//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"deckhand/test/dockerd"
	"deckhand/test/system"
)

// stage is what all tests of the package share.
type stage struct {
	programs system.Programs
	engine   *dockerd.Engine // the device's
	registry *system.Proxy   // between engines and the cloud's registry
	cloud    *system.Cloud
	cloudLog *system.Log
	spare    *spare
	caller   string // program that is both ends of a conversation
}

// spare holds engines for tests that run beside each other: as many as run at
// a time.
type spare struct {
	mu   sync.Mutex
	free []*dockerd.Engine
	stop []func()
}

// take gives an engine that nobody uses.
func (s *spare) take() (*dockerd.Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		e := s.free[n-1]
		s.free = s.free[:n-1]
		return e, nil
	}
	e, stop, err := dockerd.StartIn("")
	if err == nil {
		s.stop = append(s.stop, stop)
	}
	return e, err
}

func (s *spare) give(e *dockerd.Engine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, e)
}

func (s *spare) end() {
	for _, stop := range s.stop {
		stop()
	}
}

// set is the stage; TestMain alone writes it.
var set stage

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var programs system.Builder
	defer programs.Close()
	made, err := programs.Programs(ctx)
	if err != nil {
		return fail(err)
	}
	device, stopDevice := dockerd.StartMain()
	defer stopDevice()
	forge, stopForge := dockerd.StartMain()
	defer stopForge()
	dir, err := os.MkdirTemp("", "deckhand-e2e-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	proxy, err := system.NewProxy()
	if err != nil {
		return fail(err)
	}
	defer proxy.Cut()
	behind, err := system.FreeAddr()
	if err != nil {
		return fail(err)
	}
	proxy.To(behind)
	log := system.NewLog(nil)
	cloud, err := system.StartCloud(ctx, system.CloudConfig{
		Program: made.Cloud, Dir: dir, Engine: forge.Host, Log: log, RegistryListen: behind, RegistryHost: proxy.Addr,
	})
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err := cloud.Stop(); err != nil {
			code = max(code, fail(err))
		}
	}()
	caller := filepath.Join(dir, "caller")
	if err := system.BuildOne(ctx, "./test/e2e/caller", caller); err != nil {
		return fail(err)
	}
	engines := &spare{}
	defer engines.end()
	set = stage{made, device, proxy, cloud, log, engines, caller}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}
