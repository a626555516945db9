package auth_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"deckhand/cloud/auth"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

type world struct {
	t        *testing.T
	db       *model.DB
	auth     *auth.Auth
	url      string
	dir      string
	now      time.Time
	password string
	database model.Config
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: time.Now()}
	var err error
	w.database = cloudtest.Database(t)
	w.database.Now = func() time.Time { return w.now }
	if w.db, err = model.Open(t.Context(), w.database); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	w.auth = w.newAuth()
	if _, w.password, err = w.auth.FirstLogin(t.Context()); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	w.auth.Routes(mux)
	server := httptest.NewServer(w.auth.Guard(mux))
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *world) newAuth() *auth.Auth {
	w.t.Helper()
	a, err := auth.New(auth.Config{DB: w.db, KeyDir: filepath.Join(w.dir, "keys"), PasswordMemory: 64})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// do sends a request; credential is a bearer token, or "user:password" for Basic.
func (w *world) do(method, path, credential, body string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if user, password, ok := strings.Cut(credential, ":"); ok {
		req.SetBasicAuth(user, password)
	} else if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (w *world) want(status int, method, path, credential, body string) string {
	w.t.Helper()
	got, answered := w.do(method, path, credential, body)
	if got != status {
		w.t.Fatalf("%s %s: got %d %s, want %d", method, path, got, answered, status)
	}
	return answered
}

func (w *world) login() string {
	w.t.Helper()
	return w.want(200, "POST", "/login_", "", `{"username":"admin","password":"`+w.password+`"}`)
}

func (w *world) fleet(name string, owner int64) model.Fleet {
	w.t.Helper()
	f, err := w.db.CreateFleet(w.t.Context(), model.NewFleet{Name: name, DeviceType: "generic-amd64", User: owner})
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) device(f model.Fleet, key string) model.Device {
	w.t.Helper()
	d, err := w.db.RegisterDevice(w.t.Context(), model.NewDevice{Fleet: f.ID, DeviceType: "generic-amd64", Key: key})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// image is the repository of the one image of a new successful release.
func (w *world) image(f model.Fleet) string {
	w.t.Helper()
	ctx := w.t.Context()
	r, err := w.db.CreateRelease(ctx, model.NewRelease{Fleet: f.ID, Commit: "abc", Source: "cloud", Composition: json.RawMessage(`{}`), Final: true})
	if err != nil {
		w.t.Fatal(err)
	}
	i, err := w.db.AddImage(ctx, model.NewImage{Release: r.ID, Service: "web"})
	if err != nil {
		w.t.Fatal(err)
	}
	return model.Repository(i.Location)
}

func TestFirstLoginIsGivenOnce(t *testing.T) {
	w := start(t)
	if len(w.password) < 16 {
		t.Errorf("password %q is short", w.password)
	}
	if _, again, err := w.auth.FirstLogin(t.Context()); err != nil || again != "" {
		t.Errorf("second start gave a password: %q %v", again, err)
	}
	token := w.login()
	who := w.want(200, "GET", "/user/v1/whoami", token, "")
	if who != `{"id":1,"username":"admin","email":""}` {
		t.Error(who)
	}
	var claims jwt.MapClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil || claims["id"] != 1.0 || claims["authTime"] == nil || claims["exp"] == nil {
		t.Errorf("clients read id, authTime, iat and exp without verifying: %v %v", claims, err)
	}
}

func TestSessionsSurviveARestartAndEndWithThePassword(t *testing.T) {
	w := start(t)
	token := w.login()
	if actor, err := w.newAuth().Identify(t.Context(), token); err != nil || actor.Name != "admin" {
		t.Errorf("after a restart: %v %v", actor, err)
	}
	password, err := w.auth.ResetPassword(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	w.want(401, "GET", "/user/v1/whoami", token, "")
	w.want(401, "POST", "/login_", "", `{"username":"admin","password":"`+w.password+`"}`)
	w.password = password
	token = w.login()
	w.now = w.now.Add(8 * 24 * time.Hour)
	w.want(401, "GET", "/user/v1/whoami", token, "")
}

func TestForgedSessionsAreRefused(t *testing.T) {
	w := start(t)
	u, err := w.db.UserByName(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{"id": u.ID, "jwt_secret": u.JWTSecret, "exp": time.Now().Add(time.Hour).Unix()}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	other, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(strings.Repeat("k", 48)))
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{unsigned, other, "a.b.c", "..", strings.Repeat("x", 5000)} {
		w.want(401, "GET", "/actor/v1/whoami", token, "")
	}
}

func TestLoginInput(t *testing.T) {
	w := start(t)
	w.want(401, "POST", "/login_", "", `{"username":"admin"}`)
	w.want(401, "POST", "/login_", "", `{"username":"nobody","password":"x"}`)
	if got := w.want(400, "POST", "/login_", "", `{"username":7}`); got != `"username: got a JSON number, want a string."` {
		t.Error(got)
	}
	if got := w.want(400, "POST", "/login_", "", `{"user`); !strings.Contains(got, "not valid JSON") {
		t.Error(got)
	}
}

func TestGuessingPasswordsIsSlowedDown(t *testing.T) {
	w := start(t)
	for range 10 {
		w.want(401, "POST", "/login_", "", `{"username":"admin","password":"guess"}`)
	}
	good := `{"username":"admin","password":"` + w.password + `"}`
	w.want(429, "POST", "/login_", "", good)
	w.now = w.now.Add(61 * time.Minute)
	w.want(200, "POST", "/login_", "", good)
}

func TestGuessingNamesIsSlowedDown(t *testing.T) {
	w := start(t)
	for i := range 100 {
		w.want(401, "POST", "/login_", "", fmt.Sprintf(`{"username":"name%d","password":"guess"}`, i))
	}
	w.want(429, "POST", "/login_", "", `{"username":"name99","password":"guess"}`)
}

func TestKeysAndWhatTheyMayDo(t *testing.T) {
	w := start(t)
	session := w.login()
	mine := w.fleet("mine", 1)
	device := w.device(mine, "devicekeydevicekeydevicekey12345")
	var key string
	unquote := func(s string) string {
		t.Helper()
		if err := json.Unmarshal([]byte(s), &key); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return key
	}
	userKey := unquote(w.want(200, "POST", "/api-key/user/full", session, `{"name":"ci"}`))
	if len(userKey) != 32 {
		t.Errorf("key %q", userKey)
	}
	w.want(400, "POST", "/api-key/user/full", session, `{}`)
	w.want(401, "POST", "/api-key/user/full", userKey, `{"name":"more"}`)
	w.want(401, "POST", "/api-key/user/full", "", `{"name":"more"}`)
	if got := w.want(400, "POST", "/api-key/user/full", session, `{"name":"x","expiryDate":"soon"}`); !strings.Contains(got, "valid date") {
		t.Error(got)
	}
	if got := w.want(200, "GET", "/actor/v1/whoami?apikey="+userKey, "", ""); !strings.Contains(got, `"actorType":"user","actorTypeId":1,"username":"admin"`) {
		t.Error(got)
	}

	provisioning := unquote(w.want(200, "POST", "/api-key/application/1/provisioning", userKey, ""))
	if got := w.want(200, "GET", "/actor/v1/whoami", provisioning, ""); !strings.Contains(got, `"actorType":"application"`) {
		t.Error(got)
	}
	w.want(401, "POST", "/api-key/application/99/provisioning", userKey, "")
	w.want(400, "POST", "/api-key/application/x/provisioning", userKey, "")
	w.want(401, "POST", "/api-key/application/1/provisioning", provisioning, "")

	chosen := unquote(w.want(200, "POST", "/api-key/device/1/device-key", session, `{"apiKey":"chosenchosenchosen"}`))
	if got := w.want(200, "GET", "/actor/v1/whoami", chosen, ""); chosen != "chosenchosenchosen" || !strings.Contains(got, device.UUID) {
		t.Error(chosen, got)
	}
	w.want(409, "POST", "/api-key/device/1/device-key", session, `{"apiKey":"chosenchosenchosen"}`)
	w.want(400, "POST", "/api-key/device/1/device-key", session, `{"apiKey":"short"}`)
	w.want(401, "POST", "/api-key/device/1/device-key", provisioning, "")
	w.want(200, "POST", "/api-key/device/1/device-key", chosen, "")
	other := w.device(mine, "otherkeyotherkeyotherkey")
	if other.ID != 2 {
		t.Fatal(other)
	}
	w.want(401, "POST", "/api-key/device/2/device-key", chosen, "")
	w.want(401, "POST", "/api-key/device/77/device-key", session, "")
}

func TestRegistryTokens(t *testing.T) {
	w := start(t)
	bob, err := w.db.CreateUser(t.Context(), "bob", "x")
	if err != nil {
		t.Fatal(err)
	}
	mine, his := w.fleet("mine", 1), w.fleet("his1", bob.ID)
	device := w.device(mine, "devicekeydevicekey")
	my, his1 := w.image(mine), w.image(his)
	ask := func(credential string, scopes ...string) []auth.Access {
		t.Helper()
		query := url.Values{"service": {"x"}, "scope": scopes}
		var got struct{ Token string }
		if err := json.Unmarshal([]byte(w.want(200, "GET", "/auth/v1/token?"+query.Encode(), credential, "")), &got); err != nil {
			t.Fatal(err)
		}
		var claims struct {
			Access []auth.Access `json:"access"`
			jwt.RegisteredClaims
		}
		token, err := jwt.ParseWithClaims(got.Token, &claims, func(*jwt.Token) (any, error) { return w.auth.RegistryPublicKey(), nil },
			jwt.WithAudience(w.auth.RegistryService()), jwt.WithIssuer(w.auth.RegistryIssuer()), jwt.WithValidMethods([]string{"ES256"}))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(w.auth.RegistryJWKS()), token.Header["kid"].(string)) {
			t.Errorf("kid %v is not in the key set", token.Header["kid"])
		}
		return claims.Access
	}
	none, pull, both := []string{}, []string{"pull"}, []string{"pull", "push"}
	grant := func(name string, actions []string) auth.Access {
		return auth.Access{Type: "repository", Name: name, Actions: actions}
	}
	session := w.login()
	deviceLogin := "d_" + device.UUID + ":devicekeydevicekey"
	for name, c := range map[string]struct {
		credential string
		scopes     []string
		want       []auth.Access
	}{
		"owner":                   {session, []string{"repository:" + my + ":pull,push"}, []auth.Access{grant(my, both)}},
		"owner, several":          {session, []string{"repository:" + my + ":pull repository:" + my + "-3:push"}, []auth.Access{grant(my, pull), grant(my+"-3", []string{"push"})}},
		"owner, foreign":          {session, []string{"repository:" + his1 + ":pull,push"}, []auth.Access{grant(his1, none)}},
		"device":                  {deviceLogin, []string{"repository:" + my + ":pull,push"}, []auth.Access{grant(my, pull)}},
		"device, digest":          {deviceLogin, []string{"repository:" + my + "@sha256:abc:pull"}, []auth.Access{grant(my, pull)}},
		"device, foreign":         {deviceLogin, []string{"repository:" + his1 + ":pull"}, []auth.Access{grant(his1, none)}},
		"guest":                   {"", []string{"repository:" + my + ":pull"}, []auth.Access{grant(my, none)}},
		"other names":             {session, []string{"repository:library/alpine:pull", "repository:x" + my + ":pull"}, []auth.Access{grant("library/alpine", none), grant("x"+my, none)}},
		"junk":                    {session, []string{"", "registry:catalog:*", "repository", "repository::pull"}, nil},
		"unknown actions dropped": {session, []string{"repository:" + my + ":pull,delete,*"}, []auth.Access{grant(my, pull)}},
	} {
		got := ask(c.credential, c.scopes...)
		if len(got) == 0 {
			got = nil
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	w.want(401, "GET", "/auth/v1/token", "d_"+device.UUID+":wrong", "")
	w.want(401, "GET", "/auth/v1/token", "d_"+strings.Repeat("0", 32)+":devicekeydevicekey", "")
	w.want(404, "POST", "/auth/v1/token", session, "")
	if got := w.want(200, "GET", "/auth/v1/token?scope[0]=repository:"+my+":pull&scope[1]=repository:"+my+":push", session, ""); !strings.Contains(got, "expires_in") {
		t.Error(got)
	}
}

func TestDamagedSigningKeyNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	db, err := model.Open(t.Context(), model.Config{Path: filepath.Join(dir, "cloud.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	keys := auth.Config{DB: db, KeyDir: filepath.Join(dir, "keys"), PasswordMemory: 64}
	if _, err := auth.New(keys); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "keys", "registry-token.key")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.New(keys); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v", err)
	}
}
