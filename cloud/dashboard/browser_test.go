//go:build engine

package dashboard_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/dashboard"
	"deckhand/cloud/model"
)

// browser starts a headless browser of its own.
func browser(t *testing.T, options ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path := "/usr/bin/chromium"
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no browser: %v (apt-get install chromium)", err)
	}
	flags := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 960),
		chromedp.Headless, chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true), chromedp.Flag("no-first-run", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true),
	}, options...)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), flags...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(cancel)
	return ctx
}

func do(ctx context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func ask[T any](ctx context.Context, t *testing.T, script string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// within waits until the text of an element holds the words.
func within(ctx context.Context, t *testing.T, selector, words string) {
	t.Helper()
	script := fmt.Sprintf(`(document.querySelector(%q)?.innerText ?? "").replace(/\s+/g, " ")`, selector)
	deadline := time.Now().Add(20 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		// While a page is replaced by the next one there is nothing to ask.
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](script))
		if err == nil && strings.Contains(strings.ToLower(text), strings.ToLower(words)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s shows %q (%v), want %q in it", selector, text, err, words)
		}
		<-again.C
	}
}

func picture(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.ArtifactDir(), name)
	if err := os.WriteFile(path, png, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("picture: %s", path)
}

const composition = `{"services":{"web":{},"database":{},"worker":{}}}`

func serve(t *testing.T) *cloudtest.World {
	t.Helper()
	return serveAt(t, nil)
}

// serveAt serves the page with a clock of its own.
func serveAt(t *testing.T, now func() time.Time) *cloudtest.World {
	t.Helper()
	w := cloudtest.New(t, now)
	page, err := dashboard.New(dashboard.Config{DB: w.DB, Auth: w.Auth})
	if err != nil {
		t.Fatal(err)
	}
	page.Routes(w.Mux)
	return w
}

func login(ctx context.Context, t *testing.T, w *cloudtest.World) {
	t.Helper()
	do(ctx, t, chromedp.Navigate(w.URL),
		chromedp.WaitVisible(`input[name=username]`),
		chromedp.SendKeys(`input[name=username]`, "admin"),
		chromedp.SendKeys(`input[name=password]`, w.AdminPassword),
		chromedp.Submit(`form`))
	within(ctx, t, "#link", "live")
}

func report(t *testing.T, w *cloudtest.World, f model.Fleet, d model.Device, running, updateStatus string, services ...model.ReportedService) {
	t.Helper()
	if err := w.DB.ApplyReport(t.Context(), d.ID, model.Report{HasApps: true, Apps: []model.ReportedApp{{UUID: f.UUID, Running: running,
		Releases: []model.ReportedRelease{{Commit: "abc1234def", UpdateStatus: updateStatus, Services: services}}}}}); err != nil {
		t.Fatal(err)
	}
}

