package locks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"deckhand/state"
)

// LockUID is who our lock files belong to, on every device: with this owner
// balena's supervisor takes over what we leave and we what it leaves.
const LockUID = 65534

// lockNames are the two names of a service's lock, in the order in which they
// are taken. The second is what old libraries make.
func lockNames() [2]string { return [2]string{"updates.lock", "resin-updates.lock"} }

// Config is where update locks are.
type Config struct {
	RunDir string // the folder that host, supervisor and services share
	UID    int    // owner of our files; 0: LockUID
	Log    zerolog.Logger

	// Deaf asks nothing of the kernel while a lock is held, but looks: for tests whose
	// time stands still while somebody waits for the kernel.
	Deaf bool
}

// Folder is the folder on the host that holds the lock folders of all services:
// <RunDir>/services/<appId>/<service>/. There is one in a process, and one
// process (see Instance).
type Folder struct {
	root string
	uid  int
	log  zerolog.Logger

	// Whoever flocks a file for a look or to adopt it has this: our own look
	// must not seem to be another process.
	flocks sync.Mutex

	mu    sync.Mutex
	turns map[int64]chan struct{} // full: somebody changes locks of the app
	held  map[int64][]*held       // what earlier calls of Take left us with
	own   map[fileID]bool         // files on which we have a flock

	seen   string        // the locks of others when Observe last looked
	looks  int           // how often it has
	looked chan struct{} // closed and replaced when seen changes

	newBell func() (*bell, error)
}

// held is a lock file that exists, is ours and is flocked by us.
type held struct {
	service, name string
	id            fileID
	file          *os.File
}

// HeldError says which lock of somebody else was in the way.
type HeldError struct{ Lock UpdateLock }

// Error names service, file and owner.
func (e *HeldError) Error() string {
	return fmt.Sprintf("service %s: held by %s", e.Lock.Service, e.Lock.Holder())
}

// Open makes nothing and touches nothing.
func Open(cfg Config) *Folder {
	f := &Folder{
		root: filepath.Join(cfg.RunDir, "services"), uid: cfg.UID, log: cfg.Log,
		turns: map[int64]chan struct{}{}, held: map[int64][]*held{}, own: map[fileID]bool{},
		looked: make(chan struct{}), newBell: newBell,
	}
	if f.uid == 0 {
		f.uid = LockUID
	}
	if cfg.Deaf {
		f.newBell = func() (*bell, error) { return nil, errors.ErrUnsupported }
	}
	return f
}

// Take takes both lock files of each service, all or none. Files of ours that an
// earlier run left count as taken. A lock of somebody else ends in an error of
// class locked that wraps a *HeldError; unless force is set, which removes it.
//
// After any error, also that of a context that ended, everything is as before
// the call, except that what an earlier run left in this app is gone. What an
// earlier call of this process took stays taken: something may rely on it.
func (f *Folder) Take(ctx context.Context, appID int64, services []string, force bool) error {
	end, err := f.turn(ctx, "take", appID)
	if err != nil {
		return err
	}
	defer end()
	t := &taking{f: f, app: appID, force: force}
	defer t.close()
	if err = t.all(ctx, services); err == nil {
		t.keep()
		return nil
	}
	if back := t.giveBack(); back != nil {
		f.log.Warn().Err(back).Int64("app", appID).Msg("giving locks back failed")
	}
	return classify(fmt.Errorf("take locks of app %d: %w", appID, err))
}

// errName is for services that cannot have a folder.
var errName = errors.New("the name cannot be a folder's")

