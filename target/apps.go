package target

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"deckhand/state"
)

// Converted is a document of another form, as v3.
type Converted struct {
	Document []byte // for DecodeV3: store this one
	Target   state.Target
}

// Pin is a release that the device is to stay on once it is known to its cloud.
type Pin struct {
	AppID  int64  `json:"app"`
	Commit string `json:"commit"`
}

// Preload is what apps.json asks for: the target that came with the disk image
// of the device.
type Preload struct {
	Converted
	Pin *Pin // nil: follow the fleet
}

// Images lists the images of the target, sorted. They came with the device too.
func (p Preload) Images() []string {
	seen := map[string]bool{}
	for _, a := range p.Target.Apps {
		for _, s := range a.Services {
			seen[s.Image] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// asks is what a document of another form than v3 asks for.
type asks struct {
	name   *string
	config map[string]string
	apps   []member
	pin    bool
	whole  bool // every app must have a release
}

func (a *asks) add(m member) {
	a.apps = replace(a.apps, m, func(x member) bool { return x.uuid == m.uuid })
}

// DecodeApps reads apps.json in any of its forms. The configuration in o is kept
// where the file says nothing else. Errors are of class invalid unless ctx ended,
// problems are those of DecodeV3. A file that asks for nothing gives a Preload
// without a Document.
func DecodeApps(ctx context.Context, doc []byte, o Options) (Preload, []Problem, error) {
	a, err := readAsks(doc, func(r *reader, a *asks) {
		if list := bytes.HasPrefix(bytes.TrimLeft(doc, " \t\r\n"), []byte("[")); list {
			r.appsV1(a)
		} else {
			r.appsFile(a, o)
		}
	})
	if err != nil {
		return Preload{}, nil, state.Classify(state.ClassInvalid, fmt.Errorf("apps.json: %w", err))
	}
	if len(a.apps) == 0 && len(a.config) == 0 {
		return Preload{}, nil, nil
	}
	c, problems, err := a.convert(ctx, o)
	if err != nil {
		return Preload{}, nil, fmt.Errorf("apps.json: %w", err)
	}
	p := Preload{Converted: c}
	for _, m := range a.apps {
		app := p.Target.Apps[m.uuid]
		if app.Commit == "" && a.whole {
			err := errors.New("apps." + clip(m.uuid) + ".releases: empty; an app that comes with the device has a release")
			return Preload{}, nil, state.Classify(state.ClassInvalid, fmt.Errorf("apps.json: %w", err))
		}
		if a.pin && p.Pin == nil && app.Class == "fleet" && app.Commit != "" {
			p.Pin = &Pin{app.ID, app.Commit}
		}
	}
	return p, problems, nil
}

// DecodeLocal reads a document of the v2 form, as people send it to a device in
// local mode: {"local": {"name", "config", "apps"}}. The UUID of an app is its ID.
// A name that is left out is o.Name; configuration that is left out is empty.
func DecodeLocal(ctx context.Context, doc []byte, o Options) (Converted, []Problem, error) {
	o.Config = nil
	a, err := readAsks(doc, func(r *reader, a *asks) {
		r.fields("", map[string]func(string){"local": func(p string) {
			r.fields(p, map[string]func(string){
				"name":   func(p string) { name := r.text(p); a.name = &name },
				"config": func(p string) { a.config = r.variables(p, true, "a configuration variable's name", isConfigVariable) },
				"apps": func(p string) {
					r.object(p, true, func(p, id string) { a.add(r.appV2(p, id, id)) })
				},
			})
		}}, "local")
	})
	if err != nil {
		return Converted{}, nil, state.Classify(state.ClassInvalid, fmt.Errorf("local target state: %w", err))
	}
	return a.convert(ctx, o)
}

func readAsks(doc []byte, read func(r *reader, a *asks)) (*asks, error) {
	if len(doc) > maxDocument {
		return nil, fmt.Errorf("larger than %d MiB", maxDocument>>20)
	}
	r, a := newReader(doc), &asks{}
	read(r, a)
	r.end()
	return a, r.result()
}

// appsV1 reads the form of devices with one container.
func (r *reader) appsV1(a *asks) {
	r.token()
	for i := 0; r.err == nil && r.dec.More(); i++ {
		m, config := r.appV1(fmt.Sprintf("[%d]", i))
		if i > 0 {
			r.violation(fmt.Sprintf("[%d]", i), "this old form holds one app; make the device's image anew with a current CLI")
		}
		a.config = config
		a.add(m)
	}
	r.token()
}

// appsFile reads the forms v2 and v3; the keys of the apps tell them apart.
func (r *reader) appsFile(a *asks, o Options) {
	a.whole = true
	r.fields("", map[string]func(string){
		"config":    func(p string) { a.config = r.variables(p, true, "a configuration variable's name", isConfigVariable) },
		"pinDevice": func(p string) { a.pin = r.boolean(p, true, false) },
		"apps": func(p string) {
			r.object(p, true, func(p, key string) {
				r.short(p, key)
				r.count(p, &r.things, maxThings)
				if id, old := number(key); old {
					a.whole = false
					a.add(r.appV2(p, key, r.uuidOf(p, id, o)))
					return
				}
				a.add(member{key, r.raw()})
			})
		},
	})
}

func (r *reader) uuidOf(path string, id int64, o Options) string {
	uuid := ""
	if o.AppUUID != nil {
		uuid = o.AppUUID(id)
	}
	if uuid == "" {
		r.violation(path, "this old form names apps by number and the app's UUID is not known here; preload the image again with balena CLI 13.5.1 or later")
	}
	return uuid
}

// convert writes what is asked for in the v3 form and reads it again.
func (a *asks) convert(ctx context.Context, o Options) (Converted, []Problem, error) {
	if o.Device == "" {
		return Converted{}, nil, state.Classify(state.ClassInvalid, errors.New("the device has no UUID yet"))
	}
	name := o.Name
	if a.name != nil {
		name = *a.name
	}
	apps := make(map[string]any, len(a.apps))
	for _, m := range a.apps {
		apps[m.uuid] = m.value
	}
	doc, err := json.Marshal(map[string]any{o.Device: map[string]any{
		"name": name, "config": overlay(o.Config, a.config), "apps": apps,
	}})
	if err != nil {
		return Converted{}, nil, state.Classify(state.ClassInvalid, fmt.Errorf("write it as v3: %w", err))
	}
	t, problems, err := DecodeV3(ctx, doc, o)
	return Converted{doc, t}, problems, err
}

// overlay lays configuration over another. A variable replaces its namesakes
// under every prefix: an old BALENA_X would win over a new RESIN_X.
func overlay(under, top map[string]string) map[string]string {
	out := make(map[string]string, len(under)+len(top))
	replaced := map[string]bool{}
	for k := range top {
		replaced[bare(k)] = true
	}
	for k, v := range under {
		if !replaced[bare(k)] {
			out[k] = v
		}
	}
	maps.Copy(out, top)
	return out
}

// ReadApps reads the file apps.json of a device that has never had a target, or
// is not known to a cloud. It returns nil when there is nothing to load. An
// image that the device does not have is an error of class not-found: the target
// could not be reached without a network. The Pin is returned with it, since it
// does not need them.
func ReadApps(ctx context.Context, file string, o Options, have func(ref string) bool) (*Preload, []Problem, error) {
	doc, err := readFile(file)
	if err != nil || doc == nil {
		return nil, nil, err
	}
	p, problems, err := DecodeApps(ctx, doc, o)
	if err != nil || p.Document == nil {
		return nil, problems, err
	}
	missing := slices.DeleteFunc(p.Images(), have)
	if n := len(missing); n > 0 {
		err := fmt.Errorf("%d of the images that should have come with the device are not here: %s; preload the device again, or connect it",
			n, strings.Join(missing[:min(n, 5)], ", "))
		return &Preload{Pin: p.Pin}, problems, fmt.Errorf("%s: %w", file, state.Classify(state.ClassNotFound, err))
	}
	return &p, problems, nil
}

// readFile reads apps.json; nil when there is no such file.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
		return nil, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("read %s: not a regular file", path)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	// One byte more than the limit, so that what is too large is refused, not cut.
	return io.ReadAll(io.LimitReader(f, maxDocument+1))
}

// SetAppsAside renames a file that was loaded to <file>.preloaded and leaves an
// empty one, so that nobody loads it again. The first such backup is kept.
func SetAppsAside(file string) error {
	backup := file + ".preloaded"
	if _, err := os.Lstat(backup); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(file, backup); err != nil {
		return fmt.Errorf("set %s aside: %w", file, err)
	}
	if err := os.WriteFile(file, []byte("{}\n"), 0o644); err != nil {
		return fmt.Errorf("leave an empty %s: %w", file, err)
	}
	return nil
}
