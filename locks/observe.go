package locks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// How often Watch looks: often while somebody waits for a lock to go. A new lock is
// seen by whoever wants to take it; until then it is news for people only, and a look
// at fifty services is what a device at rest spends most of its work on.
const (
	watchHeld = 500 * time.Millisecond
	watchFree = 30 * time.Second
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
// Observe last looked. It looks often only while there is one. The channel is
// closed when ctx ends.
func (f *Folder) Watch(ctx context.Context) <-chan struct{} {
	hints := make(chan struct{}, 1)
	go func() {
		defer close(hints)
		f.watch(ctx, hints)
	}()
	return hints
}

func (f *Folder) watch(ctx context.Context, hints chan<- struct{}) {
	looks := -1     // the look of Observe that told is about
	var told string // what whoever follows our hints knows
	failing := false
	for {
		f.mu.Lock()
		if looks != f.looks {
			looks, told = f.looks, f.seen
		}
		looked := f.looked
		f.mu.Unlock()
		all, err := f.look(ctx, false)
		if err != nil && !failing && ctx.Err() == nil {
			f.log.Warn().Err(err).Msg("cannot look for update locks")
		}
		failing = err != nil
		now := told
		if err == nil {
			now = signature(all)
		}
		if now != told {
			told = now
			select {
			case hints <- struct{}{}:
			default:
			}
		}
		pause := watchFree
		if now != "" {
			pause = watchHeld
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-looked:
			timer.Stop()
		case <-timer.C:
		}
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
