package auth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"deckhand/cloud/auth"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// granted is what a registry token allows, one line for each scope.
func granted(t *testing.T, answered string) (subject string, lines []string) {
	t.Helper()
	var got struct {
		Token     string
		ExpiresIn int    `json:"expires_in"`
		IssuedAt  string `json:"issued_at"`
	}
	if err := json.Unmarshal([]byte(answered), &got); err != nil || got.ExpiresIn != 4*3600 || got.IssuedAt == "" {
		t.Fatalf("%s: %v", answered, err)
	}
	var claims struct {
		Access []auth.Access `json:"access"`
		jwt.RegisteredClaims
	}
	if _, _, err := jwt.NewParser().ParseUnverified(got.Token, &claims); err != nil {
		t.Fatal(err)
	}
	for _, a := range claims.Access {
		line := a.Name + " " + strings.Join(a.Actions, ",")
		if a.Alias != "" {
			line = a.Alias + " is " + line
		}
		lines = append(lines, line)
	}
	return claims.Subject, lines
}

func ask(t *testing.T, w *cloudtest.World, credential string, names ...string) []string {
	t.Helper()
	query := url.Values{"service": {"x"}, "account": {"y"}, "client_id": {"z"}}
	for _, name := range names {
		query.Add("scope", "repository:"+name+":pull,push")
	}
	_, lines := granted(t, w.Want(200, "GET", "/auth/v1/token?"+query.Encode(), credential, "").Body)
	return lines
}

const (
	single = `{"services":{"main":{}}}`
	double = `{"services":{"db":{},"web":{}}}`
)

func TestImagesByTheNameOfTheirFleet(t *testing.T) {
	w := cloudtest.New(t, nil)
	fleet, other := w.Fleet(w.Admin, "garden"), w.Fleet(w.Bob, "desert")
	_, key := w.Device(fleet, "a")
	old, first := w.Release(fleet, strings.Repeat("1", 40), single)
	_, second := w.Release(fleet, strings.Repeat("2", 40), single)
	w.Release(other, strings.Repeat("3", 40), double)
	target, before := model.Repository(second[0].Location), model.Repository(first[0].Location)

	for _, c := range []struct{ name, want string }{
		{"admin/garden", "admin/garden is " + target + " pull"},
		{"admin/garden/latest", "admin/garden/latest is " + target + " pull"},
		{"admin/garden/pinned", "admin/garden/pinned is " + target + " pull"},
		{"admin/garden/" + old.Commit, "admin/garden/" + old.Commit + " is " + before + " pull"},
		{"admin/garden/0.0.0", "admin/garden/0.0.0 is " + target + " pull"},
		{"admin/garden/9.9.9", "admin/garden/9.9.9 "},
		{"admin/garden/latest/main", "admin/garden/latest/main "},
		{"bob/desert", "bob/desert "},
		{"library/alpine", "library/alpine "},
		{"alpine", "alpine "},
		{"resin/resinos", "resin/resinos pull"},
		{"resin/armv7hf-supervisor", "resin/armv7hf-supervisor pull"},
		{target, target + " pull"},
		{target + "-1", target + "-1 pull"},
		{"x" + target, "x" + target + " "},
	} {
		if got := ask(t, w, key, c.name); !cmp.Equal(got, []string{c.want}) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	// Two services: which one would it be?
	if got := ask(t, w, w.BobSession, "bob/desert"); !cmp.Equal(got, []string{"bob/desert "}) {
		t.Errorf("a release of two services: %q", got)
	}
	if got := ask(t, w, w.BobSession, target, "admin/garden"); !cmp.Equal(got, []string{target + " ", "admin/garden "}) {
		t.Errorf("another user: %q", got)
	}
	if got := ask(t, w, "", target, "admin/garden"); !cmp.Equal(got, []string{target + " ", "admin/garden "}) {
		t.Errorf("a guest: %q", got)
	}
	provisioning := w.Key(fleet.Actor, model.RoleProvisioning)
	if got := ask(t, w, provisioning, target); !cmp.Equal(got, []string{target + " "}) {
		t.Errorf("a provisioning key: %q", got)
	}
}

func TestManyScopesAtOnce(t *testing.T) {
	w := cloudtest.New(t, nil)
	fleet := w.Fleet(w.Admin, "garden")
	_, images := w.Release(fleet, strings.Repeat("1", 40), double)
	var names, want []string
	for i := range 300 {
		name := model.Repository(images[i%2].Location)
		line := name + " pull,push"
		if i%3 == 0 {
			name = fmt.Sprintf("v2/%032x", i)
			line = name + " "
		}
		names, want = append(names, name), append(want, line)
	}
	if diff := cmp.Diff(want, ask(t, w, w.AdminSession, names...)); diff != "" {
		t.Error(diff)
	}
}

func TestTheBuildersSecretOpensEveryImage(t *testing.T) {
	w := cloudtest.New(t, nil)
	const secret = "a-secret-that-only-builders-know-1"
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := auth.New(auth.Config{DB: w.DB, KeyDir: dir, PasswordMemory: 64, BuilderSecret: "short"}); err == nil {
		t.Error("a short secret was taken")
	}
	builders, err := auth.New(auth.Config{DB: w.DB, KeyDir: dir, PasswordMemory: 64, BuilderSecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, w, builders)
	if got := ask(t, w, secret, "v2/"+strings.Repeat("0", 32), "a/b"); !cmp.Equal(got, []string{"v2/" + strings.Repeat("0", 32) + " pull,push", "a/b pull,push"}) {
		t.Errorf("the builder: %q", got)
	}
	w.Want(401, "GET", "/auth/v1/token", secret+"x", "")
	w.Want(401, "GET", "/actor/v1/whoami", secret, "")
}

// serve puts another Auth before the world's routes.
func serve(t *testing.T, w *cloudtest.World, a *auth.Auth) {
	t.Helper()
	mux := http.NewServeMux()
	a.Routes(mux)
	server := httptest.NewServer(a.Guard(mux))
	t.Cleanup(server.Close)
	w.URL = server.URL
}
