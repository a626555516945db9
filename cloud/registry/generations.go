package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"deckhand/cloud/bucket"
)

// generations is a place in a bucket. Servers may share it.
//
// A bucket has no rename and no times that can be set, so what can be cleared up, a
// blob's "data" and the links to it, is a folder there with one or more objects of
// the same content, its generations, and marks:
//
//	…/data/<generation>        the content
//	…/data/<generation>.used   an empty object; its time is when somebody last asked
//	…/data/<generation>.going  it is condemned: it may vanish at any moment
//
// Names of generations are random and never come again, so what is removed late, by a
// server that was thought dead, is never what somebody has stored anew.
//
// Who uses a file lists it, marks a generation as used, and lists again: when it is not
// condemned then, it stays. If all are condemned he makes a copy, which is a new
// generation; if that fails the file is not there. Who clears up marks a generation as
// condemned and then lists: only when it was not used lately he removes it. Of the two,
// the one who lists last sees the other's mark. A generation that was condemned stays
// so; killed in between, there is nothing to put back.
type generations struct {
	store  *bucket.Store
	memory *memory
}

const (
	usedMark  = ".used"
	goingMark = ".going"
)

// clearable are the files that are kept in generations.
var clearable = regexp.MustCompile(`^` + root + `/(blobs/sha256/[0-9a-f]{2}/[0-9a-f]{64}/data|repositories/.+/(_layers|_manifests/revisions)/sha256/[0-9a-f]{64}/link)$`)

func newGenerations(store *bucket.Store, remember time.Duration) *generations {
	return &generations{store: store, memory: &memory{life: remember, uses: map[string]remembered{}, sizes: map[string]int64{}}}
}

func (g *generations) String() string { return g.store.String() }

func notThere(file string) error { return &fs.PathError{Op: "find", Path: file, Err: fs.ErrNotExist} }

// file is what a listing shows of one.
type file struct {
	path  string
	parts []generation // of an ordinary object: itself
}

type generation struct {
	path  string
	size  int64
	used  time.Time // also when it was made
	going bool
}

// latest is when the file was last used.
func (f file) latest() time.Time {
	var latest time.Time
	for _, p := range f.parts {
		if p.used.After(latest) {
			latest = p.used
		}
	}
	return latest
}

// alive is the generation to use; false: all are condemned.
func (f file) alive() (generation, bool) {
	for _, p := range f.parts {
		if !p.going {
			return p, true
		}
	}
	return f.parts[0], false
}

// listing is what is below a folder: files by their paths, and marks of generations
// that are gone.
type listing struct {
	files  []file
	strays []bucket.Object
}

func (g *generations) listing(ctx context.Context, dir string) (listing, error) {
	objects, err := g.store.Objects(ctx, dir)
	if err != nil {
		return listing{}, err
	}
	return sorted(objects), nil
}

// sorted makes files of objects, which are in the order of their paths: a generation
// comes before its marks.
func sorted(objects []bucket.Object) listing {
	var l listing
	add := func(of string, p generation) {
		if n := len(l.files); n > 0 && l.files[n-1].path == of {
			l.files[n-1].parts = append(l.files[n-1].parts, p)
			return
		}
		l.files = append(l.files, file{of, []generation{p}})
	}
	for _, o := range objects {
		of := path.Dir(o.Path)
		if !clearable.MatchString(of) {
			add(o.Path, generation{path: o.Path, size: o.Size, used: o.Changed})
			continue
		}
		name, mark := o.Path, ""
		for _, m := range []string{usedMark, goingMark} {
			if cut, ok := strings.CutSuffix(o.Path, m); ok {
				name, mark = cut, m
			}
		}
		if mark == "" {
			add(of, generation{path: o.Path, size: o.Size, used: o.Changed})
			continue
		}
		p := l.last(name)
		switch {
		case p == nil:
			l.strays = append(l.strays, o)
		case mark == goingMark:
			p.going = true
		case o.Changed.After(p.used):
			p.used = o.Changed
		}
	}
	return l
}

// last is the newest generation when it has that path.
func (l listing) last(name string) *generation {
	if len(l.files) == 0 {
		return nil
	}
	parts := l.files[len(l.files)-1].parts
	if p := &parts[len(parts)-1]; p.path == name {
		return p
	}
	return nil
}

func (l listing) young(limit time.Time) bool {
	return slices.ContainsFunc(l.files, func(f file) bool { return f.latest().After(limit) })
}