func classify(err error) error {
	_, lock := errors.AsType[*HeldError](err)
	switch {
	case lock:
		return state.Classify(state.ClassLocked, err)
	case errors.Is(err, context.Canceled):
		return state.Classify(state.ClassCancelled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return state.Classify(state.ClassTimeout, err)
	case errors.Is(err, unix.ENOSPC):
		return state.Classify(state.ClassSpace, err)
	case errors.Is(err, errName):
		return state.Classify(state.ClassInvalid, err)
	}
	return err
}

// Release removes every lock file of ours in the app, those of earlier runs
// too. Files of users stay. Nothing there is fine.
func (f *Folder) Release(ctx context.Context, appID int64) error {
	end, err := f.turn(ctx, "release", appID)
	if err != nil {
		return err
	}
	defer end()
	err = f.sweep(appID, true)
	f.mu.Lock()
	mine := f.held[appID]
	delete(f.held, appID)
	f.mu.Unlock()
	for _, h := range mine {
		f.letGo(h)
	}
	if err != nil {
		return fmt.Errorf("release locks of app %d: %w", appID, err)
	}
	return nil
}

// Clean releases the locks of apps that nobody knows.
func (f *Folder) Clean(ctx context.Context, known func(appID int64) bool) error {
	root, err := openDir(f.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean locks: %w", err)
	}
	defer root.close()
	apps, err := appsIn(root)
	if err != nil {
		return fmt.Errorf("clean locks: %w", err)
	}
	var errs []error
	for _, id := range apps {
		if !known(id) {
			errs = append(errs, f.Release(ctx, id))
		}
	}
	return errors.Join(errs...)
}

// turn waits until nobody else changes the locks of the app.
func (f *Folder) turn(ctx context.Context, verb string, appID int64) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, classify(fmt.Errorf("%s locks of app %d: %w", verb, appID, err))
	}
	f.mu.Lock()
	turn := f.turns[appID]
	if turn == nil {
		turn = make(chan struct{}, 1)
		f.turns[appID] = turn
	}
	f.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
	}
	err = fmt.Errorf("%s locks of app %d: another operation of the supervisor is at them: %w", verb, appID, ctx.Err())
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, state.Classify(state.ClassLocked, err)
	}
	return nil, classify(err)
}

// taking is one call of Take: what there is to undo.
type taking struct {
	f     *Folder
	app   int64
	force bool

	root, appDir dir
	dirs         map[string]dir // of services
	taken        []*held        // made or adopted by this call
	broken       []broken       // locks of others that made way
}

// broken is somebody's lock under the temporary name where it waits for the end
// of the call.
type broken struct{ service, name, aside string }

func (t *taking) all(ctx context.Context, services []string) error {
	services = slices.Compact(slices.Sorted(slices.Values(services)))
	for _, s := range services {
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
			return fmt.Errorf("service %q: %w", s, errName)
		}
	}
	if len(services) == 0 {
		return nil
	}
	if err := t.open(); err != nil {
		return err
	}
	for _, s := range services {
		d, err := t.appDir.sub(s, true)
		if err != nil {
			return fmt.Errorf("service %s: %w", s, err)
		}
		t.dirs[s] = d
		if err := d.letAllWrite(); err != nil {
			return fmt.Errorf("service %s: %w", s, err)
		}
		t.f.removeTemps(d)
		for _, name := range lockNames() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.one(d, s, name); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func (t *taking) open() (err error) {
	t.dirs = map[string]dir{}
	if err := os.MkdirAll(t.f.root, 0o755); err != nil {
		return err
	}
	if t.root, err = openDir(t.f.root); err != nil {
		return err
	}
	t.appDir, err = t.root.sub(strconv.FormatInt(t.app, 10), true)
	return err
}

func (t *taking) close() {
	for _, d := range t.dirs {
		d.close()
	}
	t.appDir.close()
	t.root.close()
}

// one takes one file. Whatever others do to it in the meantime, it ends: a file
// that comes and goes is looked at a few times only.
func (t *taking) one(d dir, service, name string) error {
	var last error
	for range 20 {
		done, err := t.try(d, service, name)
		switch {
		case err == nil && done:
			return nil
		case err == nil, errors.Is(err, errChanged), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist):
			last = err // look again
		default:
			return err
		}
	}
	return fmt.Errorf("take %s: %w", d.path(name), errors.Join(errChanged, last))
}

func (t *taking) try(d dir, service, name string) (done bool, err error) {
	now, err := d.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		t.f.forget(t.app, service, name)
		return t.make(d, service, name)
	}
	if err != nil {
		return false, err
	}
	if t.f.isOwn(now.id) && now.uid == t.f.uid {
		return true, nil
	}
	t.f.forget(t.app, service, name)
	flocked := false
	if t.f.couldBeOurs(now) {
		file, id, ok, err := t.f.claim(d, name)
		if err != nil {
			return false, err
		}
		if ok {
			t.taken = append(t.taken, &held{service: service, name: name, id: id, file: file})
			return true, nil
		}
		flocked = true
	}
	if t.force {
		return t.replace(d, service, name)
	}
	l := t.f.describe(t.app, service, d.path(name), now)
	l.Flocked = flocked || now.kind == kindFile && t.f.flocked(d, name)
	return false, &HeldError{Lock: l}
}

