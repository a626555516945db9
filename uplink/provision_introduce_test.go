package uplink

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/config"
)

// wish is an Introduction in memory.
type wish struct {
	fleet   int64
	commit  string
	present bool
	told    string
}

func (w *wish) Pin() (int64, string, bool, error) { return w.fleet, w.commit, w.present, nil }
func (w *wish) DropPin() error                    { w.present = false; return nil }
func (w *wish) Told() (string, error)             { return w.told, nil }
func (w *wish) KeepTold(place string) error       { w.told = place; return nil }

// answers are those of a cloud to "METHOD path", one after the other; the last
// one stays.
type answers map[string][]string

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	name := r.Method + " " + r.URL.Path
	all, ok := a[name]
	w := httptest.NewRecorder()
	if !ok {
		return nil, fmt.Errorf("nobody expected %s", name)
	}
	if len(all) > 1 {
		a[name] = all[1:]
	}
	code, body, _ := strings.Cut(all[0], " ")
	var n int
	_, _ = fmt.Sscan(code, &n)
	w.WriteHeader(n)
	_, _ = io.WriteString(w, body)
	return w.Result(), nil
}

const (
	askDevice  = "GET /v7/device"
	askRelease = "GET /v7/release"
	askState   = "GET /device/v3/" + testUUID + "/state"
	setDevice  = "PATCH /v7/device(5)"
	addSetting = "POST /v7/device_config_variable"
	isKnown    = `200 {"d":[{"id":5}]}`
	noRows     = `200 {"d":[]}`
)

// introduced tells a cloud what came with the device, and gives the story.
func introduced(t *testing.T, cloud answers, w *wish, name string, settings map[string]string) []string {
	t.Helper()
	var story []string
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		note := func(what string, err error) {
			text := err.Error()
			if len(text) > 60 {
				text = text[len(text)-60:]
			}
			story = append(story, fmt.Sprintf("%v %s …%s", time.Since(started), what, text))
		}
		file := &paperFile{config.Values{
			APIEndpoint: "https://cloud.test", UUID: testUUID, DeviceAPIKey: "own", DeviceID: 5, RegisteredAt: 1, DeviceName: name,
			BootstrapRetryDelay: 30 * time.Second,
		}}
		client, err := New(Config{Endpoint: "https://cloud.test", UUID: testUUID, Key: func() string { return "own" }, Transport: cloud})
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		err = Introduce(ctx, IntroduceConfig{
			Client: client, File: file.open(), Memory: w, Settings: func() map[string]string { return settings },
			OnError:  func(err error, _ time.Duration) { note("error", err) },
			OnNotice: func(err error) { note("given up", err) },
		})
		if err != nil {
			story = append(story, "never ends")
		}
	})
	return story
}

func TestPinningAPreloadedDevice(t *testing.T) {
	for name, c := range map[string]struct {
		pin     wish
		cloud   answers
		problem string // "": none
		pinned  bool   // the wish is fulfilled or given up
	}{
		"pinned":                    {wish{fleet: 7, commit: "c"}, answers{askRelease: {isKnown}, setDevice: {"200 OK"}}, "", true},
		"the release was deleted":   {wish{fleet: 7, commit: "c"}, answers{askRelease: {noRows}}, "given up", true},
		"no commit":                 {wish{fleet: 7}, answers{}, "given up", true},
		"no fleet":                  {wish{commit: "c"}, answers{}, "given up", true},
		"another fleet's":           {wish{fleet: 7, commit: "c"}, answers{askRelease: {isKnown}, setDevice: {"400 no"}, askDevice: {isKnown}}, "given up", true},
		"a cloud without pins":      {wish{fleet: 7, commit: "c"}, answers{askRelease: {"401 "}, askDevice: {isKnown}}, "given up", true},
		"a cloud without rows":      {wish{fleet: 7, commit: "c"}, answers{askRelease: {"404 "}, askDevice: {"404 "}, askState: {`200 {"` + testUUID + `":{}}`}}, "given up", true},
		"an outage":                 {wish{fleet: 7, commit: "c"}, answers{askRelease: {"500 ", "503 ", isKnown}, setDevice: {"502 ", "200 OK"}}, "error", true},
		"an outage that never ends": {wish{fleet: 7, commit: "c"}, answers{askRelease: {"500 "}}, "never ends", false},
		"a portal in between":       {wish{fleet: 7, commit: "c"}, answers{askRelease: {"404 <html>"}, askDevice: {"404 <html>"}}, "never ends", false},
		"the device is not known":   {wish{fleet: 7, commit: "c"}, answers{askRelease: {"401 "}, askDevice: {noRows}}, "never ends", false},
		"a page in place of rows":   {wish{fleet: 7, commit: "c"}, answers{askRelease: {"200 <html>", isKnown}, setDevice: {"200 "}}, "error", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.pin
			w.present = true
			story := introduced(t, c.cloud, &w, "", nil)
			if w.present == c.pinned {
				t.Errorf("the wish is left: %v", w.present)
			}
			if text := strings.Join(story, "\n"); (c.problem == "") != (text == "") || !strings.Contains(text, c.problem) {
				t.Errorf("story %q, want %q", text, c.problem)
			}
			if c.pinned && w.told == "" {
				t.Error("the rest was not told")
			}
		})
	}
}

