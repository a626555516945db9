package auth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// key is the key of an answer.
func (w *world) key(answered string) string {
	w.t.Helper()
	var key string
	if err := json.Unmarshal([]byte(answered), &key); err != nil || key == "" {
		w.t.Fatalf("%s is no key: %v", answered, err)
	}
	return key
}

func TestNamedKeys(t *testing.T) {
	w := start(t)
	session := w.login()
	fleet := w.fleet("mine", 1)
	device := w.device(fleet, "devicekeydevicekeydevicekey12345")
	body := func(kind string, id int64, role, rest string) string {
		return fmt.Sprintf(`{"actorType":%q,"actorTypeId":%d,"roles":[%q]%s}`, kind, id, role, rest)
	}
	const never = `,"expiryDate":null`

	for _, path := range []string{"/api-key/v2", "/api-key/v2/"} {
		key := w.key(w.want(200, "POST", path, session, body("application", fleet.ID, "provisioning-api-key", never)))
		if got := w.want(200, "GET", "/actor/v1/whoami", key, ""); !strings.Contains(got, `"actorType":"application","actorTypeId":1,"slug":"admin/mine"`) {
			t.Error(got)
		}
		w.want(401, "POST", path, key, body("application", fleet.ID, "provisioning-api-key", never))
		w.want(401, "POST", path, "", body("application", fleet.ID, "provisioning-api-key", never))
	}
	chosen := w.key(w.want(200, "POST", "/api-key/v2/", session, body("device", device.ID, "device-api-key", never+`,"apiKey":"chosenchosenchosen"`)))
	if got := w.want(200, "GET", "/actor/v1/whoami", chosen, ""); chosen != "chosenchosenchosen" || !strings.Contains(got, device.UUID) {
		t.Error(chosen, got)
	}
	mine := w.key(w.want(200, "POST", "/api-key/v2/", session, body("user", 1, "named-user-api-key", never+`,"apiKey":"chosenchosenchosen2","name":"ci"`)))
	if len(mine) != 32 {
		t.Errorf("a user chose the key %q", mine)
	}
	w.want(401, "POST", "/api-key/v2/", mine, body("user", 1, "named-user-api-key", never))
	w.want(200, "POST", "/api-key/v2/", mine, body("application", fleet.ID, "provisioning-api-key", never))

	const date = `"Key expiry date should be a valid date"`
	for name, c := range map[string]struct {
		body, text string
		status     int
	}{
		"no date":          {body("application", fleet.ID, "provisioning-api-key", ""), date, 400},
		"no date at all":   {body("application", fleet.ID, "provisioning-api-key", `,"expiryDate":"soon"`), date, 400},
		"a number as date": {body("application", fleet.ID, "provisioning-api-key", `,"expiryDate":12`), date, 400},
		"unknown role":     {body("application", fleet.ID, "king", never), `"A key of the actor type application has the role provisioning-api-key, not \"king\"."`, 400},
		"foreign role":     {body("device", device.ID, "named-user-api-key", never), `"A key of the actor type device has the role device-api-key, not \"named-user-api-key\"."`, 400},
		"no role":          {`{"actorType":"device","actorTypeId":1,"roles":[],"expiryDate":null}`, `"roles must name exactly one role."`, 400},
		"two roles":        {`{"actorType":"device","actorTypeId":1,"roles":["a","b"],"expiryDate":null}`, `"roles must name exactly one role."`, 400},
		"unknown actor":    {body("team", 1, "x", never), `"actorType must be application, device or user, not \"team\"."`, 400},
		"no fleet":         {body("application", 99, "provisioning-api-key", never), "", 401},
		"another user":     {body("user", 2, "named-user-api-key", never), "", 401},
		"weak key":         {body("device", device.ID, "device-api-key", never+`,"apiKey":"short"`), `"apiKey must be 16 to 256 of the characters [a-zA-Z0-9_-]."`, 400},
		"taken key":        {body("device", device.ID, "device-api-key", never+`,"apiKey":"chosenchosenchosen"`), `"\"key\" must be unique."`, 409},
	} {
		if status, got := w.do("POST", "/api-key/v2/", session, c.body); status != c.status || got != c.text {
			t.Errorf("%s: got %d %s, want %d %s", name, status, got, c.status, c.text)
		}
	}
	w.want(200, "POST", "/api-key/v1/", session, body("application", fleet.ID, "provisioning-api-key", ""))
}

func TestKeysExpire(t *testing.T) {
	w := start(t)
	session := w.login()
	w.fleet("mine", 1)
	expiry := w.now.Add(2 * time.Minute).UTC().Format(time.RFC3339Nano)
	key := w.key(w.want(200, "POST", "/api-key/application/1/provisioning", session, `{"expiryDate":"`+expiry+`"}`))
	w.want(200, "GET", "/actor/v1/whoami", key, "")
	w.now = w.now.Add(2*time.Minute + time.Second)
	w.want(401, "GET", "/actor/v1/whoami", key, "")
}

