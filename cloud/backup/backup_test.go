package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"deckhand/cloud/backup"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/test/postgres"
)

func TestMain(m *testing.M) { cloudtest.Main(m) }

// cloud is a running one with keys and an image.
func cloud(t *testing.T) (*cloudtest.World, backup.Source) {
	t.Helper()
	w := cloudtest.New(t, nil)
	from := backup.Source{DataDir: t.TempDir(), Database: w.Config.Database, RegistryDir: t.TempDir(), Images: true}
	if w.Config.Path != "" {
		from.DataDir = filepath.Dir(w.Config.Path)
	}
	write(t, filepath.Join(from.DataDir, "keys", "session.key"), "secret")
	write(t, filepath.Join(from.RegistryDir, "images", "docker", "blob"), "layer")
	write(t, filepath.Join(from.RegistryDir, "images", "docker", "_uploads", "half"), "half")
	return w, from
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// target is an empty place for a backup of the cloud.
func target(t *testing.T, w *cloudtest.World) (backup.Target, model.Config) {
	t.Helper()
	to := backup.Target{DataDir: filepath.Join(t.TempDir(), "data")}
	if w.Config.Database != "" {
		to.Database = postgres.Database(t, nil)
	}
	return to, model.Config{Path: filepath.Join(to.DataDir, "cloud.db"), Database: to.Database}
}

// load writes until it is stopped, and says what was acknowledged.
type load struct {
	mu    sync.Mutex
	names []string
}

func (l *load) acknowledged() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.names...)
}

func (l *load) run(ctx context.Context, w *cloudtest.World, writer int) {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("fleet-%d-%d", writer, i)
		if _, err := w.DB.CreateFleet(context.Background(), model.NewFleet{Name: name, DeviceType: "generic-amd64", User: w.Admin.ID}); err != nil {
			w.T.Error(err)
			return
		}
		l.mu.Lock()
		l.names = append(l.names, name)
		l.mu.Unlock()
	}
}

func TestABackupUnderLoadHasAllThatWasAcknowledged(t *testing.T) {
	w, from := cloud(t)
	ctx, stop := context.WithCancel(t.Context())
	var l load
	var writers sync.WaitGroup
	for n := range 4 {
		writers.Go(func() { l.run(ctx, w, n) })
	}
	defer writers.Wait()
	defer stop()
	deadline := time.Now().Add(time.Minute)
	for len(l.acknowledged()) < 40 {
		if time.Now().After(deadline) {
			t.Fatal("no writes")
		}
	}
	killed := filepath.Join(from.DataDir, ".backup-killed")
	write(t, filepath.Join(killed, "cloud.db"), "half")
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(killed, old, old); err != nil {
		t.Fatal(err)
	}
	before := l.acknowledged()
	path := filepath.Join(t.TempDir(), "backup")
	if err := backup.WriteFile(t.Context(), from, path); err != nil {
		t.Fatal(err)
	}
	after := len(l.acknowledged())
	stop()
	writers.Wait()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v %v", info.Mode(), err)
	}
	if err := backup.WriteFile(t.Context(), from, path); err == nil {
		t.Error("a backup was overwritten")
	}
	restored(t, w, path, before)
	left, err := filepath.Glob(filepath.Join(from.DataDir, ".backup-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	t.Logf("%d fleets before, %d written meanwhile", len(before), after-len(before))
}

// restored checks that a cloud made of the backup has the fleets, keys and images.
func restored(t *testing.T, w *cloudtest.World, path string, fleets []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	to, cfg := target(t, w)
	about, err := backup.Restore(t.Context(), f, to)
	if err != nil {
		t.Fatal(err)
	}
	db, err := model.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range fleets {
		if _, err := db.FleetBySlug(t.Context(), "admin/"+name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if id, err := db.CloudID(t.Context()); err != nil || id != about.Cloud {
		t.Errorf("the restored cloud has ID %q %v, want %q", id, err, about.Cloud)
	}
	for path, want := range map[string]string{"keys/session.key": "secret", "registry/images/docker/blob": "layer"} {
		if b, err := os.ReadFile(filepath.Join(to.DataDir, path)); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", path, b, err)
		}
	}
	if _, err := os.Stat(filepath.Join(to.DataDir, "registry/images/docker/_uploads")); err == nil {
		t.Error("half an upload was copied")
	}
}

func TestRestoreRefuses(t *testing.T) {
	w, from := cloud(t)
	var b bytes.Buffer
	if err := backup.Write(t.Context(), from, &b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, packed := range map[string][]byte{"cut off": whole[:len(whole)-200], "half": whole[:len(whole)/2], "a bit flipped": flipped, "empty": nil, "something else": []byte("hello")} {
		to, _ := target(t, w)
		if _, err := backup.Restore(t.Context(), bytes.NewReader(packed), to); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
		entries, err := os.ReadDir(to.DataDir)
		if err != nil || len(entries) > 0 {
			t.Errorf("%s left %v %v", name, entries, err)
		}
	}
	to, _ := target(t, w)
	write(t, filepath.Join(to.DataDir, "cloud.db"), "precious")
	if _, err := backup.Restore(t.Context(), bytes.NewReader(whole), to); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over a cloud: %v", err)
	}
	to, cfg := target(t, w)
	if _, err := backup.Restore(t.Context(), bytes.NewReader(whole), to); err != nil {
		t.Fatal(err)
	}
	if cfg.Database != "" {
		to.DataDir = t.TempDir()
		if _, err := backup.Restore(t.Context(), bytes.NewReader(whole), to); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("into a database with tables: %v", err)
		}
	}
}

func TestABackupOfANewerProgramIsRefused(t *testing.T) {
	w, from := cloud(t)
	var b bytes.Buffer
	if err := backup.Write(t.Context(), from, &b); err != nil {
		t.Fatal(err)
	}
	newer := rewritten(t, b.Bytes(), func(text string) string {
		i := strings.Index(text, `"schema": `) + len(`"schema": `)
		return text[:i] + "9" + text[i:]
	})
	to, _ := target(t, w)
	if _, err := backup.Restore(t.Context(), bytes.NewReader(newer), to); err == nil || !strings.Contains(err.Error(), "newer deckhand-cloud") {
		t.Errorf("got %v", err)
	}
}