func TestThePageChangesWithoutReload(t *testing.T) {
	var ahead atomic.Int64 // how far the cloud's clock is ahead of the real one
	w := serveAt(t, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	ctx := browser(t)
	login(ctx, t, w)
	within(ctx, t, "#content", "No fleets yet")
	// A mark that a reload would wipe out.
	ask[bool](ctx, t, `window.sameDocument = true`)

	f := w.Fleet(w.Admin, "greenhouse")
	within(ctx, t, "#fleet-1", "greenhouse")
	within(ctx, t, "#fleet-1", "No devices yet")
	d, _ := w.Device(f, "a")
	second, _ := w.Device(f, "b")
	third, _ := w.Device(f, "c")
	within(ctx, t, "#device-1", "never seen")
	within(ctx, t, "#device-1", "Waits for the first release")
	_, images := w.Release(f, "abc1234def", composition)
	within(ctx, t, "#fleet-1-head", "0.0.0 abc1234")
	within(ctx, t, "#device-1", "installing")

	now := w.DB.Now()
	for id, state := range map[int64]string{d.ID: "online", second.ID: "online", third.ID: "offline"} {
		if err := w.DB.SetHeartbeat(t.Context(), id, state, now); err != nil {
			t.Fatal(err)
		}
	}
	service := func(i int, status string, progress *int64) model.ReportedService {
		return model.ReportedService{Name: images[i].Service, Image: images[i].Location, Status: status, Progress: progress}
	}
	for _, device := range []model.Device{second, third} {
		report(t, w, f, device, "abc1234def", "done", service(0, "Running", nil), service(1, "Running", nil), service(2, "exited", nil))
	}
	report(t, w, f, d, "", "downloading", service(0, "Running", nil), service(1, "Downloading", new(int64(42))), service(2, "Starting", nil))
	within(ctx, t, "#device-1", "online")
	within(ctx, t, "#device-1", "downloading 42 %")
	within(ctx, t, "#device-1", "starting")
	within(ctx, t, "#device-3", "offline")
	ahead.Store(int64(time.Minute)) // progress alone is not written at every report
	report(t, w, f, d, "", "downloading", service(0, "Running", nil), service(1, "Downloading", new(int64(77))), service(2, "Starting", nil))
	within(ctx, t, "#device-1", "downloading 77 %")

	building := w.Building(f, "feedbeef01", composition)
	parts, err := w.DB.Images(t.Context(), building.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DB.FinishImage(t.Context(), parts[0].ID, model.ImageResult{Status: model.StatusSuccess, ContentHash: "sha256:" + strings.Repeat("a", 64), PushedAt: now}); err != nil {
		t.Fatal(err)
	}
	w.Fleet(w.Admin, "weather-stations")
	within(ctx, t, "#fleet-1-head", "0.0.0+rev1 feedbee building 1 of 3 images")
	within(ctx, t, "#content", "weather-stations")
	picture(ctx, t, "page.png")

	if !ask[bool](ctx, t, `window.sameDocument === true`) {
		t.Error("the page was loaded again")
	}
	report(t, w, f, d, "abc1234def", "done", service(0, "Running", nil), service(1, "Running", nil), service(2, "Running", nil))
	within(ctx, t, "#device-1", "up to date")

	// A new password ends the session, and the page with it.
	if _, err := w.Auth.ResetPassword(t.Context(), "admin"); err != nil {
		t.Fatal(err)
	}
	w.Fleet(w.Admin, "third-fleet")
	within(ctx, t, "form", "password")
}

func TestThePageInTheDarkAndOnAPhone(t *testing.T) {
	w := serve(t)
	f := w.Fleet(w.Admin, "greenhouse")
	d, _ := w.Device(f, "a")
	_, images := w.Release(f, "abc1234def", composition)
	if err := w.DB.SetHeartbeat(t.Context(), d.ID, "online", w.DB.Now()); err != nil {
		t.Fatal(err)
	}
	report(t, w, f, d, "", "downloading",
		model.ReportedService{Image: images[0].Location, Status: "Running"},
		model.ReportedService{Image: images[1].Location, Status: "Downloading", Progress: new(int64(42))})
	ctx := browser(t, chromedp.Flag("blink-settings", "preferredColorScheme=0"), chromedp.WindowSize(390, 800))
	do(ctx, t, chromedp.Navigate(w.URL), chromedp.WaitVisible(`form`))
	picture(ctx, t, "login-dark.png")
	login(ctx, t, w)
	within(ctx, t, "#device-1", "downloading")
	if ask[bool](ctx, t, `document.documentElement.scrollWidth > window.innerWidth`) {
		t.Error("the page is wider than the phone")
	}
	picture(ctx, t, "page-dark-phone.png")
}

// The page that balena's command line opens: the person logs in and agrees, and the
// browser brings the token to the program on the same computer.
func TestAProgramIsLetInByTheBrowser(t *testing.T) {
	w := serve(t)
	tokens := make(chan string, 1)
	program := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/auth" {
			tokens <- r.PostFormValue("token")
		}
		_, _ = rw.Write([]byte("<body>thank you</body>"))
	}))
	defer program.Close()
	ctx := browser(t)
	do(ctx, t, chromedp.Navigate(w.URL+waiting(program.URL+"/auth")),
		chromedp.WaitVisible(`input[name=username]`),
		chromedp.SendKeys(`input[name=username]`, "admin"),
		chromedp.SendKeys(`input[name=password]`, w.AdminPassword),
		chromedp.Submit(`form`))
	within(ctx, t, "form", "asks to act as admin")
	within(ctx, t, "form", strings.TrimPrefix(program.URL, "http://"))
	picture(ctx, t, "program.png")
	select {
	case <-tokens:
		t.Fatal("the program was let in before anybody agreed")
	default:
	}
	do(ctx, t, chromedp.Click(`form button`))
	within(ctx, t, "body", "thank you")
	if who := w.Want(200, "GET", "/user/v1/whoami", <-tokens, "").Body; !strings.Contains(who, `"admin"`) {
		t.Errorf("the token is of %s", who)
	}
}
