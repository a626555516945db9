package device_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
	"deckhand/cloud/model"
	"deckhand/cloud/park"
)

// holding is a world whose held requests wait parked, or each in its goroutine.
type holding struct {
	*cloudtest.World
	device *device.Device
	client *http.Client
}

// bothHolds runs a test in both kinds of world.
func bothHolds(t *testing.T, cfg device.Config, do func(t *testing.T, h *holding)) {
	for name, parked := range map[string]bool{"parked": true, "in a goroutine": false} {
		t.Run(name, func(t *testing.T) { do(t, hold(t, cfg, parked)) })
	}
}

func hold(t *testing.T, cfg device.Config, parked bool) *holding {
	t.Helper()
	world := *cloudtest.New(t, nil)
	h := &holding{World: &world, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	cfg.DB, cfg.Auth, cfg.Failed = world.DB, world.Auth, func(err error) { t.Error(err) }
	mux := http.NewServeMux()
	server := httptest.NewUnstartedServer(world.Auth.Guard(mux))
	var running sync.WaitGroup
	if parked {
		cfg.Lot = park.New(nil)
		cfg.Lot.Attach(server.Config)
		running.Go(func() {
			if err := server.Config.Serve(cfg.Lot.Listener()); !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
	h.device = device.New(cfg)
	h.device.Routes(mux)
	server.Start()
	world.URL = server.URL
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		if err := h.device.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		server.CloseClientConnections()
		until(t, "nothing is held", func() bool { return h.device.Stats().Held == 0 })
		if err := server.Config.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
		cancel()
		running.Wait()
	})
	return h
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// reply is an answer without its body.
type reply struct {
	status int
	header http.Header
}

// ask asks for a state.
func (h *holding) ask(ctx context.Context, d model.Device, key, tag string, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", h.URL+statePath(d), nil)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("If-None-Match", tag)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := h.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	return reply{res.StatusCode, res.Header}, res.Body.Close()
}

func (h *holding) held(n int64) {
	h.T.Helper()
	if t, ok := h.T.(*testing.T); ok {
		until(t, fmt.Sprintf("%d requests are held", n), func() bool { return h.device.Stats().Held == n })
	}
}

// begin asks for a state that the device has, and waits until the request is held.
func (h *holding) begin(d model.Device, key, tag string, headers ...string) <-chan reply {
	h.T.Helper()
	answer := make(chan reply, 1)
	before := h.device.Stats().Held
	go func() {
		res, err := h.ask(h.T.Context(), d, key, tag, headers...)
		if err != nil {
			h.T.Error(err)
		}
		answer <- res
	}()
	h.held(before + 1)
	return answer
}

// What ends a wait, and what the answer says then.
func TestWhatEndsAWait(t *testing.T) {
	bothHolds(t, device.Config{}, func(t *testing.T, h *holding) {
		f := h.Fleet(h.Admin, "kitchen")
		other := h.Fleet(h.Admin, "cellar")
		d, key := h.Device(f, "a")
		tag := h.Want(200, "GET", statePath(d), key, "").Header.Get("ETag")
		for _, c := range []struct {
			name    string
			acts    string
			change  func()
			status  int
			actions string
		}{
			{"a release", "", func() { h.Release(f, "abc", one) }, 200, ""},
			{"a call", "", func() { must(t, h.DB.CallDevices(t.Context(), []int64{d.ID})) }, 304, ""},
			{"a call of one that fetches", "1", func() { must(t, h.DB.CallDevices(t.Context(), []int64{d.ID})) }, 304, "0"},
			{"another fleet", "1", func() { h.update("device", d.ID, model.Values{"belongs_to__application": other.ID}) }, 200, ""},
			{"the new fleet's release", "", func() { h.Release(other, "def", one) }, 200, ""},
			{"an action", "1", func() {
				_, err := h.DB.CreateActions(t.Context(), []int64{d.ID}, model.NewAction{Method: "GET", Path: "/v1/ping", Expires: time.Now().Add(time.Hour)})
				must(t, err)
			}, 304, "1"},
		} {
			answer := h.begin(d, key, tag, "Prefer", "wait=60", "Deckhand-Actions", c.acts)
			h.Release(h.Fleet(h.Bob, "other-"+strconv.Itoa(rand.IntN(1e9))), "aaa", one) // does not end it
			h.held(1)
			c.change()
			select {
			case res := <-answer:
				if res.status != c.status || res.header.Get("Preference-Applied") != "wait" || res.header.Get("Deckhand-Actions") != c.actions {
					t.Errorf("%s: %d %v", c.name, res.status, res.header)
				}
				tag = res.header.Get("ETag")
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: not told", c.name)
			}
			h.held(0)
		}
		// An action that waits is a reason not to wait at all.
		res, err := h.ask(t.Context(), d, key, tag, "Prefer", "wait=60", "Deckhand-Actions", "1")
		if err != nil || res.status != 304 || res.header.Get("Deckhand-Actions") != "1" {
			t.Errorf("%+v %v", res, err)
		}
		began := time.Now()
		res, err = h.ask(t.Context(), d, key, tag, "Prefer", "wait=1")
		if took := time.Since(began); err != nil || res.status != 304 || took < time.Second || res.header.Get("Preference-Applied") != "wait" {
			t.Errorf("after %s: %+v %v", took, res, err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *holding) update(resource string, id int64, v model.Values) {
	h.T.Helper()
	by := access.Caller{Role: access.User, ID: h.Admin.ID, Actor: h.Admin.Actor}
	if _, err := h.DB.Update(h.T.Context(), by, resource, model.Selection{SQL: "t.id = ?", Args: []any{id}}, v); err != nil {
		h.T.Fatal(err)
	}
}

// A device is online for as long as its request is held, and no longer than it should
// be when it leaves.
func TestPresenceOfAHeldRequest(t *testing.T) {
	bothHolds(t, device.Config{PollInterval: 100 * time.Millisecond}, func(t *testing.T, h *holding) {
		d, key := h.Device(h.Fleet(h.Admin, "kitchen"), "a")
		tag := h.Want(200, "GET", statePath(d), key, "").Header.Get("ETag")
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if _, err := h.ask(ctx, d, key, tag, "Prefer", "wait=240"); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		}()
		h.held(1)
		heard(t, h.World, d, "online")
		for began := time.Now(); time.Since(began) < 2*time.Second; <-time.After(20 * time.Millisecond) {
			if got, err := h.DB.DeviceByID(t.Context(), d.ID); err != nil || got.Heartbeat != "online" {
				t.Fatalf("it is %s: %v", got.Heartbeat, err)
			}
		}
		leave()
		<-gone
		h.held(0)
		heard(t, h.World, d, "timeout")
	})
}

// Changes come at any moment while devices begin to wait, wait, are told and leave:
// who waits is always told of the last one.
func TestNoNewsAreMissed(t *testing.T) {
	bothHolds(t, device.Config{}, func(t *testing.T, h *holding) {
		f := h.Fleet(h.Admin, "kitchen")
		h.Release(f, "abc", one)
		id, err := h.DB.AddVariable(t.Context(), model.FleetEnvironment, f.ID, "X", "0")
		must(t, err)
		const digits = "0123456789abcdef"
		var asking sync.WaitGroup
		tags, devices := make([]atomic.Pointer[string], len(digits)), make([]model.Device, len(digits))
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for i, digit := range digits {
			d, key := h.Device(f, string(digit))
			devices[i] = d
			tags[i].Store(new(h.Want(200, "GET", statePath(d), key, "").Header.Get("ETag")))
			asking.Go(func() { h.follow(ctx, d, key, &tags[i]) })
		}
		first := *tags[0].Load()
		for i := range 150 {
			h.update("application_environment_variable", id, model.Values{"value": strconv.Itoa(i + 1)})
			if i%10 == 0 {
				h.told(devices, tags)
			}
			<-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond)
		}
		h.told(devices, tags)
		if *tags[0].Load() == first {
			t.Error("nothing has changed")
		}
		stop()
		asking.Wait()
	})
}

// follow is a device that asks all the time; now and then it gives up.
func (h *holding) follow(ctx context.Context, d model.Device, key string, tag *atomic.Pointer[string]) {
	for ctx.Err() == nil {
		patience := time.Minute
		if rand.IntN(4) == 0 {
			patience = time.Duration(rand.IntN(5000)) * time.Microsecond
		}
		asking, cancel := context.WithTimeout(ctx, patience)
		res, err := h.ask(asking, d, key, *tag.Load(), "Prefer", "wait=60")
		gaveUp := asking.Err() != nil
		cancel()
		switch {
		case gaveUp:
		case err != nil:
			h.T.Error(err)
			return
		case res.status == 200:
			tag.Store(new(res.header.Get("ETag")))
		}
	}
}

// told waits until all devices have what they should.
func (h *holding) told(devices []model.Device, tags []atomic.Pointer[string]) {
	h.T.Helper()
	t, ok := h.T.(*testing.T)
	if !ok {
		return
	}
	for i, d := range devices {
		want := h.Want(200, "GET", statePath(d), h.AdminSession, "").Header.Get("ETag")
		until(t, "device "+d.UUID+" is told", func() bool { return *tags[i].Load() == want })
	}
}