// find looks for one file.
func (g *generations) find(ctx context.Context, name string) (file, error) {
	l, err := g.listing(ctx, name)
	if err != nil {
		return file{}, err
	}
	if len(l.files) == 0 {
		return file{}, notThere(name)
	}
	return l.files[0], nil
}

// useTries is how often a file may be taken away under who wants it.
const useTries = 5

// used gives a generation that stays, because it is marked as used.
func (g *generations) used(ctx context.Context, name string) (generation, error) {
	if p, ok := g.memory.recall(name); ok {
		return p, nil
	}
	for range useTries {
		f, err := g.find(ctx, name)
		if err != nil {
			return generation{}, err
		}
		p, ok := f.alive()
		if !ok {
			p, err = g.copied(ctx, name, p)
		} else if err = g.store.PutContent(ctx, p.path+usedMark, nil); err == nil {
			p, err = g.still(ctx, name, p)
		}
		if bucket.Missing(err) {
			continue // somebody was faster
		}
		if err == nil {
			g.memory.remember(name, p)
		}
		return p, err
	}
	return generation{}, notThere(name)
}

// still gives the generation when it is not condemned.
func (g *generations) still(ctx context.Context, name string, p generation) (generation, error) {
	f, err := g.find(ctx, name)
	if err != nil {
		return p, err
	}
	for _, now := range f.parts {
		if now.path == p.path && !now.going {
			return now, nil
		}
	}
	return p, notThere(name)
}

// copied makes a new generation of one that is condemned.
func (g *generations) copied(ctx context.Context, name string, p generation) (generation, error) {
	fresh := p
	fresh.path, fresh.going = name+"/"+newGeneration(), false
	return fresh, g.store.Move(ctx, p.path, fresh.path)
}

// newGeneration is a name that never was and never will be.
func newGeneration() string { return strings.ToLower(rand.Text()) }

func (g *generations) use(ctx context.Context, files []string) error {
	return eachOf(ctx, files, func(ctx context.Context, name string) error {
		_, err := g.used(ctx, name)
		return err
	})
}

// atOnce is how many questions wait for the store at the same time.
const atOnce = 16

func (g *generations) list(ctx context.Context, dir string) ([]string, error) {
	names, err := g.store.List(ctx, dir)
	if bucket.Missing(err) {
		return nil, nil
	}
	for i := range names {
		names[i] = path.Base(names[i])
	}
	return names, err
}

func (g *generations) stat(ctx context.Context, name string) (stat, error) {
	f, err := g.find(ctx, name)
	if err != nil {
		return stat{}, err
	}
	return stat{f.parts[0].size, f.latest()}, nil
}

func (g *generations) size(ctx context.Context, name string) (int64, error) {
	if size, ok := g.memory.size(name); ok {
		return size, nil
	}
	s, err := g.stat(ctx, name)
	if err == nil {
		g.memory.keepSize(name, s.size)
	}
	return s.size, err
}

func (g *generations) read(ctx context.Context, name string) ([]byte, error) {
	at := name
	if clearable.MatchString(name) {
		f, err := g.find(ctx, name)
		if err != nil {
			return nil, err
		}
		p, _ := f.alive()
		at = p.path
	}
	b, err := g.store.GetContent(ctx, at)
	if bucket.Missing(err) {
		err = notThere(name)
	}
	return b, err
}

func (g *generations) young(ctx context.Context, dir string, limit time.Time) (bool, error) {
	l, err := g.listing(ctx, dir)
	return l.young(limit), err
}

// clock is a second behind: the store's times are cut to seconds, and nothing that is
// used after it was asked may look older.
func (g *generations) clock(ctx context.Context, _ bool) (time.Time, error) {
	now, err := g.store.Clock(ctx)
	return now.Add(-time.Second), err
}

func (g *generations) owner(ctx context.Context, id string, claim bool) (string, error) {
	if !claim {
		return g.store.Owner(ctx, ownerFile)
	}
	return g.store.Claim(ctx, ownerFile, id)
}

const ownerFile = "/cloud-id"

// restore has nothing to do: what is condemned stays so.
func (g *generations) restore(context.Context) error { return nil }

// empty has nothing to do: what is discarded is gone.
func (g *generations) empty(context.Context) error { return nil }

