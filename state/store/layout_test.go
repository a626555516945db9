package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"deckhand/state"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const someKey = "0123456789abcdef0123456789abcdef"

// next is the layout of a later version of this program: one bucket has another
// version, with a field more in each object.
func next(bucket string) layout {
	l := layout{versions: maps.Clone(buckets()), migrations: migrations()}
	l.versions[bucket]++
	l.migrations = append(slices.Clone(l.migrations), migration{bucket, l.versions[bucket], func(_ string, old json.RawMessage) (json.RawMessage, error) {
		var v map[string]any
		if json.Unmarshal(old, &v) != nil || v == nil {
			return old, nil // a field cannot be added to a text
		}
		if v["later"] == nil {
			v["later"] = map[string]any{"of": "next"}
		}
		return json.Marshal(v)
	}})
	return l
}

// openAs opens a store as a program with another layout would.
func openAs(t *testing.T, path string, l layout) (*Store, *[]string) {
	t.Helper()
	var problems []string
	s, err := Open(path, Options{Report: func(e error) { problems = append(problems, e.Error()) }, layout: l})
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s, &problems
}

// raws are a bucket's values as they are on the disk, by key.
func raws(t *testing.T, s *Store, bucket string) map[string]json.RawMessage {
	t.Helper()
	out := map[string]json.RawMessage{}
	must(t, s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).Bucket([]byte(valuesKey)).ForEach(func(k, raw []byte) error {
			_, body, _ := bytes.Cut(raw, []byte(" "))
			out[string(k)] = bytes.Clone(body)
			return nil
		})
	}))
	return out
}

// objects counts the values that are objects, and those with the field of later.
func objects(all map[string]json.RawMessage) (n, later int) {
	for _, raw := range all {
		if raw[0] == '{' {
			n++
		}
		if bytes.Contains(raw, []byte(`"later":{"of":"next"}`)) {
			later++
		}
	}
	return n, later
}

// change is what the owner of a bucket does to values that are there.
func change(t *testing.T, s *Store) {
	t.Helper()
	intents, err := s.Intents.All()
	must(t, err)
	for i := range intents {
		intents[i].Left = append(intents[i].Left, "more")
	}
	must(t, s.Intents.Change(intents))
	target, _, err := s.Targets.Last()
	must(t, err)
	target.ETag = `"f"`
	must(t, s.Targets.Put(target))
	must(t, s.Commits.Put("app1", Committed{Commit: "c1", Images: []string{"web:1"}}))
	must(t, s.Commits.Put("app2", Committed{Commit: "c2"}))
	must(t, s.Specs.Put("v1:2", state.Spec{Hostname: "i"}))
	must(t, s.Handovers.Put(OfService("app1", "web"), state.Handover{Hash: "v1:1", Image: "web:1"}))
	must(t, s.History.Append([]Entry{{Title: "more"}}))
	_, err = s.Keys.Ensure(2, "web")
	must(t, err)
}

// A device gets a newer deckhand, goes back and gets the newer one again. Nothing
// is set aside, nothing is lost, and what the older one wrote is as the newer one
// writes it.
func TestUpAndDownByOneVersion(t *testing.T) {
	for name := range buckets() {
		t.Run(name, func(t *testing.T) {
			path, want := filled(t)
			upAndDown(t, path, name, want)
			changedWhileDown(t, path, name)
		})
	}
}

// upAndDown goes up, down and up with nothing done in between.
func upAndDown(t *testing.T, path, name string, want map[string]any) {
	t.Helper()
	s, problems := openAs(t, path, next(name))
	if len(*problems) != 0 {
		t.Errorf("going up: %v", *problems)
	}
	if n, later := objects(raws(t, s, name)); later != n {
		t.Errorf("%d of %d values have the new form", later, n)
	}
	up := raws(t, s, name)
	must(t, s.Close())

	s, problems = open(t, path)
	if len(*problems) != 1 || !strings.Contains((*problems)[0], "keeps the rest") {
		t.Errorf("going down: %v", *problems)
	}
	got := content(t, s)
	if name == reportsBucket { // a report is handed on as it is
		delete(got, "report")
		delete(want, "report")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the older one reads (-want +got):\n%s", diff)
	}
	must(t, s.Close())

	s, problems = openAs(t, path, next(name))
	if diff := cmp.Diff(up, raws(t, s, name)); diff != "" || len(*problems) != 0 {
		t.Errorf("down and up (-before +after):\n%s\n%v", diff, *problems)
	}
	must(t, s.Close())
}

