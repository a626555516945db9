package takeover

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"deckhand/config"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/target"
)

// The parts of a supervisor's memory. Each can be left out.
const (
	PartKeys    = "keys"    // of the local API
	PartTarget  = "target"  // the last one
	PartCommits = "commits" // the releases that were reached
	PartImages  = "images"  // those that were fetched
	PartTags    = "tags"
	PartPin     = "pin"     // to the release that came with the device
	PartInitial = "initial" // whether the cloud was told the first configuration
)

// Parts lists the names of all parts.
func Parts() []string {
	return []string{PartKeys, PartTarget, PartCommits, PartImages, PartTags, PartPin, PartInitial}
}

// Source says where an earlier supervisor's memory is.
type Source struct {
	Database string   // its database.sqlite
	Config   string   // config.json
	Scratch  string   // folder for a copy, which holds secrets; it exists
	Without  []string // parts to leave out
}

// Found is what there is to take over.
type Found struct {
	Import store.Import
	Lines  []string // what is taken over, for people, without secrets
	Left   []string // what is not, and why
}

// Read reads it all. An error names the table and column that are damaged.
func Read(ctx context.Context, from Source) (Found, error) {
	for _, part := range from.Without {
		if !slices.Contains(Parts(), part) {
			return Found{}, fmt.Errorf("there is no part %q; the parts are %s", part, strings.Join(Parts(), ", "))
		}
	}
	file, err := config.Load(from.Config)
	if err != nil {
		return Found{}, err
	}
	db, err := openDatabase(ctx, from.Database, from.Scratch)
	if err != nil {
		return Found{}, err
	}
	r := &reader{db: db, device: file.Values(), settings: map[string]string{}, uuids: map[int64]string{}}
	r.found.Import.Imported = store.Imported{From: from.Database, At: time.Now().UTC()}
	err = r.parts(from.Without)
	if e := db.Close(); err == nil {
		err = e
	}
	if err != nil {
		return Found{}, fmt.Errorf("%s: %w", from.Database, err)
	}
	return r.found, nil
}

type reader struct {
	db       *database
	device   config.Values
	settings map[string]string // table config
	uuids    map[int64]string  // of apps by number
	found    Found
}

func (r *reader) note(text string, args ...any) {
	r.found.Lines = append(r.found.Lines, fmt.Sprintf(text, args...))
}

func (r *reader) left(text string, args ...any) {
	r.found.Left = append(r.found.Left, fmt.Sprintf(text, args...))
}

func (r *reader) parts(without []string) error {
	if r.device.UUID == "" {
		r.left("identity: config.json has no uuid; the device gets a new one when deckhand starts")
	} else {
		r.note("identity: %s, as config.json has it", r.device.UUID)
	}
	if err := r.readSettings(); err != nil {
		return err
	}
	if err := r.readUUIDs(); err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		read func() error
	}{
		{PartKeys, r.keys}, {PartTarget, r.target}, {PartCommits, r.commits}, {PartImages, r.images},
		{PartTags, r.tags}, {PartPin, r.pin}, {PartInitial, r.initial},
	} {
		if slices.Contains(without, p.name) {
			r.left("%s: left out, as asked for", p.name)
			continue
		}
		if err := p.read(); err != nil {
			return fmt.Errorf("%w; to go on without it: --without %s", err, p.name)
		}
	}
	r.lockOverride()
	for _, key := range []string{"apiEndpointOverride", "listenPortOverride"} {
		if r.settings[key] != "" {
			r.left("setting %s: another supervisor had set it for itself", key)
		}
	}
	return nil
}

func (r *reader) readSettings() error {
	t, _, err := r.db.read("config")
	if err != nil {
		return err
	}
	return t.each(func(f *field) error {
		r.settings[f.text("key")] = f.text("value")
		return nil
	})
}

