package supervisor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

const (
	// leaseFor is how long a lease lasts that names no time.
	leaseFor = 5 * time.Minute
	// leaseMost bounds what a program that has lost its lease can hold up.
	leaseMost = 24 * time.Hour
	// leaseLeast keeps the disk from being written to all the time.
	leaseLeast = time.Second
	// leasesEach is how many leases a service may have: parts of it that do not
	// know of each other may each take one.
	leasesEach = 16
	// longestHolder and longestReason are in bytes: they stand in every plan
	// and report.
	longestHolder, longestReason = 64, 200
)

// leaseStore is the part of the store that leases need.
type leaseStore interface {
	All() ([]store.Lease, error)
	Change(put []store.Lease, forget ...string) error
}

// leases are the update locks that were taken over the local API. For the
// planner they are locks of users like the files of package locks.
type leases struct {
	store leaseStore
	now   func() time.Time
	boot  func() string // names this run of the kernel; "": not known
	log   zerolog.Logger

	mu      sync.Mutex
	all     map[string]store.Lease
	granted map[string]uint64 // lease → when, counted
	begun   map[int64]uint64  // app → when we last began to take its locks
	taking  map[int64]int     // app → takings on their way
	count   uint64
	version uint64        // counts leases that came, ended or were broken
	changed chan struct{} // closed and replaced on those and on renewals
}