// changedWhileDown lets the older deckhand work before the newer one comes back.
func changedWhileDown(t *testing.T, path, name string) {
	t.Helper()
	s, _ := open(t, path)
	change(t, s)
	changed := content(t, s)
	must(t, s.Close())
	s, _ = openAs(t, path, next(name))
	if n, later := objects(raws(t, s, name)); later != n {
		t.Errorf("after changes by the older one %d of %d values have the new form: %s", later, n, raws(t, s, name))
	}
	if diff := cmp.Diff(changed, content(t, s)); diff != "" {
		t.Errorf("changes by the older one (-want +got):\n%s", diff)
	}
	must(t, s.Close())
}

// An older deckhand leaves alone what it does not know: buckets, and values that
// it cannot read.
func TestWhatOnlyANewerOneKnowsStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	l := next(haltedBucket)
	l.versions["inventions"] = 7
	s, _ := openAs(t, path, l)
	b := bucket[string]{s, "inventions"}
	must(t, b.put("wheel", "round"))
	must(t, bucket[string]{s, haltedBucket}.put("c0ffee", "not true"))
	must(t, s.Close())

	s, problems := open(t, path)
	for range 3 {
		if all, err := s.Halted.All(); err != nil || len(all) != 0 {
			t.Errorf("%v, %v", all, err)
		}
	}
	must(t, s.Halted.Put("beef"))
	if len(*problems) != 2 || !strings.Contains((*problems)[1], "left for a newer deckhand") {
		t.Errorf("%v", *problems)
	}
	must(t, s.Close())

	s, _ = openAs(t, path, l)
	b.s = s
	if v, ok, err := b.get("wheel"); v != "round" || !ok || err != nil {
		t.Errorf("%q %t %v", v, ok, err)
	}
	if v := raws(t, s, haltedBucket); string(v["c0ffee"]) != `"not true"` || string(v["beef"]) != "true" {
		t.Errorf("%s", v)
	}
}

// What a value says beside what we know goes with what it is about.
func TestUnknownFieldsStayWithTheirValue(t *testing.T) {
	for name, c := range map[string]struct{ stored, put, want string }{
		"changed":          {`{"id":"i","left":["a"],"x":1}`, `{"id":"i","left":["a","b"]}`, `{"app":"","at":"0001-01-01T00:00:00Z","by":"","id":"i","kind":"","left":["a","b"],"x":1}`},
		"large numbers":    {`{"id":"i","x":12345678901234567890}`, `{"id":"j"}`, `{"app":"","at":"0001-01-01T00:00:00Z","by":"","id":"j","kind":"","x":12345678901234567890}`},
		"the same":         {`{"id":"i","x":1}`, `{"id":"i"}`, `{"id":"i","x":1}`},
		"nothing unknown":  {`{"id":"i"}`, `{"id":"j"}`, ``},
		"cannot be read":   {`{"id":[]}`, `{"id":"j"}`, ``},
		"of another shape": {`7`, `{"id":"j"}`, ``},
	} {
		var put state.Intent
		must(t, json.Unmarshal([]byte(c.put), &put))
		plain, err := encode(put)
		must(t, err)
		stored, err := encode(json.RawMessage(c.stored))
		must(t, err)
		got, same := over(stored, put, plain)
		want := plain
		if c.want != "" {
			want, err = encode(json.RawMessage(c.want))
			must(t, err)
		}
		if same {
			got = stored
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for name, c := range map[string]struct{ earlier, known, now, want string }{
		"deeper":             {`{"a":{"b":1,"x":2}}`, `{"a":{"b":1}}`, `{"a":{"b":3}}`, `{"a":{"b":3,"x":2}}`},
		"gone":               {`{"a":{"b":1,"x":2}}`, `{"a":{"b":1}}`, `{}`, `{}`},
		"member of a map":    {`{"m":{"k":"v"}}`, `{"m":{"k":"v"}}`, `{"m":{}}`, `{"m":{}}`},
		"unchanged in list":  {`[{"n":1,"x":1},{"n":2,"x":2}]`, `[{"n":1},{"n":2}]`, `[{"n":2},{"n":3}]`, `[{"n":2,"x":2},{"n":3}]`},
		"twice the same":     {`[{"n":1,"x":1},{"n":1,"x":2}]`, `[{"n":1},{"n":1}]`, `[{"n":1},{"n":1},{"n":1}]`, `[{"n":1,"x":1},{"n":1,"x":2},{"n":1}]`},
		"object became list": {`{"a":{"x":1}}`, `{"a":{}}`, `{"a":[]}`, `{"a":[]}`},
	} {
		var e, k, n any
		must(t, errors.Join(json.Unmarshal([]byte(c.earlier), &e), json.Unmarshal([]byte(c.known), &k), json.Unmarshal([]byte(c.now), &n)))
		graft(e, k, n)
		if got, _ := json.Marshal(n); string(got) != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A new document has nothing of the one before, whoever wrote that.
func TestANewTargetInheritsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, path)
	fill(t, s)
	must(t, s.Close())
	for _, name := range []string{targetsBucket, commitsBucket, overridesBucket} {
		s, _ = openAs(t, path, next(name))
		must(t, s.Close())
	}
	s, _ = open(t, path)
	must(t, s.Targets.Put(Target{Document: []byte("{}"), Source: "local"}))
	must(t, s.Commits.Put("app1", Committed{Commit: "other"}))
	must(t, s.Overrides.Put(Override{Override: state.Override{App: "app1", By: "you"}}))
	for _, name := range []string{targetsBucket, commitsBucket, overridesBucket} {
		if _, later := objects(raws(t, s, name)); later != 0 {
			t.Errorf("%s: %s", name, raws(t, s, name))
		}
	}
}

// What this version writes is checked in. A difference is a new form: where an
// earlier deckhand could not read it, or this one not the earlier form, the bucket
// needs a new version and a migration, and the earlier file stays.
func TestFormsOnTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, path)
	fill(t, s)
	for name, version := range buckets() {
		v := raws(t, s, name)
		b, err := json.MarshalIndent(v, "", "  ")
		must(t, err)
		b = append(regexp.MustCompile(`\b[0-9a-f]{32}\b`).ReplaceAll(b, []byte(someKey)), '\n')
		file := fixture(name, version)
		if *update {
			must(t, os.MkdirAll(filepath.Dir(file), 0o755))
			must(t, os.WriteFile(file, b, 0o644))
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v; after a bucket is new or has a new version: go test ./state/store -update", err)
			continue
		}
		if diff := cmp.Diff(string(want), string(b)); diff != "" {
			t.Errorf("%s has a new form (-checked in +written):\n%s", name, diff)
		}
		if len(v) == 0 {
			t.Errorf("fill writes nothing into %s", name)
		}
	}
}