// readUUIDs learns which number is which app.
func (r *reader) readUUIDs() error {
	for name, column := range map[string]string{"app": "uuid", "image": "appUuid"} {
		t, _, err := r.db.read(name)
		if err != nil {
			return err
		}
		if !t.has("appId", column) {
			continue
		}
		err = t.each(func(f *field) error {
			if id, uuid := f.number("appId"), f.text(column); id != 0 && uuid != "" && (name == "app" || r.uuids[id] == "") {
				r.uuids[id] = uuid
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

var keyForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// keys are those that containers and the cloud have: other ones would close the
// API to them.
func (r *reader) keys() error {
	t, found, err := r.db.read("apiSecret")
	if err != nil {
		return err
	}
	if !found || !t.has("appId", "key") {
		r.left("keys: the database has none; containers that call the supervisor are refused until an update makes them anew")
		return nil
	}
	odd := 0
	err = t.each(func(f *field) error {
		app, service, key := f.number("appId"), f.text("serviceName"), f.text("key")
		switch {
		case f.err != nil:
		case !keyForm.MatchString(key):
			f.wrong("key", "a key has 32 hexadecimal digits")
		case service != "" && app > 0:
			r.found.Import.Keys = append(r.found.Import.Keys, store.ServiceKey{AppID: app, Service: service, Key: key})
		case service == "" && app == 0:
			r.found.Import.APIKey = key
		default:
			odd++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if r.found.Import.APIKey != "" {
		r.note("key that opens the whole local API")
	}
	if n := len(r.found.Import.Keys); n > 0 {
		r.note("keys of services: %d", n)
	}
	if odd > 0 {
		r.left("keys: %d that belong to no service", odd)
	}
	return nil
}

func (r *reader) commits() error {
	t, found, err := r.db.read("currentCommit")
	if err != nil || !found {
		return err
	}
	images, err := r.imagesOfCommits()
	if err != nil {
		return err
	}
	r.found.Import.Commits = map[string]store.Committed{}
	return t.each(func(f *field) error {
		id, commit := f.number("appId"), f.text("commit")
		uuid := r.uuids[id]
		switch {
		case f.err != nil || commit == "":
		case uuid == "":
			r.left("release of app %d: nothing tells which app that is", id)
		default:
			r.found.Import.Commits[uuid] = store.Committed{Commit: commit, Images: images[uuid+" "+commit]}
			r.note("release: app %d runs %s", id, short(commit))
		}
		return nil
	})
}

// imagesOfCommits are the references of releases, by app and commit.
func (r *reader) imagesOfCommits() (map[string][]string, error) {
	out := map[string][]string{}
	t, _, err := r.db.read("image")
	if err != nil || !t.has("name", "appUuid", "commit") {
		return out, err
	}
	err = t.each(func(f *field) error {
		key := f.text("appUuid") + " " + f.text("commit")
		out[key] = append(out[key], state.Reference(f.text("name")))
		return nil
	})
	for key := range out {
		slices.Sort(out[key])
		out[key] = slices.Compact(out[key])
	}
	return out, err
}

// images were fetched by the supervisor, so they may be removed once nothing
// needs them.
func (r *reader) images() error {
	t, found, err := r.db.read("image")
	if err != nil || !found {
		return err
	}
	seen := map[string]bool{}
	err = t.each(func(f *field) error {
		name := f.text("name")
		// A local build has no digest: it came by no download.
		if ref := state.Reference(name); name != "" && state.Digest(ref) != "" && !seen[ref] {
			seen[ref] = true
			r.found.Import.Images = append(r.found.Import.Images, ref)
		}
		return nil
	})
	if n := len(seen); n > 0 {
		r.note("images that it fetched, and that go when nothing needs them: %d", n)
	}
	return err
}

func (r *reader) tags() error {
	for key, to := range map[string]*map[string]string{"targetTags": &r.found.Import.TagsWanted, "reportedTags": &r.found.Import.TagsReported} {
		if err := r.setting(key, to); err != nil {
			return err
		}
	}
	if n := len(r.found.Import.TagsWanted); n > 0 {
		r.note("tags that were set on the device: %d", n)
	}
	return nil
}

// setting reads one of the settings that hold JSON.
func (r *reader) setting(key string, into any) error {
	text := strings.TrimSpace(r.settings[key])
	if text == "" {
		return nil
	}
	f := &field{table: "config", row: row{key: text}}
	if f.json(key, into); f.err != nil {
		return fmt.Errorf("table config, key %s, column value: it is not the JSON that is expected", key)
	}
	return nil
}

func (r *reader) pin() error {
	var pin struct {
		App    json.Number `json:"app"`
		Commit string      `json:"commit"`
	}
	if err := r.setting("pinDevice", &pin); err != nil {
		return err
	}
	app, _ := pin.App.Int64()
	if app <= 0 || pin.Commit == "" {
		return nil
	}
	r.found.Import.Pin = &store.Pin{Fleet: app, Commit: pin.Commit}
	r.note("pin: to %s of app %d, as soon as the cloud can be told", short(pin.Commit), app)
	return nil
}

// initial is the cloud that knows the configuration that the device came with.
func (r *reader) initial() error {
	reported := strings.TrimRight(r.settings["initialConfigReported"], "/")
	if reported == "" || r.device.UUID == "" {
		return nil
	}
	if reported != r.device.APIEndpoint {
		r.left("initial configuration: it was told to %s, which is no longer the cloud", reported)
		return nil
	}
	r.found.Import.Initial = reported + " " + r.device.UUID
	r.note("initial configuration: the cloud knows it")
	return nil
}

// lockOverride keeps a permission that no variable of a target gives.
func (r *reader) lockOverride() {
	on := slices.Contains([]string{"1", "true", "on"}, strings.ToLower(r.settings["lockOverride"]))
	if !on || r.found.Import.Target != nil {
		return
	}
	r.found.Import.Override = &store.Override{
		Override: state.Override{By: "balena's supervisor", Until: time.Now().Add(time.Hour).UTC()}, Once: true,
	}
	r.note("update locks: they may be broken for an hour, until the cloud says more")
}

// target rebuilds the last target document. A database that is sound and does not
// tell enough is no error: the cloud has the target.
func (r *reader) target() error {
	if r.device.UUID == "" {
		r.left("target: the device has no uuid")
		return nil
	}
	doc, why, err := r.document()
	if err != nil {
		return err
	}
	if why != "" {
		r.left("target: %s; deckhand asks the cloud for it", why)
		return nil
	}
	t, _, err := target.DecodeV3(r.db.ctx, doc, target.Options{Device: r.device.UUID})
	if err != nil {
		r.left("target: it cannot be used (%v); deckhand asks the cloud for it", err)
		return nil
	}
	r.found.Import.Target = &store.Target{Document: doc, Source: cmp.Or(r.device.APIEndpoint, "balena's supervisor"), AcceptedAt: time.Now().UTC()}
	r.found.Import.Specs = map[string]state.Spec{}
	for _, a := range t.Apps {
		for _, s := range a.Services {
			r.found.Import.Specs[s.Hash] = s.Spec
		}
	}
	r.note("target: apps %d, variables of the configuration %d", len(t.Apps), len(t.Config))
	for _, uuid := range slices.Sorted(maps.Keys(t.Apps)) {
		if a := t.Apps[uuid]; a.Rejected != "" {
			r.left("app %s cannot be run as it is: %s", cmp.Or(a.Name, uuid), a.Rejected)
		}
	}
	return nil
}

func short(commit string) string { return commit[:min(7, len(commit))] }
