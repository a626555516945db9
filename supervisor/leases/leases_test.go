package leases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/state"
	"deckhand/state/store"
)

// watched are leases and who is told of them.
type watched struct {
	*Leases
	t     *testing.T
	hints <-chan struct{}
}

// passes lets time pass, and says whether there was a hint.
func (w watched) passes(d time.Duration) bool {
	<-time.After(d)
	synctest.Wait()
	select {
	case <-w.hints:
		return true
	default:
		return false
	}
}

// given is a new lease.
func (w watched) given(d time.Duration) store.Lease {
	w.t.Helper()
	x, err := w.Grant(store.Lease{App: "aaaa", AppID: 1, Service: "web"}, d, w.Seen())
	if err != nil || !w.passes(0) {
		w.t.Fatalf("a new lease is no hint (%v)", err)
	}
	return x
}

func (w watched) renewed(x store.Lease, d time.Duration) {
	w.t.Helper()
	if _, err := w.Renew(x.ID, d, everybody); err != nil || w.passes(0) {
		w.t.Errorf("a renewal is a hint (%v)", err)
	}
}

func everybody(store.Lease) bool { return true }

// The loop is told when a lease comes, ends or runs out, and not of renewals,
// each of which would cost a look.
func TestTheEndOfALeaseIsAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := map[string]store.Lease{}
		l, err := Open(mapStore(m), time.Now, func() string { return "" }, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w := watched{l, t, l.Watch(ctx)}
		x := w.given(time.Minute)
		w.passes(50 * time.Second)
		w.renewed(x, time.Minute)
		if w.passes(50 * time.Second) {
			t.Error("a hint at the old deadline")
		}
		if !w.passes(10*time.Second) || len(m) != 0 {
			t.Error("no hint at the deadline")
		}
		w.renewed(w.given(time.Hour), time.Second)
		if !w.passes(time.Second) {
			t.Error("no hint at a deadline that came nearer")
		}
		x = w.given(time.Hour)
		if err := l.Release(x.ID, everybody); err != nil || !w.passes(0) {
			t.Errorf("no hint at a release (%v)", err)
		}
		cancel()
		synctest.Wait()
		if _, open := <-w.hints; open {
			t.Error("it goes on")
		}
	})
}

// mapStore is a store in memory.
type mapStore map[string]store.Lease

func (m mapStore) All() ([]store.Lease, error) {
	return slices.Collect(maps.Values(m)), nil
}

func (m mapStore) Change(put []store.Lease, forget ...string) error {
	for _, x := range put {
		m[x.ID] = x
	}
	for _, id := range forget {
		delete(m, id)
	}
	return nil
}

// fullStore is a disk that takes nothing.
type fullStore struct{ mapStore }

func (fullStore) Change([]store.Lease, ...string) error { return errors.New("no space left") }

// On a full disk nobody is told that they have a lease, or that it is over.
func TestLeasesOnAFullDisk(t *testing.T) {
	held := store.Lease{ID: "l1", App: "aaaa", AppID: 1, Service: "web", Until: time.Now().Add(time.Hour)}
	l, err := Open(fullStore{mapStore{"l1": held}}, time.Now, func() string { return "" }, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	_, take := l.Grant(store.Lease{App: "aaaa"}, time.Minute, l.Seen())
	_, renew := l.Renew("l1", time.Minute, everybody)
	for what, err := range map[string]error{"take": take, "renew": renew, "release": l.Release("l1", everybody)} {
		if state.ClassOf(err) != state.ClassSpace || err == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if diff := cmp.Diff([]store.Lease{held}, l.List()); diff != "" {
		t.Error(diff)
	}
}

// A clock that was set back must not make a lease last for ever.
func TestALeaseAndAClockThatJumps(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l, err := Open(mapStore{"l1": {ID: "l1", Until: now.AddDate(1, 0, 0)}}, func() time.Time { return now }, func() string { return "" }, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if got := l.List(); len(got) != 1 || got[0].Until.After(now.Add(most)) {
		t.Error(fmt.Sprint(got))
	}
}