// make creates the lock; it appears finished or not at all.
func (t *taking) make(d dir, service, name string) (bool, error) {
	file, temp, s, err := d.draft(t.f.uid)
	if err != nil {
		return false, err
	}
	t.f.adopt(s.id)
	h := &held{service: service, name: name, id: s.id, file: file}
	err = d.link(temp, name)
	if gone := d.unlink(temp); err == nil && gone != nil {
		t.f.log.Warn().Err(gone).Msg("a temporary file stays")
	}
	if err != nil {
		t.f.letGo(h)
		return false, err
	}
	return t.made(d, h)
}

// replace puts a lock of ours where somebody else's is.
func (t *taking) replace(d dir, service, name string) (bool, error) {
	file, temp, s, err := d.draft(t.f.uid)
	if err != nil {
		return false, err
	}
	t.f.adopt(s.id)
	h := &held{service: service, name: name, id: s.id, file: file}
	if err := d.exchange(temp, name); err != nil {
		_ = d.unlink(temp)
		t.f.letGo(h)
		return false, fmt.Errorf("break lock: %w", err)
	}
	t.broken = append(t.broken, broken{service: service, name: name, aside: temp})
	return t.made(d, h)
}

// made looks whether what got the name is our file: a container could have
// swapped it while its name was a temporary one.
func (t *taking) made(d dir, h *held) (bool, error) {
	if now, err := d.lstat(h.name); err != nil || now.id != h.id {
		t.f.letGo(h)
		return false, err
	}
	t.taken = append(t.taken, h)
	return true, nil
}

// keep is the end of a call that took everything.
func (t *taking) keep() {
	t.f.mu.Lock()
	t.f.held[t.app] = append(t.f.held[t.app], t.taken...)
	t.f.mu.Unlock()
	for _, b := range t.broken {
		t.f.log.Warn().Int64("app", t.app).Str("service", b.service).Str("file", b.name).Msg("update lock broken by an override")
		if err := b.remove(t.dirs[b.service]); err != nil {
			t.f.log.Warn().Err(err).Msg("a broken lock stays under a temporary name")
		}
	}
}

// remove deletes a broken lock. A folder with something in it is not ours to
// delete: it gets a name that says what happened.
func (b broken) remove(d dir) error {
	if d.unlink(b.aside) == nil || d.rmdir(b.aside) == nil {
		return nil
	}
	id := strings.TrimSuffix(strings.TrimPrefix(b.aside, tempPrefix), tempSuffix)
	return d.move(b.aside, b.name+".broken-"+id)
}

// restore gives a lock its name back.
func (b broken) restore(d dir, isOwn func(fileID) bool) error {
	if now, err := d.lstat(b.name); err != nil || !isOwn(now.id) {
		return d.move(b.aside, b.name)
	}
	if err := d.exchange(b.aside, b.name); err != nil {
		return err
	}
	return d.unlink(b.aside)
}

// giveBack undoes the call and removes what earlier runs left in the app.
func (t *taking) giveBack() error {
	var errs []error
	for _, b := range slices.Backward(t.broken) {
		errs = append(errs, b.restore(t.dirs[b.service], t.f.isOwn))
	}
	for _, h := range slices.Backward(t.taken) {
		d := t.dirs[h.service]
		if now, err := d.lstat(h.name); err == nil && now.id == h.id {
			errs = append(errs, d.unlink(h.name))
		}
		t.f.letGo(h)
	}
	errs = append(errs, t.f.sweep(t.app, false))
	return errors.Join(errs...)
}