func TestOnlyAFreshSessionMakesKeysOfTheUser(t *testing.T) {
	w := start(t)
	session := w.login()
	w.now = w.now.Add(19 * time.Minute)
	refreshed := w.want(200, "GET", "/user/v1/refresh-token", session, "")
	w.want(200, "POST", "/api-key/user/full", refreshed, `{"name":"in time"}`)
	w.now = w.now.Add(2 * time.Minute)
	for name, token := range map[string]string{"session": session, "refreshed session": refreshed, "session refreshed late": w.want(200, "POST", "/user/v1/refresh-token", session, "")} {
		if status, _ := w.do("POST", "/api-key/user/full", token, `{"name":"late"}`); status != 401 {
			t.Errorf("%s: got %d", name, status)
		}
	}
	w.want(200, "POST", "/api-key/user/full", w.login(), `{"name":"again"}`)
}

func TestAKeyEndsAtOnce(t *testing.T) {
	w := start(t)
	session := w.login()
	w.want(200, "GET", "/actor/v1/whoami", session, "")
	if _, err := w.auth.ResetPassword(t.Context(), "admin"); err != nil {
		t.Fatal(err)
	}
	w.want(401, "GET", "/actor/v1/whoami", session, "")
}

// another is another server on the same database. SQLite allows only one: there
// it is another user of the same connection.
func (w *world) another() (*auth.Auth, *model.DB) {
	w.t.Helper()
	db := w.db
	if w.database.Database != "" {
		var err error
		if db, err = model.Open(w.t.Context(), w.database); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { db.Close() })
		w.dir = w.t.TempDir() // it has no files of the first one
	}
	a, err := auth.New(auth.Config{DB: db, KeyDir: filepath.Join(w.dir, "keys"), PasswordMemory: 64})
	if err != nil {
		w.t.Fatal(err)
	}
	return a, db
}

// ended waits until the server is told that the actor's credentials changed,
// which takes a moment and not the life of its cache, and then tries one.
func ended(t *testing.T, told *model.Watch, server *auth.Auth, credentials ...string) {
	t.Helper()
	select {
	case <-told.C():
	case <-time.After(30 * time.Second):
		t.Fatal("the other server was never told")
	}
	for _, credential := range credentials {
		if actor, err := server.Identify(t.Context(), credential); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("a credential of a deleted user is still %v: %v", actor, err)
		}
	}
}

func TestServersShareSessionsAndTheirEnd(t *testing.T) {
	w := start(t)
	eve, err := w.db.CreateUser(t.Context(), "eve", "x")
	if err != nil {
		t.Fatal(err)
	}
	key, err := w.auth.NewKey(t.Context(), model.NewKey{Actor: eve.Actor, Role: model.RoleUser})
	if err != nil {
		t.Fatal(err)
	}
	session, err := w.auth.NewSession(eve)
	if err != nil {
		t.Fatal(err)
	}
	other, shared := w.another()
	for _, credential := range []string{key, session} {
		for range 2 {
			w.want(200, "GET", "/user/v1/whoami", credential, "")
			if actor, err := other.Identify(t.Context(), credential); err != nil || actor.Name != "eve" {
				t.Fatal(actor, err)
			}
		}
	}
	if string(other.RegistryJWKS()) != string(w.auth.RegistryJWKS()) {
		t.Error("the servers sign registry tokens with different keys")
	}
	told := shared.Changes().Watch(model.CredentialTopics(eve.Actor)...)
	defer told.Stop()
	if err := w.db.DeleteUser(t.Context(), eve.ID); err != nil {
		t.Fatal(err)
	}
	w.want(401, "GET", "/user/v1/whoami", key, "")
	w.want(401, "GET", "/user/v1/whoami", session, "")
	ended(t, told, other, key, session)
}

func TestPasswordsOfOlderCloudsAreHashedAnew(t *testing.T) {
	w := start(t)
	u, err := w.db.CreateUser(t.Context(), "old", auth.OldHash(t, "correct horse", 1000))
	if err != nil {
		t.Fatal(err)
	}
	w.want(401, "POST", "/login_", "", `{"username":"old","password":"wrong"}`)
	session := w.want(200, "POST", "/login_", "", `{"username":"old","password":"correct horse"}`)
	after, err := w.db.UserByID(t.Context(), u.ID)
	if err != nil || !strings.HasPrefix(after.PasswordHash, "$argon2id$v=19$m=64,t=2,p=1$") {
		t.Errorf("the hash is %q: %v", after.PasswordHash, err)
	}
	w.want(200, "GET", "/user/v1/whoami", session, "")
	w.want(200, "POST", "/login_", "", `{"username":"old","password":"correct horse"}`)
}