func TestTheInitialConfiguration(t *testing.T) {
	const target = `200 {"` + testUUID + `":{"name":"x","config":{"BALENA_SUPERVISOR_A":"0"},"apps":{}}}`
	mine := map[string]string{"SUPERVISOR_A": "1", "SUPERVISOR_B": "2"}
	for name, c := range map[string]struct {
		cloud    answers
		name     string
		settings map[string]string
		told     bool
		want     []string // parts of the story
	}{
		"nothing to tell":             {answers{}, "", nil, true, nil},
		"what the cloud lacks":        {answers{askState: {target}, addSetting: {"201 {}"}}, "", mine, true, nil},
		"a name":                      {answers{setDevice: {"200 OK"}}, "porch", nil, true, nil},
		"it is there by now":          {answers{askState: {target}, addSetting: {"409 "}}, "", mine, true, nil},
		"the cloud refuses":           {answers{askState: {target}, addSetting: {"401 "}, setDevice: {"400 "}, askDevice: {isKnown}}, "porch", mine, true, []string{"given up", "given up"}},
		"a cloud without rows":        {answers{askState: {target}, addSetting: {"404 "}, setDevice: {"404 "}, askDevice: {"404 "}}, "porch", mine, true, []string{"given up", "given up"}},
		"an outage in the middle":     {answers{askState: {"503 ", target}, addSetting: {"500 ", "201 {}"}, setDevice: {"500 ", "200 "}}, "porch", mine, true, []string{"0s error", "30s error", "1m0s error"}},
		"a deleted device":            {answers{askState: {"304 "}}, "", mine, false, []string{"0s error", "30s error", "1m0s error", "1m30s error", "never ends"}},
		"the answer is about another": {answers{askState: {`200 {"u":{}}`}}, "", mine, false, []string{"0s error", "30s error", "1m0s error", "1m30s error", "never ends"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wish{}
			story := introduced(t, c.cloud, w, c.name, c.settings)
			if (w.told == "https://cloud.test "+testUUID) != c.told {
				t.Errorf("told %q", w.told)
			}
			if len(story) != len(c.want) {
				t.Fatalf("story %q, want %q", story, c.want)
			}
			for i := range story {
				if !strings.Contains(story[i], c.want[i]) {
					t.Errorf("story %q, want %q", story, c.want)
				}
			}
		})
	}
}

// What a cloud was told once it is not told again; another cloud, or another
// device in it, is.
func TestTheIntroductionIsMadeOnce(t *testing.T) {
	for told, again := range map[string]bool{
		"https://cloud.test " + testUUID: false, "https://other.test " + testUUID: true, "https://cloud.test other": true, "": true,
	} {
		cloud := answers{setDevice: {"200 "}}
		if !again {
			cloud = answers{} // nobody may be asked
		}
		w := &wish{told: told}
		if d := cmp.Diff([]string(nil), introduced(t, cloud, w, "porch", nil)); d != "" {
			t.Errorf("told %q: %s", told, d)
		}
	}
}
