package locks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// How often Watch looks. While somebody waits for a lock to go the kernel tells when
// something happens; only where it cannot, Watch looks often. A new lock is seen by
// whoever wants to take it; until then it is news for people only, and a look at fifty
// services is what a device at rest spends most of its work on.
const (
	watchHeld = 500 * time.Millisecond // while a lock is held and the kernel tells nothing
	watchFree = 30 * time.Second       // and for what is not told, as a flock that ends while the file stays open
	// The kernel tells of a file that is closed before its flock has gone; and a
	// service may make and remove locks as fast as it likes.
	watchSettle = 50 * time.Millisecond
)

// UpdateLock is a lock file of a service that exists, whoever made it.
type UpdateLock struct {
	AppID   int64
	Service string
	Path    string    // on the host
	Kind    string    // file, folder, symlink, pipe, socket or device: all of them lock
	UID     int       // owner
	Since   time.Time // last change of the file
	Ours    bool      // held by this process, or left by an earlier run
	Flocked bool      // a process has a flock on it; with Ours it is this one
}

// Holder says for people who holds the lock: "updates.lock, owner uid 0".
func (l UpdateLock) Holder() string {
	s := filepath.Base(l.Path)
	if l.Kind != kindFile && l.Kind != "" {
		s += " (" + l.Kind + ")"
	}
	s += fmt.Sprintf(", owner uid %d", l.UID)
	if l.Flocked && !l.Ours {
		s += ", flock held by a process"
	}
	return s
}

// Observe lists every lock there is, of unknown apps too, sorted by app,
// service and name. It follows no links.
func (f *Folder) Observe(ctx context.Context) ([]UpdateLock, error) {
	all, err := f.look(ctx, true)
	if err != nil {
		return nil, fmt.Errorf("look for update locks: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	if s := signature(all); s != f.seen {
		f.seen = s
		close(f.looked)
		f.looked = make(chan struct{})
	}
	return all, nil
}

// Watch gives a hint when a lock of somebody else has appeared or gone since
// Observe last looked. A lock that goes is noticed at once, one that appears when
// there was none within half a minute. The channel is closed when ctx ends.
func (f *Folder) Watch(ctx context.Context) <-chan struct{} {
	hints := make(chan struct{}, 1)
	go func() {
		defer close(hints)
		w := &watching{f: f, looks: -1}
		defer w.unhang()
		w.run(ctx, hints)
	}()
	return hints
}

// watching is one call of Watch.
type watching struct {
	f       *Folder
	bell    *bell  // nil: no lock of others, or the kernel has none to give
	looks   int    // the look of Observe that told is about
	told    string // what whoever follows our hints knows
	failing bool
	deaf    bool // it was said that the kernel tells nothing
}

func (w *watching) run(ctx context.Context, hints chan<- struct{}) {
	for {
		w.f.mu.Lock()
		if w.looks != w.f.looks {
			w.looks, w.told = w.f.looks, w.f.seen
		}
		looked := w.f.looked
		w.f.mu.Unlock()
		now, err := w.look(ctx)
		if err != nil && !w.failing && ctx.Err() == nil {
			w.f.log.Warn().Err(err).Msg("cannot look for update locks")
		}
		w.failing = err != nil
		if err == nil && now != w.told {
			w.told = now
			select {
			case hints <- struct{}{}:
			default:
			}
		}
		if !w.wait(ctx, looked) {
			return
		}
	}
}

// wait waits for the next look; false: ctx has ended.
func (w *watching) wait(ctx context.Context, looked <-chan struct{}) bool {
	pause := watchFree
	if w.told != "" && (w.bell == nil || w.failing) {
		pause = watchHeld
	}
	var rings <-chan struct{}
	if w.bell != nil {
		rings = w.bell.rings
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-looked:
	case <-timer.C:
	case <-rings:
		timer.Reset(watchSettle)
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		}
	}
	return true
}

// look says which locks of others there are, and hangs the bell where they are.
func (w *watching) look(ctx context.Context) (string, error) {
	for {
		all, err := w.once(ctx)
		if err != nil {
			return "", err
		}
		all = slices.DeleteFunc(all, func(l UpdateLock) bool { return l.Ours })
		if !w.hang(all) {
			return signature(all), nil
		}
		// Between the look and the bell it may have gone.
	}
}

func (w *watching) once(ctx context.Context) (all []UpdateLock, err error) {
	if w.bell == nil {
		return w.f.look(ctx, false)
	}
	w.bell.without(func() { all, err = w.f.look(ctx, false) })
	return all, err
}

// hang has the bell ring for these locks of others. Fresh: a folder is new, and what
// happened there since the look is not told.
func (w *watching) hang(all []UpdateLock) (fresh bool) {
	if len(all) == 0 {
		w.unhang()
		return false
	}
	fresh, err := w.tryToHang(all)
	if err != nil {
		w.unhang()
		if !w.deaf && !errors.Is(err, fs.ErrNotExist) {
			w.deaf = true
			w.f.log.Info().Err(err).Msg("the kernel does not tell when an update lock goes; looking twice a second")
		}
		return false
	}
	return fresh
}

func (w *watching) tryToHang(all []UpdateLock) (fresh bool, err error) {
	if w.bell == nil {
		if w.bell, err = w.f.newBell(); err != nil {
			return false, err
		}
	}
	root, err := openDir(w.f.root)
	if err != nil {
		return false, err
	}
	defer root.close()
	return w.bell.follow(root, all, func(l UpdateLock) bool { return l.UID == w.f.uid && l.Kind == kindFile })
}

func (w *watching) unhang() {
	if w.bell != nil {
		w.bell.close()
		w.bell = nil
	}
}

// signature is a text that differs when locks of others do; empty: there are none.
func signature(all []UpdateLock) string {
	var b strings.Builder
	for _, l := range all {
		if !l.Ours {
			fmt.Fprintf(&b, "%s %s %d\n", l.Path, l.Kind, l.UID)
		}
	}
	return b.String()
}

// look lists the locks; with flocks it says of those of users, too, whether a
// process has a flock on them.
func (f *Folder) look(ctx context.Context, flocks bool) ([]UpdateLock, error) {
	root, err := openDir(f.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.close()
	apps, err := appsIn(root)
	if err != nil {
		return nil, err
	}
	var all []UpdateLock
	for _, id := range apps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var errs []error
		err := eachService(root, id, func(service string, d dir) {
			found, err := f.inFolder(id, service, d, flocks)
			all, errs = append(all, found...), append(errs, err)
		})
		if err := errors.Join(append(errs, err)...); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// inFolder lists the locks of one service by path: resin-updates.lock first.
func (f *Folder) inFolder(appID int64, service string, d dir, flocks bool) ([]UpdateLock, error) {
	var all []UpdateLock
	names := lockNames()
	for _, name := range []string{names[1], names[0]} {
		s, err := d.lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		l := f.describe(appID, service, d.path(name), s)
		switch {
		case f.couldBeOurs(s) && f.isOwn(s.id):
			l.Ours, l.Flocked = true, true
		case f.couldBeOurs(s):
			l.Flocked = f.flocked(d, name)
			l.Ours = !l.Flocked || f.isOwn(s.id) // it may have become ours just now
		case s.kind == kindFile && flocks:
			l.Flocked = f.flocked(d, name)
		}
		all = append(all, l)
	}
	return all, nil
}

func (f *Folder) describe(appID int64, service, path string, s seen) UpdateLock {
	return UpdateLock{AppID: appID, Service: service, Path: path, Kind: s.kind, UID: s.uid, Since: s.since}
}
