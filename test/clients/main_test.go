//go:build engine && interop && linux

package clients

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"deckhand/client"
	"deckhand/test/dockerd"
	"deckhand/test/system"
)

// stage is what all stories share.
type stage struct {
	programs system.Programs
	cloud    *system.Cloud
	// desk is the owner's engine, on which the cloud builds as well; field is the
	// device's.
	desk, field *dockerd.Engine
	// token is a session of the cloud's owner.
	token string
}

// set is the stage; TestMain alone writes it.
var set stage

var (
	transcript = flag.String("transcript", "", "write what was typed, shown and requested to this file")
	update     = flag.Bool("update", false, "rewrite golden files")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var programs system.Builder
	defer programs.Close()
	made, err := programs.Programs(ctx)
	if err != nil {
		return fail(err)
	}
	desk, stopDesk := dockerd.StartMain()
	defer stopDesk()
	field, stopField := dockerd.StartMain()
	defer stopField()
	dir, err := os.MkdirTemp("", "deck-") // short: it will hold a socket
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	cloud, err := system.StartCloud(ctx, system.CloudConfig{Program: made.Cloud, Dir: dir, Engine: desk.Host, Args: []string{"--fetch-from", "127.0.0.1/32"}})
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err := cloud.Stop(); err != nil {
			code = max(code, fail(err))
		}
	}()
	anybody, err := client.New(client.Config{URL: cloud.URL})
	if err != nil {
		return fail(err)
	}
	token, err := anybody.Login(ctx, cloud.User, cloud.Password)
	if err != nil {
		return fail(err)
	}
	set = stage{made, cloud, desk, field, token}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "clients:", err)
	return 1
}
