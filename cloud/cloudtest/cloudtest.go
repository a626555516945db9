// Package cloudtest gives tests a small cloud: a database, two users, and short ways to make fleets, releases and devices.
package cloudtest

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/auth"
	"deckhand/cloud/model"
	"deckhand/test/postgres"
)

// VPNKey is the key of VPN servers.
const VPNKey = "a-vpn-server-key-of-32-characters"

// World is the small cloud of one test.
type World struct {
	T    testing.TB
	DB   *model.DB
	Auth *auth.Auth
	// Config opened DB; with a shared database it opens another server's.
	Config model.Config
	// Mux serves what the test adds, at URL.
	Mux *http.ServeMux
	URL string
	// Admin and Bob are two users who share nothing; their sessions and the
	// admin's password.
	Admin, Bob               model.User
	AdminSession, BobSession string
	AdminPassword            string
}

// Main runs a package's tests: func TestMain(m *testing.M) { cloudtest.Main(m) }.
func Main(m postgres.Tests) { postgres.Main(m) }

// Database is an empty database that ends with the test: a file or, when
// DECKHAND_TEST_DATABASE says "postgres", a database of a private PostgreSQL.
func Database(t testing.TB) model.Config {
	t.Helper()
	if !postgres.Wanted() {
		return model.Config{Path: filepath.Join(t.TempDir(), "cloud.db")}
	}
	return model.Config{Database: postgres.Database(t, func(url string) error {
		db, err := model.Open(context.Background(), model.Config{Database: url})
		if err != nil {
			return err
		}
		return db.Close()
	})}
}

// New starts the world; it ends with the test. A nil clock is the real one.
func New(t testing.TB, now func() time.Time) *World {
	t.Helper()
	w := &World{T: t, Mux: http.NewServeMux()}
	dir := t.TempDir()
	var err error
	cfg := Database(t)
	cfg.Now, cfg.RegistryHost = now, func() string { return "registry.test:5000" }
	w.Config = cfg
	w.DB, err = model.Open(t.Context(), cfg)
	w.must(err)
	t.Cleanup(func() { w.DB.Close() })
	w.Auth, err = auth.New(auth.Config{DB: w.DB, KeyDir: filepath.Join(dir, "keys"), PasswordMemory: 64, VPNKey: VPNKey})
	w.must(err)
	_, w.AdminPassword, err = w.Auth.FirstLogin(t.Context())
	w.must(err)
	w.Admin, err = w.DB.UserByName(t.Context(), "admin")
	w.must(err)
	w.Bob, err = w.DB.CreateUser(t.Context(), "bob", "x")
	w.must(err)
	w.AdminSession, err = w.Auth.NewSession(w.Admin)
	w.must(err)
	w.BobSession, err = w.Auth.NewSession(w.Bob)
	w.must(err)
	w.Auth.Routes(w.Mux)
	server := httptest.NewServer(w.Auth.Guard(w.Mux))
	t.Cleanup(server.Close)
	w.URL = server.URL
	return w
}

func (w *World) must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Fleet makes a fleet of the user.
func (w *World) Fleet(owner model.User, name string) model.Fleet {
	w.T.Helper()
	f, err := w.DB.CreateFleet(w.T.Context(), model.NewFleet{Name: name, DeviceType: "generic-amd64", User: owner.ID})
	w.must(err)
	return f
}

// Device registers a device; its uuid is the digit 32 times, its key "<digit>-device-key-000".
func (w *World) Device(f model.Fleet, digit string) (device model.Device, key string) {
	w.T.Helper()
	key = digit + "-device-key-000"
	d, err := w.DB.RegisterDevice(w.T.Context(), model.NewDevice{Fleet: f.ID, UUID: strings.Repeat(digit, 32), Name: "device-" + digit, DeviceType: "generic-amd64", Key: key})
	w.must(err)
	return d, key
}

// Key makes an API key.
func (w *World) Key(actor int64, role model.Role) string {
	w.T.Helper()
	key, err := w.Auth.NewKey(w.T.Context(), model.NewKey{Actor: actor, Role: role})
	w.must(err)
	return key
}

// Release builds a final release successfully: the composition must be a
// JSON object with services.
func (w *World) Release(f model.Fleet, commit, composition string) (model.Release, []model.Image) {
	w.T.Helper()
	ctx := w.T.Context()
	r := w.Building(f, commit, composition)
	images, err := w.DB.Images(ctx, r.ID)
	w.must(err)
	for _, i := range images {
		w.must(w.DB.FinishImage(ctx, i.ID, model.ImageResult{Status: model.StatusSuccess, ContentHash: "sha256:" + strings.Repeat("c", 64), PushedAt: time.Now(), Size: 42}))
	}
	r, err = w.DB.FinishRelease(ctx, r.ID, model.StatusSuccess, "")
	w.must(err)
	images, err = w.DB.Images(ctx, r.ID)
	w.must(err)
	return r, images
}

// Building makes a release whose images are still being built.
func (w *World) Building(f model.Fleet, commit, composition string) model.Release {
	w.T.Helper()
	ctx := w.T.Context()
	r, err := w.DB.CreateRelease(ctx, model.NewRelease{Fleet: f.ID, Commit: commit, Source: "cloud", Final: true, Composition: json.RawMessage(composition), User: w.Admin.ID})
	w.must(err)
	var doc struct{ Services map[string]any }
	w.must(json.Unmarshal([]byte(composition), &doc))
	for _, name := range slices.Sorted(maps.Keys(doc.Services)) {
		_, err := w.DB.AddImage(ctx, model.NewImage{Release: r.ID, Service: name, Labels: map[string]string{"of": name}, Environment: map[string]string{"A": "image", "B": "image"}})
		w.must(err)
	}
	return r
}

// Answer is what came back for a request.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do sends a request with a bearer credential ("" for none) and headers as
// name, value pairs.
func (w *World) Do(method, path, credential, body string, headers ...string) Answer {
	w.T.Helper()
	req, err := http.NewRequestWithContext(w.T.Context(), method, w.URL+path, strings.NewReader(body))
	w.must(err)
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	w.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.must(err)
	return Answer{res.StatusCode, res.Header, string(b)}
}

// Want sends a request like Do and fails the test on another status.
func (w *World) Want(status int, method, path, credential, body string, headers ...string) Answer {
	w.T.Helper()
	a := w.Do(method, path, credential, body, headers...)
	if a.Status != status {
		w.T.Fatalf("%s %s: got %d %s, want %d", method, path, a.Status, a.Body, status)
	}
	return a
}
