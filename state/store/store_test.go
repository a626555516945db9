package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"deckhand/state"
)

func open(t *testing.T, path string) (*Store, *[]string) {
	t.Helper()
	var problems []string
	s, err := Open(path, Options{Timeout: 200 * time.Millisecond, Report: func(e error) { problems = append(problems, e.Error()) }})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, &problems
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill writes something into every bucket.
func fill(t *testing.T, s *Store) {
	t.Helper()
	must(t, s.Targets.Put(Target{Document: []byte(`{ "a" : 1 }`), ETag: `"e"`, Source: "https://api", AcceptedAt: time.Unix(5, 0).UTC()}))
	must(t, s.Commits.Put("app1", Committed{Commit: "c1"}))
	must(t, s.Specs.Put("v1:1", state.Spec{Hostname: "h"}))
	must(t, s.Images.Put("registry/a@sha256:1"))
	must(t, s.Halted.Put("c0ffee"))
	must(t, s.Failures.PutAll(map[string]state.Failure{"fetch x": {Class: state.ClassSpace, Text: "full", Attempt: 2, Next: time.Unix(9, 0).UTC()}}))
	must(t, s.Reports.Put([]byte(`{"u":{"status":"Idle"}}`)))
	_, err := s.Identity.APIKey()
	must(t, err)
	must(t, s.Intents.Change([]state.Intent{{ID: "i1", Kind: state.Purge, App: "app1", By: "me", At: time.Unix(7, 0).UTC(), Left: []string{"data"}}}))
	must(t, s.Overrides.Put(Override{Override: state.Override{App: "app1", By: "me", Until: time.Unix(8, 0).UTC()}, Once: true}))
	must(t, s.Reboots.Put(OfService("app1", "web"), "boot-1"))
	must(t, s.Handovers.Put(OfService("app1", "web"), state.Handover{Hash: "v1:1", Image: "web:1", Failed: true}))
	must(t, s.Adopted.Put("c0ffee", "v1:1"))
	must(t, s.History.Append([]Entry{{At: time.Unix(6, 0).UTC(), App: "app1", Service: "web", Kind: "start", Title: "start shop/web", Took: state.Duration(time.Second)}}))
	_, err = s.Keys.Ensure(1, "web")
	must(t, err)
	must(t, s.Pins.Put(Pin{Fleet: 7, Commit: "c1"}))
	must(t, s.Initial.Put("https://api device"))
	_, err = s.Tags.Want(map[string]string{"color": "blue"})
	must(t, err)
	must(t, s.Leases.Change([]Lease{{ID: "l1", App: "app1", Service: "web", Holder: "backup", Containers: []string{"c0ffee"}, Until: time.Unix(9, 0).UTC()}}))
	must(t, s.Clock.Put(time.Unix(2, 0)))
	must(t, s.Import(Import{Imported: Imported{From: "database.sqlite", At: time.Unix(3, 0).UTC()}}))
	must(t, s.Local.PutSnapshot(Snapshot{Volumes: []string{"1_data"}, Taken: time.Unix(4, 0).UTC()}))
	must(t, s.Cursors.Save(map[string]Cursor{"c0ffee": {Run: 1, At: 2, Count: 3, Pos: 4}}, nil))
}

// filled is a database on the disk with something in every bucket.
func filled(t *testing.T) (path string, want map[string]any) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "db")
	s, _ := open(t, path)
	fill(t, s)
	want = content(t, s)
	must(t, s.Close())
	return path, want
}

// content reads every bucket.
func content(t *testing.T, s *Store) map[string]any {
	t.Helper()
	out := map[string]any{}
	target, ok, err := s.Targets.Last()
	must(t, err)
	if ok {
		out["target"] = target
	}
	add := func(name string, v any, n int, err error) {
		must(t, err)
		if n > 0 {
			out[name] = v
		}
	}
	commits, err := s.Commits.All()
	add("commits", commits, len(commits), err)
	specs, err := s.Specs.All()
	add("specs", specs, len(specs), err)
	images, err := s.Images.All()
	add("images", images, len(images), err)
	halted, err := s.Halted.All()
	add("halted", halted, len(halted), err)
	failures, err := s.Failures.All()
	add("failures", failures, len(failures), err)
	report, err := s.Reports.Last()
	add("report", string(report), len(report), err)
	intents, err := s.Intents.All()
	add("intents", intents, len(intents), err)
	overrides, err := s.Overrides.All()
	add("overrides", overrides, len(overrides), err)
	reboots, err := s.Reboots.All()
	add("reboots", reboots, len(reboots), err)
	handovers, err := s.Handovers.All()
	add("handovers", handovers, len(handovers), err)
	adopted, err := s.Adopted.All()
	add("adopted", adopted, len(adopted), err)
	history, err := s.History.All()
	add("history", history, len(history), err)
	keys, err := s.Keys.All()
	add("keys", keys, len(keys), err)
	clock, err := s.Clock.Last()
	must(t, err)
	if !clock.IsZero() {
		out["clock"] = clock
	}
	imported, ok, err := s.Imports.Last()
	must(t, err)
	if ok {
		out["imported"] = imported
	}
	local, err := s.Local.Snapshot()
	must(t, err)
	if local != nil {
		out["local"] = *local
	}
	pin, ok, err := s.Pins.Wanted()
	must(t, err)
	if ok {
		out["pin"] = pin
	}
	told, err := s.Initial.Told()
	add("initial", told, len(told), err)
	tags, err := s.Tags.Wanted()
	add("tags", tags, len(tags), err)
	leases, err := s.Leases.All()
	add("leases", leases, len(leases), err)
	cursors, err := s.Cursors.All()
	add("cursors", cursors, len(cursors), err)
	return out
}

func TestEverythingSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "deckhand.db")
	s, _ := open(t, path)
	fill(t, s)
	key, err := s.Identity.APIKey()
	must(t, err)
	if len(key) != 32 {
		t.Errorf("API key %q, want 32 hexadecimal digits", key)
	}
	want := content(t, s)
	must(t, s.Close())

	again, problems := open(t, path)
	if diff := cmp.Diff(want, content(t, again)); diff != "" {
		t.Errorf("content after restart (-want +got):\n%s", diff)
	}
	if got, _ := again.Identity.APIKey(); got != key {
		t.Errorf("API key changed over a restart")
	}
	if again.Recovered() != "" || len(*problems) != 0 {
		t.Errorf("a sound file was reported: %q %v", again.Recovered(), *problems)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, the file holds a key and must be 0600", info.Mode())
	}
}

func TestRemoveAndPrune(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "db"))
	fill(t, s)
	must(t, s.Specs.Put("v1:2", state.Spec{}))
	must(t, s.Specs.Prune(map[string]bool{"v1:2": true}))
	specs, err := s.Specs.All()
	must(t, err)
	if _, ok := specs["v1:2"]; !ok || len(specs) != 1 {
		t.Errorf("specs after prune: %v", specs)
	}
	must(t, s.Images.Put("registry/b:1"))
	must(t, s.Images.Remove("registry/a@sha256:1", "never-there"))
	if images, _ := s.Images.All(); !cmp.Equal(images, []string{"registry/b:1"}) {
		t.Errorf("images after remove: %v", images)
	}
	must(t, s.Failures.PutAll(map[string]state.Failure{"b": {Class: state.ClassDNS}}))
	if all, _ := s.Failures.All(); len(all) != 1 || all["b"].Class != state.ClassDNS {
		t.Errorf("PutAll must replace, got %v", all)
	}
	must(t, s.Failures.Clear())
	must(t, s.Commits.Remove("app1"))
	must(t, s.Halted.Remove("c0ffee"))
	must(t, s.Reports.Clear())
	must(t, s.Halted.Remove("c0ffee"))
	must(t, s.Targets.Clear())
	must(t, s.Intents.Change(nil, "i1", "never-there"))
	must(t, s.Overrides.Remove("", "app1"))
	must(t, s.Handovers.Remove(OfService("app1", "web")))
	must(t, s.Reboots.Remove(OfService("app1", "web")))
	must(t, s.Adopted.Remove("c0ffee"))
	must(t, s.Pins.Clear())
	must(t, s.Initial.Clear())
	must(t, s.Tags.Drop(map[string]string{"color": "blue"}))
	must(t, s.Keys.Prune(func(int64, string) bool { return false }))
	must(t, s.Leases.Change(nil, "l1", "never-there"))
	must(t, s.Local.DropSnapshot())
	must(t, s.Cursors.Save(nil, []string{"c0ffee", "never-there"}))
	got := content(t, s)
	delete(got, "history") // it goes by itself
	delete(got, "imported")
	delete(got, "clock")
	delete(got, "specs")
	delete(got, "images")
	if len(got) != 0 {
		t.Errorf("left after clearing: %v", got)
	}
}

func TestAnUnchangedValueIsNotWritten(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "db"))
	fill(t, s)
	before := txid(t, s)
	must(t, s.Commits.Put("app1", Committed{Commit: "c1"}))
	must(t, s.Specs.Prune(map[string]bool{"v1:1": true}))
	must(t, s.Images.Remove("not-there"))
	must(t, s.History.Append(nil))
	_, err := s.Keys.Ensure(1, "web")
	must(t, err)
	if after := txid(t, s); after != before {
		t.Errorf("%d transactions for changes that change nothing", after-before)
	}
}

