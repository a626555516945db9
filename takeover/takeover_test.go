package takeover

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/locks"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/target"
)

const (
	device = "0123456789abcdef0123456789abcdef"
	fleet  = "f1ee7000000000000000000000000001"
	cloud  = "https://api.example.com"
	global = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	webKey = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	image  = "registry2.example.com/v2/abc@sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// schema is that of version 19; earlier versions have less of it.
var schema = []string{
	`CREATE TABLE knex_migrations (id integer not null primary key autoincrement, name varchar(255), batch integer, migration_time datetime)`,
	`CREATE TABLE config (key text primary key, value text)`,
	`CREATE TABLE deviceConfig (targetValues json)`,
	`CREATE TABLE app (id integer not null primary key autoincrement, name varchar(255), releaseId integer, "commit" varchar(255),
		appId integer, services json, networks json, volumes json, source varchar(255), uuid varchar(255) unique, class varchar(255) default 'fleet',
		isHost boolean default 0, rejected boolean default 0)`,
	`CREATE TABLE image (id integer not null primary key autoincrement, name varchar(255), appId integer, serviceId integer, serviceName varchar(255),
		imageId integer, releaseId integer, dockerImageId varchar(255), appUuid varchar(255), "commit" varchar(255))`,
	`CREATE TABLE apiSecret (id integer not null primary key autoincrement, appId integer, "key" varchar(255), scopes json, serviceName varchar(255), unique (appId, serviceName))`,
	`CREATE TABLE currentCommit (id integer not null primary key autoincrement, appId integer not null unique, "commit" varchar(255) not null)`,
	`CREATE TABLE engineSnapshot (snapshot json, timestamp varchar(255))`,
	`CREATE TABLE logsChannelSecret (backend varchar(255), secret varchar(255))`,
}

var content = []string{
	`INSERT INTO config VALUES ('name', 'hidden-glade'), ('targetStateSet', 'true'), ('initialConfigReported', 'https://api.example.com'),
		('targetTags', '{"place":"roof","old":"1"}'), ('reportedTags', '{"old":"1"}'), ('pinDevice', '{"app":1234,"commit":"c0ffee01"}'),
		('lockOverride', 'true'), ('hardwareMetrics', 'false')`,
	`INSERT INTO deviceConfig VALUES ('{"RESIN_SUPERVISOR_POLL_INTERVAL":"600000","RESIN_HOST_CONFIG_gpu_mem":"16","SUPERVISOR_OVERRIDE_LOCK":"0"}')`,
	`INSERT INTO app (name, releaseId, "commit", appId, services, networks, volumes, source, uuid) VALUES ('shop', 77, 'c0ffee01', 1234,
		'[{"image":"` + image + `","environment":{"A":"1"},"labels":{"io.balena.features.supervisor-api":"1"},"composition":{"restart":"always","volumes":["data:/data"]},
		"appId":1234,"appUuid":"` + fleet + `","releaseId":77,"commit":"c0ffee01","imageId":5,"serviceId":6,"serviceName":"web"}]',
		'{}', '{"data":{}}', 'https://api.example.com', '` + fleet + `')`,
	`INSERT INTO app (name, appId, services, networks, volumes, source, uuid) VALUES ('elsewhere', 99, '[]', '{}', '{}', 'https://old.example.com', 'e15e')`,
	`INSERT INTO image (name, appId, serviceId, serviceName, imageId, releaseId, dockerImageId, appUuid, "commit") VALUES
		('` + image + `', 1234, 6, 'web', 5, 77, 'sha256:22', '` + fleet + `', 'c0ffee01'), ('local:latest', 1234, 7, 'job', 8, 77, 'sha256:33', '` + fleet + `', 'c0ffee01')`,
	`INSERT INTO apiSecret (appId, serviceName, "key", scopes) VALUES (0, NULL, '` + global + `', '[{"type":"global"}]'), (1234, 'web', '` + webKey + `', '[{"type":"app","appId":1234}]')`,
	`INSERT INTO currentCommit (appId, "commit") VALUES (1234, 'c0ffee01'), (555, 'beef')`,
}

// place is a device of the other supervisor.
type place struct {
	t        *testing.T
	dir      string
	database string
	config   string
	data     string
}

func newPlace(t *testing.T, statements ...[]string) place {
	t.Helper()
	dir := t.TempDir()
	p := place{t, dir, filepath.Join(dir, "old", "database.sqlite"), filepath.Join(dir, "config.json"), filepath.Join(dir, "deckhand")}
	must(t, os.Mkdir(filepath.Dir(p.database), 0o755))
	must(t, os.WriteFile(p.config, []byte(`{"uuid":"`+device+`","apiEndpoint":"`+cloud+`/","deviceApiKey":"secret","deviceId":3,"registered_at":1}`), 0o600))
	if len(statements) == 0 {
		statements = [][]string{schema, content}
	}
	db := p.open()
	for _, list := range statements {
		for _, s := range list {
			if _, err := db.Exec(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	must(t, db.Close())
	return p
}

func (p place) open() *sql.DB {
	p.t.Helper()
	db, err := sql.Open("sqlite", p.database)
	must(p.t, err)
	db.SetMaxOpenConns(1)
	return db
}

func (p place) exec(statement string) place {
	p.t.Helper()
	db := p.open()
	_, err := db.Exec(statement)
	must(p.t, errors.Join(err, db.Close()))
	return p
}

func (p place) take(change ...func(*Config)) (Found, error) {
	c := Config{Database: p.database, Config: p.config, DataDir: p.data}
	for _, f := range change {
		f(&c)
	}
	return Run(context.Background(), c)
}

func (p place) store(look func(*store.Store)) {
	p.t.Helper()
	s, err := store.Open(filepath.Join(p.data, "deckhand.db"), store.Options{Report: func(err error) { p.t.Error(err) }})
	must(p.t, err)
	look(s)
	must(p.t, s.Close())
}

// same compares what was read with what is wanted.
func same[T any](t *testing.T, what string, want T) func(T, error) {
	t.Helper()
	return func(got T, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s (-want +got):\n%s%v", what, diff, err)
		}
	}
}

// checkAll looks for everything of content in the store.
func checkAll(t *testing.T, p place) {
	t.Helper()
	p.store(func(s *store.Store) {
		same(t, "global key", global)(s.Identity.APIKey())
		same(t, "key of the service", webKey)(s.Keys.Ensure(1234, "web"))
		same(t, "commits", map[string]store.Committed{fleet: {Commit: "c0ffee01", Images: []string{"local:latest", image}}})(s.Commits.All())
		same(t, "images", []string{image})(s.Images.All())
		same(t, "tags", map[string]string{"place": "roof"})(s.Tags.Wanted())
		same(t, "told", cloud+" "+device)(s.Initial.Told())
		pin, _, err := s.Pins.Wanted()
		same(t, "pin", store.Pin{Fleet: 1234, Commit: "c0ffee01"})(pin, err)
		checkTarget(t, s)
	})
}

func checkTarget(t *testing.T, s *store.Store) {
	t.Helper()
	last, ok, err := s.Targets.Last()
	if !ok || err != nil || last.Source != cloud || last.ETag != "" {
		t.Fatalf("target %t, %v, %+v", ok, err, last)
	}
	got, problems, err := target.DecodeV3(t.Context(), last.Document, target.Options{Device: device})
	if err != nil || len(problems) != 0 || len(got.Apps) != 1 {
		t.Fatalf("%v %v %v", got.Apps, problems, err)
	}
	same(t, "name", "hidden-glade")(got.Name, nil)
	same(t, "configuration", map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000", "RESIN_HOST_CONFIG_gpu_mem": "16", "BALENA_SUPERVISOR_OVERRIDE_LOCK": "0"})(got.Config, nil)
	web := got.Apps[fleet].Services["web"]
	same(t, "service", []any{"c0ffee01", image, int64(6), int64(5), "always", 1})(
		[]any{got.Apps[fleet].Commit, web.Image, web.ID, web.ImageID, web.Spec.Restart.Name, len(web.Spec.Mounts)}, nil)
	specs, err := s.Specs.All()
	same(t, "specs", map[string]state.Spec{web.Hash: web.Spec})(specs, err)
}

func TestEverythingIsTakenOver(t *testing.T) {
	p := newPlace(t)
	f, err := p.take()
	must(t, err)
	checkAll(t, p)
	all := strings.Join(append(f.Lines, f.Left...), "\n")
	for _, want := range []string{"1234 runs c0ffee0", "keys of services: 1", "app 99", "release of app 555"} {
		if !strings.Contains(all, want) {
			t.Errorf("it does not say %q:\n%s", want, all)
		}
	}
	for _, secret := range []string{global, webKey, "secret", "roof"} {
		if strings.Contains(all, secret) {
			t.Errorf("it says %q:\n%s", secret, all)
		}
	}
	left, err := filepath.Glob(filepath.Join(p.data, "import-*"))
	if len(left) != 0 || err != nil {
		t.Errorf("copies are left: %v", left)
	}
}

func TestADryRunWritesNothing(t *testing.T) {
	p := newPlace(t)
	f, err := p.take(func(c *Config) { c.DryRun = true })
	must(t, err)
	if f.Import.APIKey != global || len(f.Lines) < 5 {
		t.Errorf("%v", f.Lines)
	}
	if _, err := os.Stat(filepath.Join(p.data, "deckhand.db")); !os.IsNotExist(err) {
		t.Errorf("there is a store: %v", err)
	}
}

// The last changes may be in a log beside the file, as a killed supervisor leaves
// it; the file may be on a file system that cannot be written.
func TestAWriteAheadLogBeside(t *testing.T) {
	p := newPlace(t, schema)
	db := p.open()
	for _, s := range append([]string{"PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0"}, content...) {
		_, err := db.Exec(s)
		must(t, err)
	}
	killed := filepath.Join(p.dir, "killed")
	must(t, os.Mkdir(killed, 0o755))
	for _, name := range []string{"database.sqlite", "database.sqlite-wal"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(p.database), name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(killed, name), b, 0o444))
	}
	must(t, db.Close())
	p.database = filepath.Join(killed, "database.sqlite")
	before := listing(t, killed)
	_, err := p.take()
	must(t, err)
	checkAll(t, p)
	if diff := cmp.Diff(before, listing(t, killed)); diff != "" {
		t.Errorf("the original was changed:\n%s", diff)
	}
}

func listing(t *testing.T, dir string) (out []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		must(t, err)
		out = append(out, fmt.Sprintf("%s %x", f.Name(), b))
	}
	return out
}

func TestOnlyOnce(t *testing.T) {
	p := newPlace(t)
	_, err := p.take()
	must(t, err)
	if _, err := p.take(); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("a second import: %v", err)
	}
	p.exec(`UPDATE currentCommit SET "commit" = 'c0ffee02' WHERE appId = 1234`)
	_, err = p.take(func(c *Config) { c.Force = true })
	must(t, err)
	p.store(func(s *store.Store) {
		if all, err := s.Commits.All(); all[fleet].Commit != "c0ffee02" || err != nil {
			t.Errorf("%v, %v", all, err)
		}
	})

	used := newPlace(t)
	used.store(func(s *store.Store) { must(t, s.Targets.Put(store.Target{Document: []byte("{}")})) })
	if _, err := used.take(); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("deckhand had run: %v", err)
	}

	fresh := newPlace(t) // deckhand was started once and found nothing
	fresh.store(func(s *store.Store) { _, err := s.Identity.APIKey(); must(t, err) })
	_, err = fresh.take()
	must(t, err)
	checkAll(t, fresh)
}

