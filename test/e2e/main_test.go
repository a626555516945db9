//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"os"
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
	set = stage{made, device, proxy, cloud, log}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}