func txid(t *testing.T, s *Store) (id int) {
	t.Helper()
	must(t, s.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }))
	return id
}

func TestDamagedFileIsSetAside(t *testing.T) {
	sound := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, sound)
	fill(t, s)
	must(t, s.Close())
	good, err := os.ReadFile(sound)
	must(t, err)

	f, err := os.Open(sound)
	must(t, err)
	m, err := newestMeta(f)
	must(t, err)
	must(t, f.Close())

	random := make([]byte, len(good))
	for i := range random {
		random[i] = byte(rand.N(256))
	}
	cases := map[string][]byte{
		"empty":           {},
		"one byte":        {1},
		"cut in meta":     good[:100],
		"cut in half":     good[:len(good)/2],
		"last page gone":  good[:int(m.pages-1)*int(m.pageSize)],
		"all zero":        make([]byte, len(good)),
		"random":          random,
		"a text":          []byte("SQLite format 3\x00 and more"),
		"first pages bad": append(bytes.Repeat([]byte{0xff}, 8192), good[8192:]...),
		"data pages zero": append(append([]byte{}, good[:8192]...), make([]byte, len(good)-8192)...),
	}
	for name, bytes := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			must(t, os.WriteFile(path, bytes, 0o600))
			s, problems := open(t, path)
			if !strings.HasPrefix(s.Recovered(), path+".damaged-") {
				t.Fatalf("recovered %q, want the damaged file's new name", s.Recovered())
			}
			kept, err := os.ReadFile(s.Recovered())
			must(t, err)
			if string(kept) != string(bytes) {
				t.Error("the damaged file was changed")
			}
			if len(*problems) != 1 || !strings.Contains((*problems)[0], s.Recovered()) {
				t.Errorf("problems %v, want one that names the file", *problems)
			}
			if got := content(t, s); len(got) != 0 {
				t.Errorf("the new store holds %v", got)
			}
			fill(t, s)
		})
	}
}

func TestADirectoryInItsPlaceIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	must(t, os.MkdirAll(path, 0o700))
	s, _ := open(t, path)
	if s.Recovered() == "" {
		t.Error("not reported")
	}
	fill(t, s)
}

// Whatever a bad disk does to a byte, the store opens and can be used.
func TestFlippedBytesNeverStopTheStart(t *testing.T) {
	sound := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, sound)
	fill(t, s)
	for i := range 200 {
		must(t, s.Specs.Put(fmt.Sprintf("v1:%04d", i), state.Spec{Hostname: strings.Repeat("x", i)}))
	}
	must(t, s.Close())
	good, err := os.ReadFile(sound)
	must(t, err)
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 8))
	for round := range 60 {
		bad := bytes.Clone(good)
		for range 1 + r.IntN(6) {
			at := r.IntN(len(bad))
			if round%2 == 0 { // page headers are where structure is
				at = at&^4095 + r.IntN(96)
			}
			bad[at] = byte(r.IntN(256))
		}
		path := filepath.Join(dir, fmt.Sprint(round))
		must(t, os.WriteFile(path, bad, 0o600))
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		content(t, s)
		must(t, s.Commits.Put("new", Committed{Commit: "c"}))
		must(t, s.Failures.Clear())
		must(t, s.Specs.Prune(nil))
		must(t, s.Close())
		must(t, os.RemoveAll(path))
		if s.Recovered() != "" {
			must(t, os.RemoveAll(s.Recovered()))
		}
	}
}

// A sound file must never be taken for damaged, whatever was done with it.
func TestSoundFilesPassTheCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, path)
	s.db.NoSync = true
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 1500 {
		key := fmt.Sprintf("%05d", r.IntN(700))
		switch r.IntN(6) {
		case 0, 1, 2:
			must(t, s.Specs.Put(key, state.Spec{Hostname: strings.Repeat("h", r.IntN(9000))}))
		case 3:
			must(t, s.Commits.Put(key, Committed{Commit: strings.Repeat("c", r.IntN(50))}))
		case 4:
			must(t, s.Commits.Remove(key))
		case 5:
			must(t, s.Specs.b.remove(key, fmt.Sprintf("%05d", r.IntN(700))))
			if r.IntN(40) == 0 {
				n := 0
				must(t, s.Specs.b.change(nil, func(string) bool { n++; return n%5 != 0 }))
			}
		}
		if err := verify(path); err != nil {
			t.Fatalf("after %d changes: %v", i, err)
		}
	}
}

func TestOldDamagedFilesAreForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	for i := range 6 {
		must(t, os.WriteFile(fmt.Sprintf("%s.damaged-%d", path, 100+i), nil, 0o600))
	}
	must(t, os.WriteFile(path, []byte("junk"), 0o600))
	s, _ := open(t, path)
	files, err := filepath.Glob(path + ".damaged-*")
	must(t, err)
	if len(files) != keepDamaged || files[len(files)-1] != s.Recovered() {
		t.Errorf("kept %v, want the last %d", files, keepDamaged)
	}
}

func TestAFileInUseIsNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, path)
	fill(t, s)
	_, err := Open(path, Options{Timeout: 50 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("error %v, want one that names the other process", err)
	}
	if files, _ := filepath.Glob(path + ".damaged-*"); len(files) != 0 {
		t.Errorf("a file in use was set aside: %v", files)
	}
	if got := content(t, s); len(got) == 0 {
		t.Error("the first owner lost its data")
	}
}

func TestAFolderThatCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	if _, err := Open(filepath.Join(dir, "file", "db"), Options{}); err == nil {
		t.Error("want an error")
	}
}

// raw changes the file behind the store's back.
func raw(t *testing.T, path string, do func(values, top *bbolt.Bucket) error, name string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		top := tx.Bucket([]byte(name))
		return do(top.Bucket([]byte(valuesKey)), top)
	}))
	must(t, db.Close())
}

// Each bucket alone is opened with values that are cut, of another type or with
// a wrong checksum; the good ones beside them and the other buckets stay.
func TestDamagedValuesAreDroppedAlone(t *testing.T) {
	for name := range buckets() {
		t.Run(name, func(t *testing.T) {
			path, want := filled(t)

			bad := badValues(name)
			raw(t, path, func(values, _ *bbolt.Bucket) (err error) {
				for k, v := range bad {
					err = errors.Join(err, values.Put([]byte(k), v))
				}
				return err
			}, name)

			s, problems := open(t, path)
			for k := range bad {
				touch(s, name, k)
			}
			if diff := cmp.Diff(want, content(t, s)); diff != "" {
				t.Errorf("content (-want +got):\n%s", diff)
			}
			if len(*problems) != len(bad) {
				t.Errorf("%d problems reported, want %d: %v", len(*problems), len(bad), *problems)
			}
			if all := strings.Join(*problems, "\n"); strings.Count(all, "store: "+name) != len(bad) {
				t.Errorf("problems do not name the bucket: %s", all)
			}
		})
	}
}

// badValues are values that the bucket's owner cannot read, by key.
func badValues(bucket string) map[string][]byte {
	bad := map[string][]byte{
		"cut":          []byte(`12345678 {"a":`),
		"no-checksum":  []byte(`"x"`),
		"wrong-type":   append(fmt.Appendf(nil, "%08x ", checksum([]byte(`[[1]]`))), `[[1]]`...),
		"empty":        {},
		"flipped-bits": append(fmt.Appendf(nil, "%08x ", checksum([]byte(`true`))), `"tru"`...),
	}
	if bucket == reportsBucket { // any JSON is a report
		delete(bad, "wrong-type")
	}
	return bad
}

// touch reads one key the way its owner would.
func touch(s *Store, name, key string) {
	switch name {
	case targetsBucket:
		_, _, _ = s.Targets.b.get(key)
	case commitsBucket:
		_, _, _ = s.Commits.b.get(key)
	case specsBucket:
		_, _, _ = s.Specs.b.get(key)
	case imagesBucket:
		_, _, _ = s.Images.b.get(key)
	case haltedBucket:
		_, _, _ = s.Halted.b.get(key)
	case failuresBucket:
		_, _, _ = s.Failures.b.get(key)
	case reportsBucket:
		_, _, _ = s.Reports.b.get(key)
	case identityBucket:
		_, _, _ = s.Identity.b.get(key)
	case intentsBucket:
		_, _, _ = s.Intents.b.get(key)
	case overridesBucket:
		_, _, _ = s.Overrides.b.get(key)
	case rebootsBucket:
		_, _, _ = s.Reboots.b.get(key)
	case handoversBucket:
		_, _, _ = s.Handovers.b.get(key)
	case adoptedBucket:
		_, _, _ = s.Adopted.b.get(key)
	case historyBucket:
		_, _, _ = s.History.ring.b.get(key)
	case keysBucket:
		_, _, _ = s.Keys.b.get(key)
	case pinBucket:
		_, _, _ = s.Pins.b.get(key)
	case initialBucket:
		_, _, _ = s.Initial.b.get(key)
	case tagsBucket:
		_, _, _ = s.Tags.b.get(key)
	case leasesBucket:
		_, _, _ = s.Leases.b.get(key)
	case clockBucket:
		_, _, _ = s.Clock.b.get(key)
	case importedBucket:
		_, _, _ = s.Imports.b.get(key)
	case localBucket:
		_, _, _ = s.Local.b.get(key)
	}
}