func TestNotWhileDeckhandRuns(t *testing.T) {
	p := newPlace(t)
	lock, err := locks.Instance(filepath.Join(p.data, "lock"))
	must(t, err)
	defer func() { must(t, lock.Release()) }()
	for _, force := range []bool{false, true} {
		_, err := p.take(func(c *Config) { c.Force = force })
		if _, inUse := errors.AsType[*locks.InUseError](err); !inUse {
			t.Errorf("%v", err)
		}
	}
}

// Databases of the versions before, and those that lack something.
func TestOtherSchemas(t *testing.T) {
	without := func(column string) []string {
		return slices.DeleteFunc([]string{`ALTER TABLE app DROP COLUMN ` + column}, func(string) bool { return column == "" })
	}
	for name, c := range map[string]struct {
		change []string
		target bool
		left   string
	}{
		"without rejected":   {change: without("rejected"), target: true},
		"without isHost":     {change: without("isHost"), target: true},
		"no apps":            {change: []string{`DELETE FROM app`}, left: "the supervisor has none"},
		"no table app":       {change: []string{`DROP TABLE app`}, left: "another form"},
		"before uuids":       {change: []string{`CREATE TABLE app2 AS SELECT id, name, releaseId, "commit", appId, services, networks, volumes, source FROM app`, `DROP TABLE app`, `ALTER TABLE app2 RENAME TO app`}, left: "another form"},
		"a service no name":  {change: []string{`UPDATE app SET services = '[{"image":"x"}]' WHERE appId = 1234`}, left: "app 1234: service 1 has no name"},
		"a null uuid":        {change: []string{`UPDATE app SET uuid = NULL WHERE appId = 1234`}, left: "its uuid is missing"},
		"cannot be used":     {change: []string{`UPDATE app SET services = replace(services, '"image":"', '"image":"http://!') WHERE appId = 1234`}, target: true, left: "cannot be run"},
		"no device config":   {change: []string{`DROP TABLE deviceConfig`}, target: true},
		"of another cloud":   {change: []string{`UPDATE app SET source = 'https://other'`}, left: "none of this cloud"},
		"nothing but config": {change: []string{`DROP TABLE app`, `DROP TABLE image`, `DROP TABLE apiSecret`, `DROP TABLE currentCommit`}, left: "keys: the database has none"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, schema, content, c.change)
			f, err := p.take()
			must(t, err)
			if got := f.Import.Target != nil; got != c.target {
				t.Errorf("target %t, want %t: %v", got, c.target, f.Left)
			}
			if all := strings.Join(f.Left, "\n"); !strings.Contains(all, c.left) {
				t.Errorf("it does not say %q:\n%s", c.left, all)
			}
			if override := f.Import.Override != nil; override == c.target {
				t.Errorf("a permission to break locks %t with a target %t", override, c.target)
			}
			p.store(func(s *store.Store) {
				if _, ok, err := s.Imports.Last(); !ok || err != nil {
					t.Errorf("%t, %v", ok, err)
				}
			})
		})
	}
}

