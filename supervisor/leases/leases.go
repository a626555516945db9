// Package leases keeps the update locks that were taken over the local API: who holds which,
// until when, over restarts of the supervisor. For the planner they are locks of users like
// the files of package locks.
package leases

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

const (
	// Usual is how long a lease lasts that names no time.
	Usual = 5 * time.Minute
	// most bounds what a program that has lost its lease can hold up.
	most = 24 * time.Hour
	// least keeps the disk from being written to all the time.
	least = time.Second
	// longestHolder and longestReason are in bytes: they stand in every plan
	// and report.
	longestHolder, longestReason = 64, 200
)

// Each is how many leases a service may have: parts of it that do not know of each
// other may each take one.
const Each = 16

// Store is the part of the store that leases need.
type Store interface {
	All() ([]store.Lease, error)
	Change(put []store.Lease, forget ...string) error
}

// Leases are all of a device.
type Leases struct {
	store Store
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

// Open reads those that still hold.
func Open(s Store, now func() time.Time, boot func() string, log zerolog.Logger) (*Leases, error) {
	l := &Leases{
		store: s, now: now, boot: boot, log: log, all: map[string]store.Lease{}, granted: map[string]uint64{},
		begun: map[int64]uint64{}, taking: map[int64]int{}, changed: make(chan struct{}),
	}
	list, err := s.All()
	latest := now().Add(most)
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

// Seen is the count before a look.
func (l *Leases) Seen() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// tell says that who holds what has changed; the lock is held.
func (l *Leases) tell() {
	l.version++
	l.wake()
}

// wake lets who watches see when the next lease ends; the lock is held.
func (l *Leases) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// drop forgets leases that have ended; the lock is held. What the disk does not
// take ends by its deadline.
func (l *Leases) drop(ids []string) {
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
func (l *Leases) expire() {
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
func (l *Leases) sorted() []store.Lease {
	return slices.SortedFunc(maps.Values(l.all), func(a, b store.Lease) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
}

// List are the leases of today, broken ones too, oldest first.
func (l *Leases) List() []store.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l.sorted()
}

// Observe adds leases to a look that began when the count was since. Those whose
// containers are gone end.
func (l *Leases) Observe(w *state.World, since uint64) {
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

// Yield is asked before our own locks are taken: a lease is in the way unless
// the step says who allows to break it. The caller says how the taking ended.
func (l *Leases) Yield(s reconcile.TakeLocks) (end func(taken bool), err error) {
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
func (l *Leases) taken(s reconcile.TakeLocks, ids []string, taken bool) {
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

// ErrBusy means that a lease is refused while we have the locks, as a lock file is.
var ErrBusy = errors.New("an update of the app is on its way; try again when it is done")

// Grant takes a lease for the service that a look at count since has found.
func (l *Leases) Grant(x store.Lease, length time.Duration, since uint64) (store.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	if l.taking[x.AppID] > 0 || l.begun[x.AppID] > since {
		return x, state.Classify(state.ClassLocked, ErrBusy)
	}
	n := 0
	for _, o := range l.all {
		if o.App == x.App && o.Service == x.Service && o.BrokenBy == "" {
			n++
		}
	}
	if n >= Each {
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

// ErrNoLease means that it has ended, or never was, or is somebody else's.
var ErrNoLease = errors.New("there is no such lease, or it has ended; take a new one")

// mine finds a lease; the lock is held.
func (l *Leases) mine(id string, may func(store.Lease) bool) (store.Lease, error) {
	l.expire()
	x, ok := l.all[id]
	if !ok || !may(x) {
		return store.Lease{}, state.Classify(state.ClassNotFound, ErrNoLease)
	}
	return x, nil
}

// Renew lets a lease end later, or earlier.
func (l *Leases) Renew(id string, length time.Duration, may func(store.Lease) bool) (store.Lease, error) {
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

// Release ends a lease.
func (l *Leases) Release(id string, may func(store.Lease) bool) error {
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

// Watch gives a hint when a lease comes or ends, until ctx ends.
func (l *Leases) Watch(ctx context.Context) <-chan struct{} {
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
func (l *Leases) sleep(ctx context.Context, changed <-chan struct{}, next time.Time) bool {
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
func (l *Leases) due() (changed <-chan struct{}, next time.Time, version uint64) {
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

// Holding counts the leases that hold.
func (l *Leases) Holding() int {
	n := 0
	for _, x := range l.List() {
		if x.BrokenBy == "" {
			n++
		}
	}
	return n
}

// Length checks how long a lease is to last.
func Length(d time.Duration) (time.Duration, error) {
	d = cmp.Or(d, Usual)
	if d < least || d > most {
		return 0, state.Classify(state.ClassInvalid, fmt.Errorf("for: a lease lasts from %s to %s; renew it to keep it longer", least, most))
	}
	return d, nil
}

// Check says what is wrong with who takes a lease, and why; the reason may be "".
func Check(holder, reason string) error {
	var err error
	if holder == "" {
		err = errors.New("holder: say who takes the lease")
	}
	return errors.Join(err, oneLine("holder", holder, longestHolder), oneLine("reason", reason, longestReason))
}

// oneLine checks a text that stands in plans and reports: one line.
func oneLine(name, text string, longest int) error {
	switch {
	case len(text) > longest:
		return fmt.Errorf("%s: it is longer than %d bytes", name, longest)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%s: it must be one line of text", name)
	}
	return nil
}