func TestABucketOfANewerVersionIsSetAside(t *testing.T) {
	for name := range buckets() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			s, _ := open(t, path)
			fill(t, s)
			before := content(t, s)
			must(t, s.Close())
			for range 2 { // twice: an earlier one set aside is in the way
				raw(t, path, func(_, top *bbolt.Bucket) error { return stamp{999, 998, 999}.write(top) }, name)
				s, problems := open(t, path)
				if s.Recovered() != "" {
					t.Fatal("the whole file was set aside")
				}
				if len(*problems) != 1 || !strings.Contains((*problems)[0], "999") {
					t.Errorf("problems %v, want one that names the version", *problems)
				}
				after := content(t, s)
				if name != identityBucket && len(after) != len(before)-1 {
					t.Errorf("content %v, want all but %s", after, name)
				}
				fill(t, s)
				must(t, s.Close())
			}
		})
	}
}

// manyEntries are more than the history keeps.
type manyEntries struct {
	text    string
	batches int
	most    int // entries that may be left
}

// append adds entries that are counted on from n.
func (c manyEntries) append(t *testing.T, s *Store, n int) int {
	s.db.NoSync = true
	for range c.batches {
		var batch []Entry
		for range 50 {
			n++
			batch = append(batch, Entry{Kind: "step", Title: fmt.Sprint(n), Text: c.text})
		}
		must(t, s.History.Append(batch))
	}
	return n
}

// The past takes a bounded part of the disk, and it is the oldest that goes.
func TestHistoryIsARing(t *testing.T) {
	for name, c := range map[string]manyEntries{
		"many": {"", 23, historyEntries},
		"long": {strings.Repeat("x", 20_000), 3, historyBytes / 20_000},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			s, _ := open(t, path)
			n := c.append(t, s, 0)
			must(t, s.Close())
			s, _ = open(t, path) // what is counted is counted again after a restart
			n = c.append(t, s, n)
			all, err := s.History.All()
			must(t, err)
			if len(all) == 0 || len(all) > c.most || len(all) < c.most-60 {
				t.Fatalf("%d entries are left, want nearly %d", len(all), c.most)
			}
			if first, last := all[0].Title, all[len(all)-1].Title; first != fmt.Sprint(n-len(all)+1) || last != fmt.Sprint(n) {
				t.Fatalf("entries %s to %s are left of %d", first, last, n)
			}
		})
	}
}

func TestAServiceKeepsItsKey(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "db"))
	key, err := s.Keys.Ensure(7, "web")
	must(t, err)
	if len(key) != 32 {
		t.Errorf("key %q", key)
	}
	other, err := s.Keys.Ensure(8, "web")
	must(t, err)
	must(t, s.Keys.Prune(func(app int64, service string) bool { return app == 7 && service == "web" }))
	again, err := s.Keys.Ensure(7, "web")
	must(t, err)
	fresh, err := s.Keys.Ensure(8, "web")
	must(t, err)
	if again != key || fresh == other || other == key {
		t.Errorf("keys %q, %q, %q, %q", key, other, again, fresh)
	}
}

// A key that a container brings along is learned once, and never over another.
func TestAServiceBringsItsKey(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "db"))
	brought := strings.Repeat("ab", 16)
	must(t, s.Keys.Learn(7, "web", brought))
	must(t, s.Keys.Learn(7, "web", strings.Repeat("cd", 16)))
	key, err := s.Keys.Ensure(7, "web")
	must(t, err)
	own, err := s.Keys.Ensure(7, "db")
	must(t, err)
	must(t, s.Keys.Learn(7, "db", brought))
	still, err := s.Keys.Ensure(7, "db")
	must(t, err)
	if key != brought || own != still {
		t.Errorf("keys %q, %q, %q", key, own, still)
	}
}

func TestABadAPIKeyIsReplaced(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "db"))
	must(t, s.Identity.b.put(apiKeyName, "short"))
	key, err := s.Identity.APIKey()
	must(t, err)
	if len(key) != 32 {
		t.Errorf("key %q", key)
	}
	renewed, err := s.Identity.RenewAPIKey()
	must(t, err)
	if got, _ := s.Identity.APIKey(); got != renewed || renewed == key {
		t.Error("the renewed key is not the one in use")
	}
}
