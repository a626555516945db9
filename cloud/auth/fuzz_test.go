package auth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"deckhand/cloud/auth"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// fuzzed is a cloud with one user, and a session and a key of it.
func fuzzed(f *testing.F) (a *auth.Auth, session, key string) {
	f.Helper()
	db, err := model.Open(f.Context(), cloudtest.Database(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	if a, err = auth.New(auth.Config{DB: db, KeyDir: filepath.Join(f.TempDir(), "keys"), PasswordMemory: 64,
		Limits: auth.Limits{WrongCredentials: auth.Rate{Burst: 1e12, PerSecond: 1e12}, UserWrites: auth.Rate{Burst: 1e12, PerSecond: 1e12}}}); err != nil {
		f.Fatal(err)
	}
	u, err := db.CreateUser(f.Context(), "eve", "x")
	if err != nil {
		f.Fatal(err)
	}
	if session, err = a.NewSession(u); err != nil {
		f.Fatal(err)
	}
	if key, err = a.NewKey(f.Context(), model.NewKey{Actor: u.Actor, Role: model.RoleUser}); err != nil {
		f.Fatal(err)
	}
	return a, session, key
}

// FuzzCredential: nobody is let in but with the whole session or key.
func FuzzCredential(f *testing.F) {
	a, session, key := fuzzed(f)
	for _, seed := range []string{"", "Bearer", "Bearer " + session, "bearer\t" + key, "Basic ZV9hOmI=", "Bearer a.b.c", "Bearer " + session + "A", "Bearer ..", "Basic =", "Bearer \x00"} {
		f.Add(seed, "apikey="+seed)
	}
	f.Fuzz(func(t *testing.T, header, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		r.Header.Set("Authorization", header)
		r.URL.RawQuery = query
		actor, err := a.Authenticate(r)
		if err == nil && !holds(header, query, session, key) {
			t.Errorf("%q, %q is %s", header, query, actor.Name)
		}
		if err != nil && (!errors.Is(err, auth.ErrUnauthenticated) || actor != (auth.Actor{})) {
			t.Errorf("%q, %q: %v %v", header, query, actor, err)
		}
	})
}

// holds says whether a request has one of the secrets in any form that is read.
func holds(header, query string, secrets ...string) bool {
	r := http.Request{Header: http.Header{"Authorization": {header}}, URL: &url.URL{RawQuery: query}}
	_, password, _ := r.BasicAuth()
	for _, secret := range secrets {
		if strings.Contains(header, secret) || password == secret || r.URL.Query().Get("apikey") == secret {
			return true
		}
	}
	return false
}

// FuzzScope: whatever a guest asks the registry's door for is answered, and
// grants nothing but what all may pull.
func FuzzScope(f *testing.F) {
	a, _, _ := fuzzed(f)
	mux := http.NewServeMux()
	a.Routes(mux)
	for _, seed := range []string{"scope=repository:v2/" + strings.Repeat("0", 32) + ":pull", "scope=repository:a/b/c:push&scope[1]=x", "scope=repository:a@sha256:b:pull", "scope=:::", "scope=repository::", "scope%5B0%5D=repository:eve/x:*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/auth/v1/token", http.NoBody)
		r.URL.RawQuery = query
		if r.URL.Query().Get("apikey") != "" {
			return
		}
		w := httptest.NewRecorder()
		a.Guard(mux).ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%q: %d %s", query, w.Code, w.Body)
		}
		_, lines := granted(t, w.Body.String())
		for _, line := range lines {
			if !strings.HasSuffix(line, " ") && !strings.HasPrefix(line, "resin/") {
				t.Errorf("%q grants %q", query, line)
			}
		}
	})
}

// FuzzStoredHash: a damaged hash opens nothing, and takes neither the machine
// nor its memory.
func FuzzStoredHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$"+strings.Repeat("A", 43), "x")
	f.Add("$argon2id$v=19$m=4294967295,t=4294967295,p=255$AAAA$AAAA", "x")
	f.Add("pbkdf2-sha256$1000$AAAA$"+strings.Repeat("A", 43), "")
	f.Add("pbkdf2-sha256$999999999$$", "")
	f.Add("pbkdf2-sha256$1$AAAA$", "")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$$", "")
	f.Fuzz(func(t *testing.T, stored, password string) {
		if auth.CheckPassword(stored, password) {
			t.Errorf("%q is a hash of %q", stored, password)
		}
	})
}

// FuzzKeyRequest: the bodies that ask for keys.
func FuzzKeyRequest(f *testing.F) {
	a, session, _ := fuzzed(f)
	mux := http.NewServeMux()
	a.Routes(mux)
	for _, seed := range []string{`{"actorType":"user","actorTypeId":1,"roles":["named-user-api-key"],"expiryDate":null}`, `{"expiryDate":{}}`, `[]`, `{"actorTypeId":1e99}`, `{"roles":[1]}`, "\"", `{"name":"\u0000","expiryDate":"2026-01-01T00:00:00Z"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api-key/v2", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+session)
		w := httptest.NewRecorder()
		a.Guard(mux).ServeHTTP(w, r)
		switch w.Code {
		case 200, 400, 401, 409:
		default:
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}