func fixture(bucket string, version int) string {
	return filepath.Join("testdata", "forms", fmt.Sprintf("%s-%d.json", bucket, version))
}

// stored builds a file as the version of the checked-in forms wrote it; the first
// one knew no stamp but the version.
func stored(t *testing.T, path string, back int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	must(t, db.Update(func(tx *bbolt.Tx) error {
		for name, version := range buckets() {
			version = max(1, version-back)
			b, err := os.ReadFile(fixture(name, version))
			must(t, err)
			var values map[string]json.RawMessage
			must(t, json.Unmarshal(b, &values))
			top, err := tx.CreateBucket([]byte(name))
			must(t, err)
			must(t, top.Put([]byte(versionKey), fmt.Append(nil, version)))
			in, err := top.CreateBucket([]byte(valuesKey))
			must(t, err)
			for k, v := range values {
				raw, err := encode(v)
				must(t, err)
				must(t, in.Put([]byte(k), raw))
			}
		}
		return nil
	}))
}

// The forms of this version and of the one before are read, by this version and
// by the next one.
func TestEarlierFormsAreRead(t *testing.T) {
	whole, _ := open(t, filepath.Join(t.TempDir(), "db"))
	fill(t, whole)
	want := content(t, whole)
	delete(want, "keys") // they are random
	for _, back := range []int{0, 1} {
		for _, layout := range []layout{{}, next(intentsBucket), next(specsBucket)} {
			path := filepath.Join(t.TempDir(), "db")
			stored(t, path, back)
			s, problems := openAs(t, path, layout)
			got := content(t, s)
			delete(got, "keys")
			if diff := cmp.Diff(want, got); diff != "" || len(*problems) != 0 {
				t.Errorf("%d back (-want +got):\n%s\n%v", back, diff, *problems)
			}
			if key, err := s.Identity.APIKey(); key != someKey || err != nil {
				t.Errorf("%d back: the API key is %q, %v", back, key, err)
			}
			must(t, s.Close())
		}
	}
}