// sweep removes files of ours in the app: those of earlier runs, and with all
// those that we hold.
func (f *Folder) sweep(appID int64, all bool) error {
	var errs []error
	err := f.eachService(appID, func(_ string, d dir) {
		f.removeTemps(d)
		for _, name := range lockNames() {
			if err := f.remove(d, name, all); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	})
	return errors.Join(append(errs, err)...)
}

// remove removes one file if it is ours.
func (f *Folder) remove(d dir, name string, all bool) error {
	now, err := d.lstat(name)
	switch {
	case err != nil:
		return err
	case !f.couldBeOurs(now):
		return nil
	case f.isOwn(now.id):
		if !all {
			return nil
		}
		return d.unlink(name)
	}
	file, id, ok, err := f.claim(d, name)
	if errors.Is(err, errChanged) || err == nil && !ok {
		return nil // somebody's by now
	}
	if err != nil {
		return err
	}
	err = d.unlink(name)
	f.letGo(&held{id: id, file: file})
	return err
}

// removeTemps removes temporary files that a killed run left.
func (f *Folder) removeTemps(d dir) {
	list, err := d.sub(".", false) // apart, so that it starts at the first name
	if err != nil {
		return
	}
	defer list.close()
	names, _ := list.Readdirnames(maxNames)
	for _, name := range names {
		if !isTemp(name) {
			continue
		}
		now, err := d.lstat(name)
		if err != nil || now.kind != kindFile || f.isOwn(now.id) || now.uid != f.uid && now.uid != os.Geteuid() {
			continue
		}
		if f.flocked(d, name) {
			continue // being made by somebody
		}
		if err := d.unlink(name); err != nil {
			f.log.Debug().Err(err).Msg("a temporary file stays")
		}
	}
}

// couldBeOurs: the owner and the kind are ours. If another process has a flock
// on it, it is that process's nevertheless.
func (f *Folder) couldBeOurs(s seen) bool { return s.uid == f.uid && s.kind == kindFile }

// claim flocks a file that could be ours. Not ok: another process has it.
func (f *Folder) claim(d dir, name string) (file *os.File, id fileID, ok bool, err error) {
	f.flocks.Lock()
	defer f.flocks.Unlock()
	file, s, err := d.open(name)
	if err != nil {
		return nil, fileID{}, false, err
	}
	ok, err = tryFlock(file)
	if err == nil && ok {
		// Between our open and our flock its owner may have removed it.
		var now seen
		if now, err = d.lstat(name); err == nil && (now.id != s.id || !f.couldBeOurs(now)) {
			err = errChanged
		}
	}
	if err != nil || !ok {
		_ = file.Close()
		return nil, fileID{}, false, err
	}
	f.adopt(s.id)
	return file, s.id, true, nil
}

// flocked reports whether some process, this one too, has a flock on a file.
func (f *Folder) flocked(d dir, name string) bool {
	f.flocks.Lock()
	defer f.flocks.Unlock()
	file, _, err := d.open(name)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()
	free, err := tryFlock(file)
	return err == nil && !free
}

func (f *Folder) adopt(id fileID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own[id] = true
}

func (f *Folder) isOwn(id fileID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.own[id]
}

// letGo ends the flock on a file. The file must be gone by then, or others
// could take it for a leftover while it still has its name.
func (f *Folder) letGo(h *held) {
	f.mu.Lock()
	delete(f.own, h.id)
	f.mu.Unlock()
	_ = h.file.Close()
}

// forget drops what we think to hold and somebody has removed.
func (f *Folder) forget(appID int64, service, name string) {
	f.mu.Lock()
	var gone []*held
	f.held[appID] = slices.DeleteFunc(f.held[appID], func(h *held) bool {
		is := h.service == service && h.name == name
		if is {
			gone = append(gone, h)
		}
		return is
	})
	f.mu.Unlock()
	for _, h := range gone {
		f.letGo(h)
	}
}

// eachService visits the lock folders of an app, sorted. What is no folder, such
// as a link, is none of them.
func (f *Folder) eachService(appID int64, visit func(service string, d dir)) error {
	root, err := openDir(f.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.close()
	return eachService(root, appID, visit)
}

func eachService(root dir, appID int64, visit func(service string, d dir)) error {
	app, err := root.sub(strconv.FormatInt(appID, 10), false)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoFolder) {
		return nil
	}
	if err != nil {
		return err
	}
	defer app.close()
	names, err := app.Readdirnames(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(slices.Values(names)) {
		d, err := app.sub(name, false)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoFolder) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		visit(name, d)
		d.close()
	}
	return errors.Join(errs...)
}

// appsIn lists the apps that have a folder, sorted.
func appsIn(root dir) ([]int64, error) {
	names, err := root.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	ids := map[int64]bool{}
	for _, name := range names {
		if id, err := strconv.ParseInt(name, 10, 64); err == nil && strconv.FormatInt(id, 10) == name {
			ids[id] = true
		}
	}
	return slices.Sorted(maps.Keys(ids)), nil
}
