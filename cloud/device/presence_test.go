package device_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
)

func TestASilentDeviceGoesOffline(t *testing.T) {
	var ahead atomic.Int64 // how far the cloud's clock is ahead of the real one
	w := cloudtest.New(t, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	cloud := device.New(device.Config{DB: w.DB, Auth: w.Auth, PollInterval: 10 * time.Minute, Failed: func(err error) { t.Error(err) }})
	cloud.Routes(w.Mux)
	d, key := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cloud.Run(ctx) }()
	state := func(want string) { t.Helper(); heard(t, w, d, want) }
	state("unknown")
	w.Want(200, "GET", statePath(d), w.AdminSession, "")
	state("unknown") // its owner looking is no sign of life
	w.Want(200, "GET", statePath(d), key, "")
	state("online")
	ahead.Store(int64(15*time.Minute + 5*time.Second))
	state("timeout")
	ahead.Store(int64(15*time.Minute + 20*time.Second))
	state("offline")
	w.Want(200, "GET", statePath(d), key, "")
	state("online")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, err := w.DB.DeviceByID(t.Context(), d.ID); err != nil || got.LastSeen.Before(time.Now().Add(15*time.Minute)) {
		t.Errorf("last seen %s %v", got.LastSeen, err)
	}
}