// A power cut at any moment of a migration leaves the values before it or after
// it. bbolt writes pages first and the page that says which ones count last.
func TestAPowerCutDuringAMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, path)
	fill(t, s)
	for i := range 60 {
		must(t, s.Specs.Put(fmt.Sprintf("v1:%04d", i), state.Spec{Hostname: strings.Repeat("x", i*9)}))
	}
	want := content(t, s)
	must(t, s.Close())
	old, err := os.ReadFile(path)
	must(t, err)
	s, _ = openAs(t, path, next(specsBucket))
	must(t, s.Close())
	after, err := os.ReadFile(path)
	must(t, err)

	cuts := cutShort(old, after)
	if len(cuts) < 6 {
		t.Fatalf("the migration wrote %d pages only", len(cuts))
	}
	for i, cut := range cuts {
		for _, layout := range []layout{next(specsBucket), {}} {
			path := filepath.Join(t.TempDir(), "db")
			must(t, os.WriteFile(path, cut, 0o600))
			s, problems := openAs(t, path, layout)
			if s.Recovered() != "" {
				t.Fatalf("cut %d of %d: taken for damaged: %v", i, len(cuts), *problems)
			}
			if diff := cmp.Diff(want, content(t, s)); diff != "" {
				t.Fatalf("cut %d of %d (-want +got):\n%s", i, len(cuts), diff)
			}
			n, later := objects(raws(t, s, specsBucket))
			if layout.versions != nil && later != n {
				t.Fatalf("cut %d of %d: %d of %d values have the new form", i, len(cuts), later, n)
			}
			must(t, s.Close())
		}
	}
}

// cutShort gives the files that a power cut during a change may leave: the old
// one with some of the new pages, then with a part of the new meta page.
func cutShort(old, after []byte) (cuts [][]byte) {
	const page = 4096
	now := append(bytes.Clone(old), make([]byte, max(0, len(after)-len(old)))...)
	cuts = append(cuts, bytes.Clone(now))
	for at := 2 * page; at < len(after); at += page {
		if bytes.Equal(now[at:at+page], after[at:at+page]) {
			continue
		}
		copy(now[at:at+page/2], after[at:])
		cuts = append(cuts, bytes.Clone(now))
		copy(now[at:at+page], after[at:])
		cuts = append(cuts, bytes.Clone(now))
	}
	for _, part := range []int{24, 48, 64, 512, 2 * page} {
		copy(now[:part], after)
		copy(now[page:page+part], after[page:])
		cuts = append(cuts, bytes.Clone(now))
	}
	return cuts
}

// A disk that is full when a newer deckhand starts leaves the store as it was;
// with room it goes on.
func TestAMigrationOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, path)
	fill(t, s)
	want := content(t, s)
	must(t, s.Close())
	before, err := os.ReadFile(path)
	must(t, err)
	full := func(func() error) error { return fmt.Errorf("write %s: %w", path, syscall.ENOSPC) }
	if _, err := Open(path, Options{Write: full, layout: next(specsBucket)}); state.ClassOf(err) != state.ClassSpace {
		t.Errorf("%v", err)
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
	s, err = Open(path, Options{Write: full})
	if err != nil {
		t.Fatalf("a store in order needs no write to be opened: %v", err)
	}
	if err := s.Commits.Put("x", Committed{}); state.ClassOf(err) != state.ClassSpace {
		t.Errorf("a write on a full disk: %v", err)
	}
	must(t, s.Close())
	s, _ = openAs(t, path, next(specsBucket))
	if diff := cmp.Diff(want, content(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// One value that cannot be converted holds up no other.
func TestAMigrationThatFailsForAValue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := open(t, path)
	fill(t, s)
	must(t, s.Commits.Put("bad", Committed{Commit: "b"}))
	must(t, s.Commits.Put("worse", Committed{Commit: "w"}))
	must(t, s.Close())
	l := next(commitsBucket)
	good := l.migrations[len(l.migrations)-1].value
	l.migrations[len(l.migrations)-1].value = func(key string, old json.RawMessage) (json.RawMessage, error) {
		switch key {
		case "bad":
			return nil, errors.New("never heard of it")
		case "worse":
			panic("a bug")
		}
		return good(key, old)
	}
	s, problems := openAs(t, path, l)
	if all, err := s.Commits.All(); err != nil || len(all) != 3 || len(*problems) != 2 || s.Recovered() != "" {
		t.Errorf("%v, %v, %v, %q", all, err, *problems, s.Recovered())
	}
}
