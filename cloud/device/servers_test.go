package device_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/cloud/auth"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
	"deckhand/cloud/model"
	"deckhand/test/postgres"
	"deckhand/uplink"
)

// server is one of several servers on one database. On SQLite there is only one
// process, so they share its connection, but nothing of what they remember.
type server struct {
	*cloudtest.World
	url string
}

// servers starts two servers on the world's database.
func servers(t *testing.T, now func() time.Time, cfg device.Config) (*cloudtest.World, [2]server) {
	t.Helper()
	w := cloudtest.New(t, now)
	var both [2]server
	for i := range both {
		db, identity := w.DB, w.Auth
		if i == 1 && postgres.Wanted() {
			var err error
			if db, err = model.Open(t.Context(), w.Config); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if identity, err = auth.New(auth.Config{DB: db, KeyDir: t.TempDir(), PasswordMemory: 64}); err != nil {
				t.Fatal(err)
			}
		}
		cfg.DB, cfg.Auth, cfg.Failed = db, identity, func(err error) { t.Error(err) }
		cloud := device.New(cfg)
		mux := http.NewServeMux()
		cloud.Routes(mux)
		s := httptest.NewServer(mux)
		t.Cleanup(s.Close)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			if err := cloud.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() { cancel(); running.Wait() })
		world := *w
		world.URL = s.URL
		both[i] = server{&world, s.URL}
	}
	return w, both
}

// A device that asks now one server, now the other is online all the time, and
// offline when it asks none.
func TestPresenceOnTwoServers(t *testing.T) {
	var ahead atomic.Int64 // how far the cloud's clock is ahead of the real one
	w, both := servers(t, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }, device.Config{PollInterval: 10 * time.Minute})
	d, key := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	both[0].Want(200, "GET", statePath(d), key, "")
	heard(t, w, d, "online")
	for i := range 8 {
		ahead.Add(int64(9 * time.Minute))
		both[(i+1)%2].Want(200, "GET", statePath(d), key, "")
		seen(t, w, d)
	}
	ahead.Add(int64(15*time.Minute + 20*time.Second))
	heard(t, w, d, "offline")
	both[1].Want(200, "GET", statePath(d), key, "")
	heard(t, w, d, "online")
}

// seen waits until the device's last sign of life is written, and says that it is
// online.
func seen(t *testing.T, w *cloudtest.World, d model.Device) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := w.DB.DeviceByID(t.Context(), d.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Heartbeat != "online" {
			t.Fatalf("the device is %s", got.Heartbeat)
		}
		if w.DB.Now().Sub(got.LastSeen) < time.Minute {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("last seen %s ago", w.DB.Now().Sub(got.LastSeen))
		}
		<-time.After(10 * time.Millisecond)
	}
}

