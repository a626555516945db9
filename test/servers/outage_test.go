//go:build engine

package servers

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"deckhand/test/postgres"
)

// outage is how long the database is away.
const outage = 10 * time.Second

// While the database is away all are told to come back later; when it is back the
// servers are too, by themselves, and nobody gets what was right before.
func TestTheDatabaseGoesAway(t *testing.T) {
	database, err := postgres.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := database.Stop(); err != nil {
			t.Error(err)
		}
	})
	_, url, err := database.Create(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, url)
	fleet := c.fleet(c.a.url, "kitchen")
	d, holder, running := c.register(c.a.url, fleet, "a"), c.register(c.a.url, fleet, "b"), c.register(c.a.url, fleet, "c")
	quiet := c.register(c.a.url, fleet, "d")
	c.release(c.a.url, fleet, "abc000")
	c.run(running, c.b.url)
	c.hears(running, `"name"`)
	stale := c.state(c.b.url, d, "").header.Get("ETag")
	if got := c.state(c.b.url, d, stale); got.status != http.StatusNotModified {
		t.Fatalf("%d %s", got.status, got.body)
	}
	var guest string
	c.read(c.want(http.StatusOK, c.a.url, "POST", "/api-key/user/full", c.session, `{"name":"guest"}`), &guest)
	c.want(http.StatusOK, c.b.url, "GET", "/actor/v1/whoami", guest, "")
	held := c.holds(c.b.url, holder)

	c.state(c.a.url, quiet, "")
	online(c, quiet)
	if err := database.Pause(); err != nil {
		t.Fatal(err)
	}
	refused, longest := c.refuses(d, stale)
	select {
	case got := <-held:
		t.Errorf("the held question was answered: %d %s", got.status, got.body)
	default:
	}
	if err := database.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, s := range []*server{c.a, c.b} {
		until(t, func(ctx context.Context) error {
			got, err := do(ctx, plain, s.url, "GET", "/v7/application", c.session, "")
			if err == nil && got.status != http.StatusOK {
				err = fmt.Errorf("%s answers %d %s", s.url, got.status, got.body)
			}
			return err
		})
	}
	recovered := time.Since(began)
	unbroken := c.watches(quiet) // it could not ask for longer than it may be silent
	// The second server may not listen again yet.
	c.variable(c.a.url, d, "AFTER", "the-outage")
	c.knows(func() answer { return c.state(c.b.url, d, stale) }, http.StatusOK, "the-outage")
	c.want(http.StatusOK, c.a.url, "DELETE", "/v7/api_key?$filter=name%20eq%20%27guest%27", c.session, "")
	c.knows(func() answer {
		got, err := do(t.Context(), plain, c.b.url, "GET", "/actor/v1/whoami", guest, "")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}, http.StatusUnauthorized, "")
	c.variable(c.a.url, running, "AFTER", "told-again")
	c.hears(running, "told-again")
	// Who waited through it all is told to ask again: what it waits for may have been missed.
	select {
	case <-held:
	case <-time.After(patience):
		t.Error("the second server does not listen again")
	}
	listening := time.Since(began)
	unbroken()
	longestAnnounced := c.announces(fleet, running)
	t.Logf("database away for %s: %d answers, all 503, none later than %s; back after %s, listening after %s; a change was announced within %s",
		outage, refused, longest.Round(time.Millisecond), recovered.Round(time.Millisecond), listening.Round(time.Millisecond), longestAnnounced.Round(time.Millisecond))
}

// online waits until a device counts as online.
func online(c *cloud, d *device) {
	c.Helper()
	until(c.T, func(context.Context) error {
		state := rows[struct {
			State string `json:"api_heartbeat_state"`
		}](c, c.b.url, "device", fmt.Sprintf("$select=api_heartbeat_state&$filter=id eq %d", d.id))
		if len(state) != 1 || state[0].State != "online" {
			return fmt.Errorf("the device is %v", state)
		}
		return nil
	})
}

// notified is how long a notification may take from one server to the other.
const notified = 500 * time.Millisecond

// knows asks until a notification must have come.
func (c *cloud) knows(ask func() answer, status int, words string) {
	c.Helper()
	began := time.Now()
	for {
		got := ask()
		if got.status == status && strings.Contains(got.body, words) {
			return
		}
		if time.Since(began) > notified {
			c.Errorf("the other server says what was right before the outage: %d %s", got.status, got.body)
			return
		}
	}
}

// refuses asks both servers for as long as the outage is to last. Each answer is a 503
// that says when to ask again.
func (c *cloud) refuses(d *device, tag string) (refused int, longest time.Duration) {
	c.Helper()
	over := time.After(outage)
	for {
		for _, s := range []*server{c.a, c.b} {
			began := time.Now()
			c.unavailable(s.url, "GET", "/v7/application", c.session, "", "")
			c.unavailable(s.url, "POST", "/v7/device_environment_variable", c.session, fmt.Sprintf(`{"device":%d,"name":"LOST","value":"1"}`, d.id), "")
			c.unavailable(s.url, "GET", "/device/v3/"+d.uuid+"/state", d.key, "", tag)
			c.unavailable(s.url, "PATCH", "/device/v3/state", d.key, fmt.Sprintf(`{%q:{"api_port":48484}}`, d.uuid), "")
			c.unavailable(s.url, "POST", "/login_", "", `{"username":"admin","password":"whatever"}`, "")
			longest = max(longest, time.Since(began)/5)
			refused += 5
			c.want(http.StatusOK, s.url, "GET", "/ping", "", "") // it lives,
			c.want(http.StatusServiceUnavailable, s.url, "GET", "/ready", "", "")
		}
		select {
		case <-over:
			return refused, longest
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *cloud) unavailable(url, method, path, key, body, tag string) {
	c.Helper()
	got, err := do(c.Context(), plain, url, method, path, key, body, "If-None-Match", tag)
	if err != nil {
		c.Fatal(err)
	}
	after, err := strconv.Atoi(got.header.Get("Retry-After"))
	if got.status != http.StatusServiceUnavailable || err != nil || after < 1 || after > 60 || !strings.Contains(got.body, "database") {
		c.Fatalf("%s %s: %d, Retry-After %q, %s", method, path, got.status, got.header.Get("Retry-After"), got.body)
	}
}
