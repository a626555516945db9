package dashboard_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/dashboard"
	"deckhand/cloud/model"
)

func startPage(t *testing.T) *cloudtest.World {
	t.Helper()
	w := cloudtest.New(t, nil)
	page, err := dashboard.New(dashboard.Config{DB: w.DB, Auth: w.Auth, Secure: true})
	if err != nil {
		t.Fatal(err)
	}
	page.Routes(w.Mux)
	return w
}

func form(username, password string) string {
	return url.Values{"username": {username}, "password": {password}}.Encode()
}

const urlencoded = "application/x-www-form-urlencoded"

func TestLoginAndLogout(t *testing.T) {
	w := startPage(t)
	if a := w.Want(200, "GET", "/", "", ""); !strings.Contains(a.Body, `name="password"`) {
		t.Error(a.Body)
	}
	a := w.Want(401, "POST", "/login", "", form("admin", "wrong"), "Content-Type", urlencoded)
	if !strings.Contains(a.Body, "do not match") || !strings.Contains(a.Body, `value="admin"`) || a.Header.Get("Set-Cookie") != "" {
		t.Error(a.Body)
	}
	a = w.Want(303, "POST", "/login", "", form("admin", w.AdminPassword), "Content-Type", urlencoded)
	cookie, err := http.ParseSetCookie(a.Header.Get("Set-Cookie"))
	if err != nil || !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteStrictMode {
		t.Errorf("%+v %v", cookie, err)
	}
	w.Fleet(w.Admin, "greenhouse")
	w.Fleet(w.Bob, "cellar")
	a = w.Want(200, "GET", "/", "", "", "Cookie", cookie.Name+"="+cookie.Value)
	if !strings.Contains(a.Body, "greenhouse") || strings.Contains(a.Body, "cellar") {
		t.Error(a.Body)
	}
	if policy := a.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Error(policy)
	}
	a = w.Want(303, "POST", "/logout", "", "", "Cookie", cookie.Name+"="+cookie.Value)
	if cookie, err = http.ParseSetCookie(a.Header.Get("Set-Cookie")); err != nil || cookie.MaxAge >= 0 || cookie.Value != "" {
		t.Errorf("%+v %v", cookie, err)
	}
}

func TestOnlyASessionOpensThePage(t *testing.T) {
	w := startPage(t)
	f := w.Fleet(w.Admin, "greenhouse")
	_, deviceKey := w.Device(f, "a")
	for name, headers := range map[string][]string{
		"junk cookie":   {"Cookie", "deckhand_session=junk"},
		"device key":    {"Cookie", "deckhand_session=" + deviceKey},
		"bearer header": {"Authorization", "Bearer " + w.AdminSession},
	} {
		if a := w.Want(200, "GET", "/", "", "", headers...); strings.Contains(a.Body, "greenhouse") {
			t.Errorf("%s opened the page", name)
		}
		w.Want(401, "GET", "/live", "", "", headers...)
	}
	// Another site must not log a visitor in or out.
	w.Want(403, "POST", "/login", "", form("admin", w.AdminPassword), "Content-Type", urlencoded, "Sec-Fetch-Site", "cross-site")
	w.Want(403, "POST", "/logout", "", "", "Sec-Fetch-Site", "cross-site")
}

func TestThePageEscapesWhatDevicesSay(t *testing.T) {
	w := startPage(t)
	f := w.Fleet(w.Admin, "greenhouse")
	if _, err := w.DB.RegisterDevice(t.Context(), model.NewDevice{Fleet: f.ID, DeviceType: "generic-amd64", Name: `<script>alert(1)</script>`, Key: "a-device-key-0123"}); err != nil {
		t.Fatal(err)
	}
	a := w.Want(200, "GET", "/", "", "", "Cookie", "deckhand_session="+w.AdminSession)
	if strings.Contains(a.Body, "<script>alert") || !strings.Contains(a.Body, "&lt;script&gt;alert") {
		t.Error(a.Body)
	}
}

func TestPageFiles(t *testing.T) {
	w := startPage(t)
	for _, name := range []string{"page.css", "live.js", "deliver.js", "icon.svg"} {
		a := w.Want(200, "GET", "/static/"+name, "", "")
		w.Want(304, "GET", "/static/"+name, "", "", "If-None-Match", a.Header.Get("ETag"))
		if strings.Contains(a.Body, "://") && name != "icon.svg" {
			t.Errorf("%s loads something from elsewhere", name)
		}
	}
	w.Want(404, "GET", "/static/secret", "", "")
	w.Want(404, "GET", "/nothing", "", "")
}

func TestLiveStreamSendsChanges(t *testing.T) {
	w := startPage(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", w.URL+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", "deckhand_session="+w.AdminSession)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	until := func(words string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), words) {
				return
			}
		}
		t.Fatalf("the stream ended before %q: %v", words, lines.Err())
	}
	until("No fleets yet")
	w.Fleet(w.Bob, "cellar")
	f := w.Fleet(w.Admin, "greenhouse")
	until(">greenhouse<")
	w.Device(f, "a")
	until(">device-a<")
	if _, err := w.Auth.ResetPassword(t.Context(), "admin"); err != nil {
		t.Fatal(err)
	}
	w.Device(f, "b")
	until("event: end")
}

// Who tries one made-up session after the other is told to stop.
func TestManyWrongSessionsAreRefused(t *testing.T) {
	w := startPage(t)
	for i := range 500 {
		a := w.Do("GET", "/", "", "", "Cookie", fmt.Sprintf("deckhand_session=made-up-%d", i))
		if a.Status == http.StatusTooManyRequests {
			if a.Header.Get("Retry-After") == "" || !strings.Contains(a.Body, "Too many attempts") {
				t.Errorf("%v %s", a.Header, a.Body)
			}
			return
		}
		if a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	t.Error("nothing was refused")
}