// What old compositions say stands beside the rest.
func TestLooseComposition(t *testing.T) {
	p := newPlace(t, schema, content, []string{`UPDATE app SET services =
		'[{"image":"` + image + `","serviceName":"web","serviceId":6,"imageId":5,"environment":{},"labels":{},"privileged":true,"restart":"no"}]' WHERE appId = 1234`})
	f, err := p.take()
	must(t, err)
	for _, s := range f.Import.Specs {
		if !s.Privileged || s.Restart.Name != "no" {
			t.Errorf("%+v", s)
		}
	}
	if len(f.Import.Specs) != 1 {
		t.Errorf("%v", f.Left)
	}
}

// Damage is named by table and column, without the value, and nothing is half
// done. The part that is damaged can be left out.
func TestDamagedContent(t *testing.T) {
	for statement, c := range map[string]struct{ want, part string }{
		`UPDATE app SET services = '[{"serviceName":' WHERE appId = 1234`:        {"table app, row 1, column services", PartTarget},
		`UPDATE app SET volumes = '[]' WHERE appId = 1234`:                       {"table app, row 1, column volumes", PartTarget},
		`UPDATE app SET services = '[{"serviceName":"TOPSECRET"}] x'`:            {"table app, row 1, column services", PartTarget},
		`UPDATE deviceConfig SET targetValues = '{"A":{"TOPSECRET":1}}'`:         {"table deviceConfig, row 1, column targetValues", PartTarget},
		`UPDATE app SET releaseId = 'TOPSECRET' WHERE appId = 1234`:              {"table app, row 1, column releaseId", PartTarget},
		`UPDATE apiSecret SET "key" = 'TOPSECRET' WHERE appId = 1234`:            {"table apiSecret, row 2, column key", PartKeys},
		`UPDATE apiSecret SET appId = 1.5 WHERE appId = 1234`:                    {"table apiSecret, row 2, column appId", PartKeys},
		`UPDATE currentCommit SET appId = 'x' WHERE appId = 555`:                 {"table currentCommit, row 2, column appId", PartCommits},
		`UPDATE config SET value = 'TOPSECRET' WHERE key = 'targetTags'`:         {"table config, key targetTags", PartTags},
		`UPDATE config SET value = '{"app":"TOPSECRET"' WHERE key = 'pinDevice'`: {"table config, key pinDevice", PartPin},
	} {
		p := newPlace(t).exec(statement)
		_, err := p.take()
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--without "+c.part) {
			t.Errorf("%s:\n%v", statement, err)
			continue
		}
		if strings.Contains(err.Error(), "TOPSECRET") {
			t.Errorf("the error shows the value: %v", err)
		}
		p.store(func(s *store.Store) {
			if _, ok, _ := s.Imports.Last(); ok {
				t.Errorf("%s: something was imported", statement)
			}
			if all, _ := s.Keys.All(); len(all) != 0 {
				t.Errorf("%s: keys were imported", statement)
			}
		})
		f, err := p.take(func(c2 *Config) { c2.Without = []string{c.part} })
		if err != nil || !strings.Contains(strings.Join(f.Left, "\n"), c.part+": left out") {
			t.Errorf("%s, without %s: %v %v", statement, c.part, err, f.Left)
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"empty": func([]byte) []byte { return nil },
		"a text": func([]byte) []byte {
			return []byte("not a database at all, but long enough to be looked at, for sure, it is more than a header")
		},
		"cut":         func(b []byte) []byte { return b[:len(b)/2] },
		"page zeroed": func(b []byte) []byte { copy(b[4096:], make([]byte, 8192)); return b },
	} {
		p := newPlace(t)
		b, err := os.ReadFile(p.database)
		must(t, err)
		must(t, os.WriteFile(p.database, damage(bytes.Clone(b)), 0o600))
		if _, err := p.take(); err == nil || !strings.Contains(err.Error(), p.database) {
			t.Errorf("%s: %v", name, err)
		}
		p.store(func(s *store.Store) {
			if _, ok, _ := s.Imports.Last(); ok {
				t.Errorf("%s: something was imported", name)
			}
		})
	}
	p := newPlace(t)
	if _, err := p.take(func(c *Config) { c.Database += "x" }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := p.take(func(c *Config) { c.Without = []string{"everything"} }); err == nil || !strings.Contains(err.Error(), "commits") {
		t.Errorf("%v", err)
	}
	must(t, os.WriteFile(p.config, []byte("{"), 0o600))
	if _, err := p.take(); state.ClassOf(err) != state.ClassInvalid {
		t.Errorf("%v", err)
	}
}