func TestManyWrongKeysAreSlowedDown(t *testing.T) {
	w := start(t)
	good := w.login()
	w.want(200, "GET", "/actor/v1/whoami", good, "")
	fresh := w.login()
	limited := 0
	for i := range 300 {
		status, answered := w.do("GET", "/actor/v1/whoami", fmt.Sprintf("wrong-key-number-%d", i), "")
		switch {
		case status == 429 && strings.HasPrefix(answered, `"Too many attempts; try again in `):
			limited++
		case status != 401:
			t.Fatalf("a wrong key: %d %s", status, answered)
		}
	}
	if limited < 90 {
		t.Errorf("%d of 300 were refused, want about 100", limited)
	}
	w.want(200, "GET", "/actor/v1/whoami", good, "")
	w.now = w.now.Add(6 * time.Minute) // it is looked up again, and known
	w.want(200, "GET", "/actor/v1/whoami", good, "")
	w.want(200, "GET", "/actor/v1/whoami", fresh, "")
}

func TestWritesAreLimitedForEachActor(t *testing.T) {
	w := start(t)
	limited, err := auth.New(auth.Config{DB: w.db, KeyDir: w.dir + "/keys", PasswordMemory: 64, Limits: auth.Limits{
		DeviceWrites: auth.Rate{Burst: 3, PerSecond: 0.1},
	}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	server := httptest.NewServer(limited.Guard(mux))
	defer server.Close()
	w.url = server.URL
	fleet := w.fleet("mine", 1)
	w.device(fleet, "first-device-key-12345")
	w.device(fleet, "second-device-key-12345")
	for range 3 {
		w.want(418, "PATCH", "/device/v3/state", "first-device-key-12345", "{}")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, w.url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer first-device-key-12345")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if wait := res.Header.Get("Retry-After"); res.StatusCode != 429 || wait != "10" && wait != "11" {
		t.Errorf("the fourth write: %s, Retry-After %q", res.Status, wait)
	}
	w.want(418, "GET", "/", "first-device-key-12345", "")
	w.want(418, "PATCH", "/", "second-device-key-12345", "{}")
	w.now = w.now.Add(11 * time.Second)
	w.want(418, "PATCH", "/", "first-device-key-12345", "{}")
}

func TestWhoTheClientIsBehindProxies(t *testing.T) {
	w := start(t)
	proxied, err := auth.New(auth.Config{DB: w.db, KeyDir: w.dir + "/keys", PasswordMemory: 64,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ peer, header, want string }{
		{"10.0.0.1:99", "203.0.113.7", "203.0.113.7"},
		{"10.0.0.1:99", "6.6.6.6, 203.0.113.7", "203.0.113.7"},
		{"10.0.0.1:99", "203.0.113.7, 10.0.0.2", "203.0.113.7"},
		{"10.0.0.1:99", "junk", "10.0.0.1"},
		{"10.0.0.1:99", "", "10.0.0.1"},
		{"203.0.113.9:99", "6.6.6.6", "203.0.113.9"},
		{"[2001:db8::1]:99", "6.6.6.6", "2001:db8::1"},
	} {
		var got string
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody)
		r.RemoteAddr = c.peer
		r.Header.Set("X-Forwarded-For", c.header)
		proxied.Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = auth.ClientAddress(r) })).ServeHTTP(httptest.NewRecorder(), r)
		if got != c.want {
			t.Errorf("%s with %q is %s, want %s", c.peer, c.header, got, c.want)
		}
	}
}

// caller writes rows in the name of a user.
func caller(u model.User) access.Caller {
	return access.Caller{Role: access.User, ID: u.ID, Actor: u.Actor, Name: u.Username}
}

func row(id int64) model.Selection { return model.Selection{SQL: "t.id = ?", Args: []any{id}} }

func TestKeysEndWithWhatTheyAreFor(t *testing.T) {
	w := start(t)
	session := w.login()
	admin, err := w.db.UserByName(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	fleet := w.fleet("mine", admin.ID)
	device := w.device(fleet, "first-device-key-12345")
	w.device(fleet, "second-device-key-12345")
	provisioning := w.key(w.want(200, "POST", "/api-key/application/1/provisioning", session, ""))
	userKey := w.key(w.want(200, "POST", "/api-key/user/full", session, `{"name":"ci"}`))
	for _, key := range []string{session, provisioning, userKey, "first-device-key-12345", "second-device-key-12345"} {
		w.want(200, "GET", "/actor/v1/whoami", key, "")
	}
	drop := func(key, resource string, id int64) {
		t.Helper()
		if n, err := w.db.Delete(t.Context(), caller(admin), resource, row(id)); err != nil || n != 1 {
			t.Fatalf("delete %s: %d %v", resource, n, err)
		}
		w.want(401, "GET", "/actor/v1/whoami", key, "")
	}
	drop(userKey, "api_key", 4)
	drop("first-device-key-12345", "device", device.ID)
	w.want(200, "GET", "/actor/v1/whoami", "second-device-key-12345", "")
	drop(provisioning, "application", fleet.ID)
	w.want(401, "GET", "/actor/v1/whoami", "second-device-key-12345", "")
	w.want(200, "GET", "/actor/v1/whoami", session, "")
	if _, err := w.db.Update(t.Context(), caller(admin), "user", row(admin.ID), model.Values{"username": "boss"}); err != nil {
		t.Fatal(err)
	}
	w.want(401, "GET", "/actor/v1/whoami", session, "")
}