// openLeases reads those that still hold.
func openLeases(s leaseStore, now func() time.Time, boot func() string, log zerolog.Logger) (*leases, error) {
	l := &leases{
		store: s, now: now, boot: boot, log: log, all: map[string]store.Lease{}, granted: map[string]uint64{},
		begun: map[int64]uint64{}, taking: map[int64]int{}, changed: make(chan struct{}),
	}
	list, err := s.All()
	latest := now().Add(leaseMost)
	for _, x := range list {
		if x.Until.After(latest) { // the clock was set back
			x.Until = latest
		}
		l.all[x.ID] = x
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l, err
}

// seen is the count before a look.
func (l *leases) seen() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// tell says that who holds what has changed; the lock is held.
func (l *leases) tell() {
	l.version++
	l.wake()
}

// wake lets who watches see when the next lease ends; the lock is held.
func (l *leases) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// drop forgets leases that have ended; the lock is held. What the disk does not
// take ends by its deadline.
func (l *leases) drop(ids []string) {
	if len(ids) == 0 {
		return
	}
	for _, id := range ids {
		delete(l.all, id)
		delete(l.granted, id)
	}
	if err := l.store.Change(nil, ids...); err != nil {
		l.log.Warn().Err(err).Msg("cannot forget update-lock leases that have ended")
	}
	l.tell()
}

// expire forgets leases whose time is over and those of an earlier boot; the
// lock is held.
func (l *leases) expire() {
	if len(l.all) == 0 {
		return
	}
	now, boot := l.now(), l.boot()
	var over []string
	for _, id := range slices.Sorted(maps.Keys(l.all)) {
		x := l.all[id]
		restarted := x.Boot != "" && boot != "" && x.Boot != boot
		if restarted || !now.Before(x.Until) {
			over = append(over, id)
		}
	}
	l.drop(over)
}

// sorted lists the leases, oldest first; the lock is held.
func (l *leases) sorted() []store.Lease {
	return slices.SortedFunc(maps.Values(l.all), func(a, b store.Lease) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
}

// list are the leases of today, broken ones too, oldest first.
func (l *leases) list() []store.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l.sorted()
}

// observe adds leases to a look that began when the count was since. Those whose
// containers are gone end.
func (l *leases) observe(w *state.World, since uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	var gone []string
	for _, x := range l.sorted() {
		if !lives(x, w.Apps[x.App]) && l.granted[x.ID] <= since {
			gone = append(gone, x.ID)
			continue
		}
		if x.BrokenBy == "" {
			hold(w, x)
		}
	}
	l.drop(gone)
}

// lives reports whether a container of a lease is still there.
func lives(x store.Lease, a state.AppNow) bool {
	return slices.ContainsFunc(a.Containers, func(c state.Container) bool { return slices.Contains(x.Containers, c.ID) })
}

// hold adds a lease to the locks of its app, of which each service shows the
// oldest.
func hold(w *state.World, x store.Lease) {
	a := w.Apps[x.App]
	a.UUID, a.ID = x.App, cmp.Or(a.ID, x.AppID)
	lock := state.UserLock{Service: x.Service, Holder: leaseHolder(x), Since: x.Since.Unix()}
	i, found := slices.BinarySearchFunc(a.UserLocks, x.Service, func(u state.UserLock, name string) int { return cmp.Compare(u.Service, name) })
	switch {
	case !found:
		a.UserLocks = slices.Insert(slices.Clone(a.UserLocks), i, lock)
	case lock.Since < a.UserLocks[i].Since:
		a.UserLocks = slices.Clone(a.UserLocks)
		a.UserLocks[i] = lock
	}
	w.Apps[x.App] = a
}

// leaseHolder says for people who holds a lease. The deadline is left out: each
// renewal would look like another lock.
func leaseHolder(x store.Lease) string {
	if x.Reason == "" {
		return "lease of " + x.Holder
	}
	return "lease of " + x.Holder + " (" + x.Reason + ")"
}

// yield is asked before our own locks are taken: a lease is in the way unless
// the step says who allows to break it. The caller says how the taking ended.
func (l *leases) yield(s reconcile.TakeLocks) (end func(taken bool), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	var broken []string
	for _, x := range l.sorted() {
		if x.App != s.App.UUID || x.BrokenBy != "" || !slices.Contains(s.Services, x.Service) {
			continue
		}
		if s.By == "" {
			return nil, state.Classify(state.ClassLocked, fmt.Errorf("take locks of app %d: service %s: held by %s", s.App.ID, x.Service, leaseHolder(x)))
		}
		broken = append(broken, x.ID)
	}
	l.count++
	l.begun[s.App.ID] = l.count
	l.taking[s.App.ID]++
	return func(taken bool) { l.taken(s, broken, taken) }, nil
}

// taken is the end of a taking: if we have the locks now, the leases that were
// in the way are broken.
func (l *leases) taken(s reconcile.TakeLocks, ids []string, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taking[s.App.ID]--; l.taking[s.App.ID] <= 0 {
		delete(l.taking, s.App.ID)
	}
	if !taken || len(ids) == 0 {
		return
	}
	var put []store.Lease
	for _, id := range ids {
		x, still := l.all[id]
		if !still {
			continue
		}
		x.BrokenBy, x.BrokenAt = s.By, l.now().UTC()
		l.all[id] = x
		put = append(put, x)
		l.log.Warn().Str("app", s.App.Name).Str("service", x.Service).Str("holder", x.Holder).Str("by", s.By).Msg("update-lock lease broken by an override")
	}
	if err := l.store.Change(put); err != nil {
		l.log.Warn().Err(err).Msg("cannot write down that update-lock leases are broken")
	}
	l.tell()
}

// errBusy: a lease is refused while we have the locks, as a lock file is.
var errBusy = errors.New("an update of the app is on its way; try again when it is done")

// grant takes a lease for the service that a look at count since has found.
func (l *leases) grant(x store.Lease, length time.Duration, since uint64) (store.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	if l.taking[x.AppID] > 0 || l.begun[x.AppID] > since {
		return x, state.Classify(state.ClassLocked, errBusy)
	}
	n := 0
	for _, o := range l.all {
		if o.App == x.App && o.Service == x.Service && o.BrokenBy == "" {
			n++
		}
	}
	if n >= leasesEach {
		return x, state.Classify(state.ClassRateLimit, fmt.Errorf("service %s has %d leases; release one, or wait for the end of one", x.Service, n))
	}
	id := make([]byte, 12)
	_, _ = rand.Read(id) // never fails, see crypto/rand
	now := l.now()
	x.ID, x.Boot, x.Since, x.Until = hex.EncodeToString(id), l.boot(), now.UTC(), now.Add(length).UTC()
	if err := l.store.Change([]store.Lease{x}); err != nil {
		return x, fmt.Errorf("write the lease down: %w", state.Classify(state.ClassSpace, err))
	}
	l.all[x.ID] = x
	l.count++
	l.granted[x.ID] = l.count
	l.tell()
	return x, nil
}

// errNoLease: it has ended, or never was, or is somebody else's.
var errNoLease = errors.New("there is no such lease, or it has ended; take a new one")

// mine finds a lease; the lock is held.
func (l *leases) mine(id string, may func(store.Lease) bool) (store.Lease, error) {
	l.expire()
	x, ok := l.all[id]
	if !ok || !may(x) {
		return store.Lease{}, state.Classify(state.ClassNotFound, errNoLease)
	}
	return x, nil
}

// renew lets a lease end later, or earlier.
func (l *leases) renew(id string, length time.Duration, may func(store.Lease) bool) (store.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x, err := l.mine(id, may)
	if err != nil {
		return x, err
	}
	if x.BrokenBy != "" {
		return x, state.Classify(state.ClassLocked, fmt.Errorf("the lease was broken at %s, allowed by %s; take a new one when the update is done",
			x.BrokenAt.Format(time.RFC3339), x.BrokenBy))
	}
	x.Until = l.now().Add(length).UTC()
	if err := l.store.Change([]store.Lease{x}); err != nil {
		return x, fmt.Errorf("write the lease down: %w", state.Classify(state.ClassSpace, err))
	}
	l.all[id] = x
	l.wake()
	return x, nil
}

// release ends a lease.
func (l *leases) release(id string, may func(store.Lease) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.mine(id, may); err != nil {
		return err
	}
	if err := l.store.Change(nil, id); err != nil {
		return fmt.Errorf("end the lease: %w", state.Classify(state.ClassSpace, err))
	}
	delete(l.all, id)
	delete(l.granted, id)
	l.tell()
	return nil
}

// watch gives a hint when a lease comes or ends, until ctx ends.
func (l *leases) watch(ctx context.Context) <-chan struct{} {
	hints := make(chan struct{}, 1)
	_, _, told := l.due()
	go func() {
		defer close(hints)
		for {
			changed, next, version := l.due()
			if version != told {
				told = version
				select {
				case hints <- struct{}{}:
				default:
				}
			}
			if !l.sleep(ctx, changed, next) {
				return
			}
		}
	}()
	return hints
}

// sleep returns when a lease has changed or ended; false: ctx ended.
func (l *leases) sleep(ctx context.Context, changed <-chan struct{}, next time.Time) bool {
	var over <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(next.Sub(l.now()))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-over:
	}
	return true
}

// due is when the next lease ends, what is closed when one changes before, and
// the version that this is true of.
func (l *leases) due() (changed <-chan struct{}, next time.Time, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	for _, x := range l.all {
		if next.IsZero() || x.Until.Before(next) {
			next = x.Until
		}
	}
	return l.changed, next, l.version
}

// holding counts the leases that hold.
func (l *leases) holding() int {
	n := 0
	for _, x := range l.list() {
		if x.BrokenBy == "" {
			n++
		}
	}
	return n
}