// acting runs the device's end against a server: it holds requests, fetches calls and
// carries them out.
func acting(t *testing.T, url string, d model.Device, key string, carry func(uplink.Call) uplink.CallAnswer) {
	t.Helper()
	transport := &http.Transport{}
	client, err := uplink.New(uplink.Config{Endpoint: url, UUID: d.UUID, Key: func() string { return key }, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan struct{}, 1)
	poller := uplink.NewPoller(uplink.PollConfig{
		Source: client, Wait: 30 * time.Second, Interval: func() time.Duration { return time.Minute }, Jitter: -1,
		OnTarget: func(context.Context, []byte, string) error { return nil },
		OnCalls: func() {
			select {
			case waiting <- struct{}{}:
			default:
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = poller.Run(ctx) })
	running.Go(func() {
		_ = uplink.RunCalls(ctx, uplink.CallConfig{Waiting: waiting, Fetch: client.Calls, Answer: client.AnswerCalls,
			Carry: func(_ context.Context, c uplink.Call) uplink.CallAnswer { return carry(c) }, OnError: func(err error) { t.Error(err) }})
	})
	t.Cleanup(func() { cancel(); running.Wait(); transport.CloseIdleConnections() })
}

// reachable waits until people can call the device.
func reachable(t *testing.T, w *cloudtest.World, devices ...model.Device) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for _, d := range devices {
		for {
			rows, err := w.DB.ReachableDevices(t.Context(), auth.Actor{Kind: auth.User, ID: w.Admin.ID}.Caller(), model.Reach{Device: d.ID})
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) == 1 && rows[0].Acts {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("device %s cannot be called: %+v", d.UUID, rows)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// The owner asks one server, the devices hold requests of both.
func TestCallsOnTwoServers(t *testing.T) {
	w, both := servers(t, nil, device.Config{ActionWait: 20 * time.Second})
	f := w.Fleet(w.Admin, "kitchen")
	a, keyA := w.Device(f, "a")
	b, keyB := w.Device(f, "b")
	carry := func(name string) func(c uplink.Call) uplink.CallAnswer {
		return func(c uplink.Call) uplink.CallAnswer {
			switch c.Path {
			case "/v1/blink":
				return uplink.CallAnswer{Status: 200, Type: "text/plain; charset=utf-8", Body: `OK "` + name + `"`}
			case "/v1/reboot":
				return uplink.CallAnswer{Status: 423, Type: "application/json", Body: `{"Data":"","Error":"Updates are locked"}`}
			case "/v1/update":
				return uplink.CallAnswer{Status: 204}
			}
			said, _ := json.Marshal(map[string]any{"name": name, "method": c.Method, "path": c.Path, "body": c.Body})
			return uplink.CallAnswer{Status: 200, Type: "application/json", Body: string(said)}
		}
	}
	acting(t, both[0].url, a, keyA, carry("a"))
	acting(t, both[1].url, b, keyB, carry("b"))
	reachable(t, w, a, b)
	for _, c := range []struct {
		path, body string
		status     int
		answer     string
	}{
		{"/supervisor/v1/blink", `{"uuid":"` + a.UUID + `"}`, 200, `OK "a"`},
		{"/supervisor/v1/blink", `{"deviceId":"` + fmt.Sprint(b.ID) + `"}`, 200, `OK "b"`},
		{"/supervisor/v1/reboot", `{"deviceId":` + fmt.Sprint(b.ID) + `,"data":{"force":false}}`, 423, `{"Data":"","Error":"Updates are locked"}`},
		{"/supervisor/v1/update", `{"deviceId":` + fmt.Sprint(a.ID) + `,"data":{"force":true}}`, 204, ``},
		{"/supervisor/v2/state/status?apikey=x&q=1", `{"deviceId":` + fmt.Sprint(a.ID) + `,"method":"GET"}`, 200, `{"body":null,"method":"GET","name":"a","path":"/v2/state/status?q=1"}`},
		{"/supervisor/v1/restart", `{"appId":` + fmt.Sprint(f.ID) + `,"data":{"appId":1}}`, 207,
			`[{"statusCode":200,"body":{"body":{"appId":1},"method":"POST","name":"a","path":"/v1/restart"}},{"statusCode":200,"body":{"body":{"appId":1},"method":"POST","name":"b","path":"/v1/restart"}}]`},
		{"/application/" + fmt.Sprint(f.ID) + "/restart", ``, 200, ``},
	} {
		got := both[1].Do("POST", c.path, w.AdminSession, c.body)
		if got.Status != c.status || got.Body != c.answer {
			t.Errorf("%s %s: %d %s, want %d %s", c.path, c.body, got.Status, got.Body, c.status, c.answer)
		}
	}
}

func TestCallsThatReachNobody(t *testing.T) {
	w, both := servers(t, nil, device.Config{ActionWait: 300 * time.Millisecond})
	f, his := w.Fleet(w.Admin, "kitchen"), w.Fleet(w.Bob, "cellar")
	d, key := w.Device(f, "a")
	for name, c := range map[string]struct {
		credential, body string
		status           int
		text             string
	}{
		"nothing":       {w.AdminSession, `{}`, 400, "At least one filter must be specified"},
		"bad app":       {w.AdminSession, `{"appId":"x"}`, 400, "App ID must be a valid integer if specified"},
		"bad device":    {w.AdminSession, `{"deviceId":-1}`, 400, "Device ID must be a valid integer if specified"},
		"offline":       {w.AdminSession, `{"deviceId":` + fmt.Sprint(d.ID) + `}`, 404, "No online device(s) found"},
		"foreign fleet": {w.AdminSession, `{"appId":` + fmt.Sprint(his.ID) + `}`, 404, "No online device(s) found"},
		"nobody":        {"", `{"deviceId":1}`, 401, ""},
	} {
		if a := both[0].Do("POST", "/supervisor/v1/blink", c.credential, c.body); a.Status != c.status || !strings.Contains(a.Body, c.text) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	// It asks, and says that it fetches calls, but never does.
	tag := both[0].Want(200, "GET", statePath(d), key, "", "Deckhand-Actions", "1").Header.Get("ETag")
	reachable(t, w, d)
	if a := both[0].Want(502, "POST", "/supervisor/v1/blink", w.AdminSession, `{"uuid":"`+d.UUID+`"}`); !strings.Contains(a.Body, "not fetched") {
		t.Error(a.Body)
	}
	both[0].Want(401, "GET", "/device/v3/"+d.UUID+"/actions", w.AdminSession, "")
	if a := both[0].Want(200, "GET", "/device/v3/"+d.UUID+"/actions", key, ""); a.Body != "[]" {
		t.Errorf("a call that is over is handed out: %s", a.Body)
	}
	// One that holds a request and does not fetch calls can be told to ask again.
	done := make(chan cloudtest.Answer, 1)
	go func() {
		done <- both[1].Do("GET", statePath(d), key, "", "If-None-Match", tag, "Prefer", "wait=60")
	}()
	deadline := time.After(20 * time.Second)
	for {
		both[0].Do("POST", "/supervisor/v1/update", w.AdminSession, `{"uuid":"`+d.UUID+`"}`)
		select {
		case a := <-done:
			if a.Status != 304 || a.Header.Get("Preference-Applied") != "wait" {
				t.Errorf("%d %v", a.Status, a.Header)
			}
			return
		case <-deadline:
			t.Fatal("the device was not told to ask again")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A target that changes through one server ends the request that the other holds.
func TestHeldRequestOnAnotherServer(t *testing.T) {
	w, both := servers(t, nil, device.Config{})
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	tag := both[1].Want(200, "GET", statePath(d), key, "").Header.Get("ETag")
	done := make(chan cloudtest.Answer, 1)
	go func() {
		done <- both[1].Do("GET", statePath(d), key, "", "If-None-Match", tag, "Prefer", "wait=60")
	}()
	w.Release(f, "abc", one)
	select {
	case a := <-done:
		if a.Status != 200 || !strings.Contains(a.Body, `"abc"`) {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the device was not told")
	}
}
