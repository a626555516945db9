package model_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/test/golden"
)

// clock is a clock that moves by one second whenever it is read.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { c.t = c.t.Add(time.Second); return c.t }

func TestMain(m *testing.M) { cloudtest.Main(m) }

// open opens an empty database of the kind that the tests run on.
func open(t *testing.T) *model.DB {
	t.Helper()
	return openAt(t, &clock{t: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)})
}

func openAt(t *testing.T, c *clock) *model.DB {
	t.Helper()
	cfg := cloudtest.Database(t)
	cfg.Now, cfg.RegistryHost = c.now, func() string { return "registry.test:5000" }
	return opened(t, cfg)
}

// opened is a database that is closed with the test.
func opened(t *testing.T, cfg model.Config) *model.DB {
	t.Helper()
	db, err := model.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// file opens an empty database file, whatever the tests run on.
func file(t *testing.T) (db *model.DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "cloud.db")
	return opened(t, model.Config{Path: path}), path
}

func owner(t *testing.T, db *model.DB, name string) model.User {
	t.Helper()
	u, err := db.CreateUser(t.Context(), name, "x")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func fleet(t *testing.T, db *model.DB, u model.User, name string) model.Fleet {
	t.Helper()
	f, err := db.CreateFleet(t.Context(), model.NewFleet{Name: name, DeviceType: "generic-amd64", User: u.ID})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// built adds a release with the given services, all pushed, and ends it.
func built(t *testing.T, db *model.DB, f model.Fleet, commit string, final bool, status string, services ...string) model.Release {
	t.Helper()
	r := started(t, db, f, commit, final, services...)
	r, err := db.FinishRelease(t.Context(), r.ID, status, "the log")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func started(t *testing.T, db *model.DB, f model.Fleet, commit string, final bool, services ...string) model.Release {
	t.Helper()
	parts := make([]string, len(services))
	for i, s := range services {
		parts[i] = `"` + s + `":{"build":".","restart":"always"}`
	}
	r, err := db.CreateRelease(t.Context(), model.NewRelease{
		Fleet: f.ID, Commit: commit, Source: "cloud", Final: final,
		Composition: json.RawMessage(`{"services":{` + strings.Join(parts, ",") + `},"volumes":{"data":{}}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		image, err := db.AddImage(t.Context(), model.NewImage{Release: r.ID, Service: s,
			Labels: map[string]string{"of": s}, Environment: map[string]string{"FROM": "image"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.FinishImage(t.Context(), image.ID, model.ImageResult{Status: model.StatusSuccess,
			ContentHash: "sha256:" + strings.Repeat("a", 64), PushedAt: time.Now(), Size: 10}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestSchemaIsTheGoldenOne(t *testing.T) {
	_, path := file(t)
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	rows, err := raw.QueryContext(t.Context(), `SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' AND tbl_name <> 'goose_db_version' ORDER BY name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var b strings.Builder
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		b.WriteString(s + ";\n\n")
	}
	golden.File(t, "testdata/schema.sql", b.String())
}

func TestDamagedFileNamesItselfAndTheWayOut(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"not a database": func([]byte) []byte { return []byte("hello, this is no database at all, only some text\n") },
		"page overwritten": func(b []byte) []byte {
			copy(b[4096:], strings.Repeat("\xff", 4096))
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cloud.db")
			db, err := model.Open(t.Context(), model.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = model.Open(t.Context(), model.Config{Path: path})
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "restore it from a backup") {
				t.Errorf("error should name the file and the way out: %v", err)
			}
		})
	}
}

func TestSecondCloudOnTheSameFileIsRefused(t *testing.T) {
	_, path := file(t)
	_, err := model.Open(t.Context(), model.Config{Path: path})
	if err == nil || !strings.Contains(err.Error(), "another deckhand-cloud") {
		t.Errorf("got %v", err)
	}
}

func TestForeignSchemaIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ statement, says string }{
		"newer":               {"INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)", "newer deckhand-cloud"},
		"before the releases": {"PRAGMA user_version = 3", "development version"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cloud.db")
			db, err := model.Open(t.Context(), model.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			raw, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			if _, err := raw.ExecContext(t.Context(), c.statement); err != nil {
				t.Fatal(err)
			}
			if _, err := model.Open(t.Context(), model.Config{Path: path}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPathWithOddCharactersWorks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c%20#d.db")
	db, err := model.Open(t.Context(), model.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestFleetNames(t *testing.T) {
	db := open(t)
	alice, bob := owner(t, db, "alice"), owner(t, db, "bob")
	first := fleet(t, db, alice, "Greenhouse")
	if first.Slug != "alice/greenhouse" || first.Arch != "amd64" || !first.TrackLatest {
		t.Errorf("new fleet: %+v", first)
	}
	ctx := t.Context()
	if got, err := db.FleetBySlug(ctx, "greenhouse"); err != nil || got.ID != first.ID {
		t.Errorf("bare name: %v %v", got, err)
	}
	fleet(t, db, bob, "greenhouse")
	if _, err := db.FleetBySlug(ctx, "greenhouse"); !errors.Is(err, model.ErrNotFound) || !strings.Contains(err.Error(), "give the slug") {
		t.Errorf("ambiguous name: %v", err)
	}
	if got, err := db.FleetBySlug(ctx, "Alice/Greenhouse"); err != nil || got.ID != first.ID {
		t.Errorf("slug: %v %v", got, err)
	}
	for name, c := range map[string]struct {
		new  model.NewFleet
		want error
		text string
	}{
		"taken":          {model.NewFleet{Name: "GREENHOUSE", DeviceType: "generic-amd64", User: alice.ID}, model.ErrConflict, `"slug" must be unique.`},
		"bad name":       {model.NewFleet{Name: "green house", DeviceType: "generic-amd64", User: alice.ID}, model.ErrInvalid, "name may only contain"},
		"short name":     {model.NewFleet{Name: "abc", DeviceType: "generic-amd64", User: alice.ID}, model.ErrInvalid, "4 to 100"},
		"no such type":   {model.NewFleet{Name: "other", DeviceType: "toaster", User: alice.ID}, model.ErrNotFound, "toaster"},
		"foreign org":    {model.NewFleet{Name: "other", DeviceType: "generic-amd64", User: alice.ID, Organization: 2}, model.ErrInvalid, "not a member"},
		"bad given uuid": {model.NewFleet{Name: "other", DeviceType: "generic-amd64", User: alice.ID, UUID: "ABC"}, model.ErrInvalid, "version 4"},
	} {
		if _, err := db.CreateFleet(ctx, c.new); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ok, err := db.UserMayUseFleet(ctx, bob.ID, first.ID); err != nil || ok {
		t.Errorf("bob may use alice's fleet: %v %v", ok, err)
	}
}

func target(t *testing.T, db *model.DB, f model.Fleet) int64 {
	t.Helper()
	f, err := db.FleetByID(t.Context(), f.ID)
	if err != nil {
		t.Fatal(err)
	}
	return f.TargetRelease
}

func TestFleetFollowsItsLatestGoodRelease(t *testing.T) {
	db := open(t)
	f := fleet(t, db, owner(t, db, "alice"), "kitchen")
	first := built(t, db, f, "a1", true, model.StatusSuccess, "web")
	if got := target(t, db, f); got != first.ID {
		t.Fatalf("target is %d, want the first release %d", got, first.ID)
	}
	w := db.Changes().Watch(model.Topic{Kind: model.FleetTarget, ID: f.ID})
	defer w.Stop()
	built(t, db, f, "a2", true, model.StatusFailed, "web")
	built(t, db, f, "a3", false, model.StatusSuccess, "web")
	if got := target(t, db, f); got != first.ID {
		t.Errorf("a failed build or a draft became the target: %d", got)
	}
	select {
	case <-w.C():
		t.Error("devices were told although their target is the same")
	default:
	}
	// The release whose build began last wins, whichever ends last.
	slow := started(t, db, f, "a4", true, "web")
	quick := built(t, db, f, "a5", true, model.StatusSuccess, "web")
	if _, err := db.FinishRelease(t.Context(), slow.ID, model.StatusSuccess, ""); err != nil {
		t.Fatal(err)
	}
	if got := target(t, db, f); got != quick.ID {
		t.Errorf("target is %d, want %d which began last", got, quick.ID)
	}
	select {
	case <-w.C():
	default:
		t.Error("devices were not told about the new target")
	}
}

func TestCancelledReleaseStaysCancelled(t *testing.T) {
	db := open(t)
	f := fleet(t, db, owner(t, db, "alice"), "kitchen")
	r := started(t, db, f, "a1", true, "web")
	w := db.Changes().Watch(model.Topic{Kind: model.ReleaseStatus, ID: r.ID})
	defer w.Stop()
	if err := db.CancelRelease(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.C():
	default:
		t.Error("nobody was told")
	}
	got, err := db.FinishRelease(t.Context(), r.ID, model.StatusSuccess, "")
	if err != nil || got.Status != model.StatusCancelled {
		t.Errorf("%+v %v", got, err)
	}
	if target(t, db, f) != 0 {
		t.Error("a cancelled release became the target")
	}
}

func TestReleaseVersions(t *testing.T) {
	db := open(t)
	f := fleet(t, db, owner(t, db, "alice"), "kitchen")
	var got []string
	for i, c := range []struct {
		semver string
		final  bool
	}{{"", true}, {"", true}, {"1.2.3", true}, {"1.2.3", true}, {"1.2.3-beta.1+b7", false}, {"1.2.3-beta.1+b7", true}} {
		r, err := db.CreateRelease(t.Context(), model.NewRelease{Fleet: f.ID, Commit: strings.Repeat("a", i+1), Source: "cloud",
			Composition: json.RawMessage(`{}`), Final: c.final, Semver: c.semver})
		if err != nil {
			t.Fatal(err)
		}
		raw := r.RawVersion
		if !c.final {
			raw = strings.ReplaceAll(raw, time.Time(r.CreatedAt).Format("2006"), "")
		}
		got = append(got, raw)
	}
	if got[0] != "0.0.0" || got[1] != "0.0.0+rev1" || got[2] != "1.2.3" || got[3] != "1.2.3+rev1" || got[5] != "1.2.3-beta.1+b7" {
		t.Errorf("got %q", got)
	}
	if !strings.HasPrefix(got[4], "1.2.3-beta.1.17") || !strings.HasSuffix(got[4], "+b7") {
		t.Errorf("draft: %q", got[4])
	}
}

func TestReleaseInputIsChecked(t *testing.T) {
	db := open(t)
	f := fleet(t, db, owner(t, db, "alice"), "kitchen")
	good := model.NewRelease{Fleet: f.ID, Commit: "abc", Source: "cloud", Composition: json.RawMessage(`{}`), Final: true}
	for name, c := range map[string]struct {
		change func(*model.NewRelease)
		want   error
	}{
		"commit":           {func(n *model.NewRelease) { n.Commit = "xyz" }, model.ErrInvalid},
		"semver":           {func(n *model.NewRelease) { n.Semver = "v1" }, model.ErrInvalid},
		"composition":      {func(n *model.NewRelease) { n.Composition = json.RawMessage(`[]`) }, model.ErrInvalid},
		"null composition": {func(n *model.NewRelease) { n.Composition = json.RawMessage(`null`) }, model.ErrInvalid},
		"no composition":   {func(n *model.NewRelease) { n.Composition = nil }, model.ErrInvalid},
		"source":           {func(n *model.NewRelease) { n.Source = "" }, model.ErrInvalid},
		"fleet":            {func(n *model.NewRelease) { n.Fleet = 99 }, model.ErrNotFound},
	} {
		n := good
		c.change(&n)
		if _, err := db.CreateRelease(t.Context(), n); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImagesOfARelease(t *testing.T) {
	db := open(t)
	f := fleet(t, db, owner(t, db, "alice"), "kitchen")
	if _, _, err := db.LastSuccess(t.Context(), f.ID); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("no release yet: %v", err)
	}
	built(t, db, f, "a1", true, model.StatusSuccess, "web", "db")
	second := built(t, db, f, "a2", true, model.StatusSuccess, "web", "db")
	built(t, db, f, "a3", true, model.StatusFailed, "web", "db")
	r, images, err := db.LastSuccess(t.Context(), f.ID)
	if err != nil || r.ID != second.ID || len(images) != 2 {
		t.Fatalf("%+v %+v %v", r, images, err)
	}
	if images[0].Service != "db" || !strings.HasPrefix(images[0].Location, "registry.test:5000/v2/") || len(images[0].Location) != len("registry.test:5000/v2/")+32 {
		t.Errorf("%+v", images[0])
	}
	if images[0].Location == images[1].Location {
		t.Error("two images share a location")
	}
	slow, err := db.AddImage(t.Context(), model.NewImage{Release: started(t, db, f, "abcd", true).ID, Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	err = db.FinishImage(t.Context(), slow.ID, model.ImageResult{Status: model.StatusSuccess, ContentHash: "sha256:x"})
	if !errors.Is(err, model.ErrInvalid) {
		t.Errorf("success without push time: %v", err)
	}
}

func TestLeftoversOfACrashEndAsErrors(t *testing.T) {
	c := &clock{t: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	db := openAt(t, c)
	f := fleet(t, db, owner(t, db, "alice"), "kitchen")
	r := started(t, db, f, "a1", true, "web")
	if _, err := db.AddImage(t.Context(), model.NewImage{Release: r.ID, Service: "slow"}); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(time.Minute) // on a shared database it may be another server's until then
	n, err := db.EndInterruptedBuilds(t.Context())
	if err != nil || n != 1 {
		t.Fatalf("%d %v", n, err)
	}
	got, err := db.ReleaseByID(t.Context(), r.ID)
	if err != nil || got.Status != model.StatusError || got.EndedAt.IsZero() {
		t.Errorf("%+v %v", got, err)
	}
	images, err := db.Images(t.Context(), r.ID)
	if err != nil || images[0].Service != "slow" || images[0].Status != model.StatusError || images[1].Status != model.StatusSuccess {
		t.Errorf("%+v %v", images, err)
	}
}

func TestKeysAreFoundByValueUntilTheyExpire(t *testing.T) {
	db, path := file(t)
	u := owner(t, db, "alice")
	ctx := t.Context()
	if err := db.AddKey(ctx, model.NewKey{Key: "secretsecret", Actor: u.Actor, Role: model.RoleUser}); err != nil {
		t.Fatal(err)
	}
	if err := db.AddKey(ctx, model.NewKey{Key: "secretsecret", Actor: u.Actor, Role: model.RoleUser}); !errors.Is(err, model.ErrConflict) {
		t.Errorf("same key again: %v", err)
	}
	if err := db.AddKey(ctx, model.NewKey{Key: "old", Actor: u.Actor, Role: model.RoleUser, Expiry: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	if o, err := db.OwnerOfKey(ctx, "secretsecret"); err != nil || o.User != u.ID || o.Name != "alice" || o.Role != model.RoleUser {
		t.Errorf("%+v %v", o, err)
	}
	for _, key := range []string{"old", "", "nonsense", model.HashKey("secretsecret")} {
		if _, err := db.OwnerOfKey(ctx, key); !errors.Is(err, model.ErrNotFound) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "secretsecret") {
			t.Errorf("the file %s holds a key in clear text", suffix)
		}
	}
}
