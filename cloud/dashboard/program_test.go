package dashboard_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/dashboard"
	"deckhand/cloud/model"
)

// waiting is the page that balena's command line opens while it waits at a URL.
func waiting(callback string) string {
	return "/login/cli/" + strings.ReplaceAll(url.QueryEscape(callback), "%", "%25")
}

var (
	action = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
	token  = regexp.MustCompile(`name="token" value="([^"]*)"`)
)

func first(t *testing.T, rule *regexp.Regexp, page string) string {
	t.Helper()
	m := rule.FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("no %s in %s", rule, page)
	}
	return m[1]
}

// decoded is a path that is percent-encoded twice.
func decoded(t *testing.T, path string) string {
	t.Helper()
	for range 2 {
		var err error
		if path, err = url.PathUnescape(path); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// Who is not logged in logs in first; the token comes after the person agreed.
func TestAProgramIsLetIn(t *testing.T) {
	w := startPage(t)
	const callback = "http://127.0.0.1:8989/auth"
	page := waiting(callback)
	a := w.Want(200, "GET", page, "", "")
	if !strings.Contains(a.Body, `name="password"`) || !strings.Contains(a.Body, `name="callback" value="`+callback+`"`) {
		t.Error(a.Body)
	}
	fields := url.Values{"username": {"admin"}, "password": {"wrong"}, "callback": {callback}}
	if a = w.Want(401, "POST", "/login", "", fields.Encode(), "Content-Type", urlencoded); !strings.Contains(a.Body, `name="callback"`) {
		t.Errorf("after a wrong password: %s", a.Body)
	}
	fields.Set("password", w.AdminPassword)
	a = w.Want(303, "POST", "/login", "", fields.Encode(), "Content-Type", urlencoded)
	if got := a.Header.Get("Location"); decoded(t, got) != "/login/cli/"+callback {
		t.Errorf("the login leads to %s, want %s", got, page)
	}
	cookie, err := http.ParseSetCookie(a.Header.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	session := []string{"Cookie", cookie.Name + "=" + cookie.Value}
	a = w.Want(200, "GET", page, "", "", session...)
	if !strings.Contains(a.Body, "127.0.0.1:8989") || !strings.Contains(a.Body, "<b>admin</b>") || strings.Contains(a.Body, "token") {
		t.Errorf("the question: %s", a.Body)
	}
	if got := first(t, action, a.Body); decoded(t, got) != "/login/cli/"+callback {
		t.Errorf("the button leads to %s", got)
	}
	// No other site presses it, and no frame shows it.
	w.Want(403, "POST", page, "", "", append(session, "Sec-Fetch-Site", "cross-site")...)
	if policy := a.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "frame-ancestors 'none'") || !strings.Contains(policy, "form-action 'self'") {
		t.Error(policy)
	}
	a = w.Want(200, "POST", page, "", "", append(session, "Sec-Fetch-Site", "same-origin")...)
	if got := first(t, action, a.Body); got != callback {
		t.Errorf("the token goes to %s", got)
	}
	if policy := a.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "form-action http://127.0.0.1:8989;") || a.Header.Get("Cache-Control") != "no-store" {
		t.Error(a.Header)
	}
	given := first(t, token, a.Body)
	if got := w.Want(200, "GET", "/user/v1/whoami", given, "").Body; !strings.Contains(got, `"username":"admin"`) {
		t.Errorf("the token is of %s", got)
	}
}

// A session that is passed on is not fresher than the one it comes from: a password
// that was given long ago does not make keys.
func TestAProgramGetsNoFreshPassword(t *testing.T) {
	now := time.Now()
	w := cloudtest.New(t, func() time.Time { return now })
	page, err := dashboard.New(dashboard.Config{DB: w.DB, Auth: w.Auth})
	if err != nil {
		t.Fatal(err)
	}
	page.Routes(w.Mux)
	now = now.Add(time.Hour)
	a := w.Want(200, "POST", waiting("http://localhost:1234/auth"), "", "", "Cookie", "deckhand_session="+w.AdminSession)
	given := first(t, token, a.Body)
	w.Want(200, "GET", "/user/v1/whoami", given, "")
	w.Want(401, "POST", "/api-key/user/full", given, `{"name":"mine"}`)
}

func TestOnlyThisComputerIsAnswered(t *testing.T) {
	w := startPage(t)
	session := []string{"Cookie", "deckhand_session=" + w.AdminSession}
	for _, callback := range []string{
		"http://example.test:80/auth", "http://127.0.0.1.example.test:80/auth", "http://10.0.0.1:80/auth", "http://0.0.0.0:80/auth",
		"https://127.0.0.1:80/auth", "http://127.0.0.1/auth", "http://127.0.0.1:0/auth", "http://127.0.0.1:99999/auth", "http://[::1]:80/auth",
		"http://me@127.0.0.1:80/auth", "http://127.0.0.1:80@example.test/auth", "javascript:alert(1)", "//127.0.0.1:80/auth", "/auth", "",
		"http://127.0.0.1:80/auth?next=http://example.test", "http://127.0.0.1:80/auth#x", "http://127.0.0.1:80;script-src *", "http://localhost:80/%zz",
	} {
		for _, method := range []string{"GET", "POST"} {
			a := w.Want(400, method, waiting(callback), "", "", session...)
			if strings.Contains(a.Body, "token") || !strings.Contains(a.Body, "not one of this computer") {
				t.Errorf("%s %s: %s", method, callback, a.Body)
			}
		}
		// Nor does the login lead there.
		fields := url.Values{"username": {"admin"}, "password": {w.AdminPassword}, "callback": {callback}}
		if a := w.Want(303, "POST", "/login", "", fields.Encode(), "Content-Type", urlencoded); a.Header.Get("Location") != "/" {
			t.Errorf("the login leads to %s", a.Header.Get("Location"))
		}
	}
	// Neither a key nor another header opens the page.
	for name, headers := range map[string][]string{
		"a key": {"Cookie", "deckhand_session=" + w.Key(w.Admin.Actor, model.RoleUser)}, "a header": {"Authorization", "Bearer " + w.AdminSession},
	} {
		if a := w.Want(200, "POST", waiting("http://127.0.0.1:80/auth"), "", "", headers...); strings.Contains(a.Body, `name="token"`) {
			t.Errorf("%s lets a program in", name)
		}
	}
}