func (g *generations) discard(ctx context.Context, dir string, limit time.Time) (bool, error) {
	l, err := g.listing(ctx, dir)
	if err != nil || len(l.files) == 0 || l.young(limit) {
		return false, err
	}
	condemned, err := g.condemn(ctx, l)
	if err != nil {
		return false, err
	}
	// From here on nobody begins to use them; who did before is seen now.
	if l, err = g.listing(ctx, dir); err != nil || l.young(limit) {
		return false, err
	}
	// Backwards: manifests before the links to layers.
	for _, f := range slices.Backward(l.files) {
		for _, p := range f.parts {
			if !condemned[p.path] {
				continue // it is new
			}
			if err := g.remove(ctx, f, p); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// condemn marks all generations, and says which they are.
func (g *generations) condemn(ctx context.Context, l listing) (map[string]bool, error) {
	condemned := map[string]bool{}
	for _, f := range l.files {
		for _, p := range f.parts {
			condemned[p.path] = true
			if p.path == f.path || p.going {
				continue
			}
			if err := g.store.PutContent(ctx, p.path+goingMark, nil); err != nil {
				return nil, err
			}
		}
	}
	return condemned, nil
}

// remove removes a generation and then its marks.
func (g *generations) remove(ctx context.Context, f file, p generation) error {
	g.memory.forget(f.path)
	if path.Base(p.path) == startedFile {
		if err := g.abort(ctx, path.Dir(p.path)+"/data"); err != nil {
			return err
		}
	}
	names := []string{p.path}
	if p.path != f.path {
		names = append(names, p.path+usedMark, p.path+goingMark)
	}
	for _, name := range names {
		if err := g.store.Remove(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// The library's file of an upload that is going on, and ours.
const (
	startedFile = "startedat"
	activeFile  = "active"
)

// abort removes the parts of an upload that the store keeps until it is whole.
func (g *generations) abort(ctx context.Context, data string) error {
	w, err := g.store.Writer(ctx, data, true)
	if err != nil {
		return nil //nolint:nilerr // there are none, or it is whole
	}
	return errors.Join(w.Cancel(ctx), w.Close())
}

// tidy removes marks of generations that are gone.
func (g *generations) tidy(ctx context.Context, v view, limit time.Time) error {
	l, ok := v.(listed)
	if !ok {
		return nil
	}
	for _, o := range l.listing.strays {
		if o.Changed.After(limit) {
			continue
		}
		if err := g.store.Remove(ctx, o.Path); err != nil {
			return err
		}
	}
	return nil
}

// within lists a folder once.
func (g *generations) within(ctx context.Context, dir string) (view, error) {
	l, err := g.listing(ctx, dir)
	return listed{g, l}, err
}

// listed is a view of what was there at one moment.
type listed struct {
	*generations
	listing listing
}

// below are the files in a folder.
func (l listed) below(dir string) []file {
	at := func(name string) int {
		i, _ := slices.BinarySearchFunc(l.listing.files, name, func(f file, name string) int { return strings.Compare(f.path, name) })
		return i
	}
	return l.listing.files[at(dir+"/"):at(dir+"0")] // "0" follows "/"
}

func (l listed) list(_ context.Context, dir string) ([]string, error) {
	var names []string
	for _, f := range l.below(dir) {
		name, _, _ := strings.Cut(f.path[len(dir)+1:], "/")
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
	}
	return names, nil
}

func (l listed) stat(_ context.Context, name string) (stat, error) {
	i, ok := slices.BinarySearchFunc(l.listing.files, name, func(f file, name string) int { return strings.Compare(f.path, name) })
	if !ok {
		return stat{}, notThere(name)
	}
	f := l.listing.files[i]
	return stat{f.parts[0].size, f.latest()}, nil
}

func (l listed) young(_ context.Context, dir string, limit time.Time) (bool, error) {
	return listing{files: l.below(dir)}.young(limit), nil
}

// memory is what one server knows of the place.
type memory struct {
	life  time.Duration
	mu    sync.Mutex
	uses  map[string]remembered
	sizes map[string]int64 // of blobs: they never change
}

type remembered struct {
	generation
	until time.Time
}

// mostRemembered bounds each of the two.
const mostRemembered = 100_000

func (m *memory) recall(name string) (generation, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.uses[name]
	return r.generation, ok && time.Now().Before(r.until)
}

func (m *memory) remember(name string, p generation) {
	if m.life <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.uses) >= mostRemembered {
		clear(m.uses)
	}
	m.uses[name] = remembered{p, time.Now().Add(m.life)}
}

func (m *memory) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.uses, name)
	delete(m.sizes, name)
}

func (m *memory) size(name string) (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	size, ok := m.sizes[name]
	return size, ok
}

func (m *memory) keepSize(name string, size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.sizes) >= mostRemembered {
		clear(m.sizes)
	}
	m.sizes[name] = size
}

func (g *generations) driver() (storagedriver.StorageDriver, error) {
	return &generating{g.store, g}, nil
}

// generating is the library's storage in a bucket, where files that can be cleared up
// are kept in generations.
type generating struct {
	storagedriver.StorageDriver
	place *generations
}

// missing is the error that the library knows.
func missing(name string, err error) error {
	if bucket.Missing(err) {
		return storagedriver.PathNotFoundError{Path: name}
	}
	return err
}

// with calls do with the generation of a file to use.
func (d *generating) with(ctx context.Context, name string, do func(generation) error) error {
	if !clearable.MatchString(name) {
		return do(generation{path: name})
	}
	var err error
	for range useTries {
		var p generation
		if p, err = d.place.used(ctx, name); err != nil {
			break
		}
		if err = do(p); !bucket.Missing(err) {
			break
		}
		d.place.memory.forget(name) // what was remembered is gone
	}
	return missing(name, err)
}

// GetContent is how links and manifests are read.
func (d *generating) GetContent(ctx context.Context, name string) (b []byte, err error) {
	err = d.with(ctx, name, func(p generation) error {
		b, err = d.StorageDriver.GetContent(ctx, p.path)
		return err
	})
	return b, err
}

// Reader is how blobs are read.
func (d *generating) Reader(ctx context.Context, name string, offset int64) (r io.ReadCloser, err error) {
	err = d.with(ctx, name, func(p generation) error {
		r, err = d.StorageDriver.Reader(ctx, p.path, offset)
		return err
	})
	return r, err
}

// Stat is how the library finds out whether a blob is there.
func (d *generating) Stat(ctx context.Context, name string) (storagedriver.FileInfo, error) {
	if !clearable.MatchString(name) {
		return d.StorageDriver.Stat(ctx, name)
	}
	p, err := d.place.used(ctx, name)
	if err != nil {
		return nil, missing(name, err)
	}
	return storagedriver.FileInfoInternal{FileInfoFields: storagedriver.FileInfoFields{Path: name, Size: p.size, ModTime: p.used}}, nil
}

// PutContent is how links and manifests are written. Whatever is there by the name
// has the same content: the name is the content's digest.
func (d *generating) PutContent(ctx context.Context, name string, content []byte) error {
	if !clearable.MatchString(name) {
		return d.StorageDriver.PutContent(ctx, name, content)
	}
	if _, err := d.place.used(ctx, name); !bucket.Missing(err) {
		return err
	}
	return d.StorageDriver.PutContent(ctx, name+"/"+newGeneration(), content)
}

// Move is how an upload becomes a blob.
func (d *generating) Move(ctx context.Context, from, to string) error {
	if clearable.MatchString(to) {
		to += "/" + newGeneration()
	}
	return d.StorageDriver.Move(ctx, from, to)
}

// Delete is for uploads that ended, and for manifests.
func (d *generating) Delete(ctx context.Context, name string) error {
	d.place.memory.forget(name)
	return d.StorageDriver.Delete(ctx, name)
}

// Writer is how an upload is stored.
func (d *generating) Writer(ctx context.Context, name string, add bool) (storagedriver.FileWriter, error) {
	w, err := d.StorageDriver.Writer(ctx, name, add)
	if err != nil {
		return nil, err
	}
	return &uploading{FileWriter: w, active: func() error {
		return d.StorageDriver.PutContent(ctx, path.Dir(name)+"/"+activeFile, nil)
	}, next: time.Now().Add(activeEvery)}, nil
}

// activeEvery is how often an upload shows that it goes on: what it has sent is not in
// any list before its end.
const activeEvery = time.Minute

type uploading struct {
	storagedriver.FileWriter
	active func() error
	next   time.Time
}

// Write is that of io.Writer.
func (u *uploading) Write(b []byte) (int, error) {
	if now := time.Now(); now.After(u.next) {
		if err := u.active(); err != nil {
			return 0, err
		}
		u.next = now.Add(activeEvery)
	}
	return u.FileWriter.Write(b)
}
