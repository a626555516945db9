package target

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/compose"
	"deckhand/state"
)

const (
	preloadV3 = `{"config":{"RESIN_HOST_CONFIG_gpu_mem":"16"},"pinDevice":true,"apps":{
		"block":{"id":"1","name":"block","class":"block","releases":{"b1":{"id":2,"services":{"s":{"id":3,"image_id":4,"image":"registry.example/v2/b@sha256:2222222222222222222222222222222222222222222222222222222222222222","environment":{},"labels":{}}}}}},
		"fleet":{"id":5,"name":"shop","class":"fleet","releases":{"f1":{"id":6,"services":{
			"web":{"id":7,"image_id":8,"image":"registry.example/v2/a@sha256:1111111111111111111111111111111111111111111111111111111111111111","environment":{"A":"1"},"labels":{},"composition":{"restart":"no"}},
			"two":{"id":9,"image_id":9,"image":"registry.example/v2/a@sha256:1111111111111111111111111111111111111111111111111111111111111111","environment":{},"labels":{}}}}}},
		"other":{"id":11,"name":"x","releases":{"o1":{"id":12}}}}}`

	appV2 = `{"name":"shop","commit":"c1","releaseId":"8","networks":{"n":{}},"services":{
		"9":{"serviceName":"web","imageId":10,"image":"registry.example/web:1","running":false,"environment":{"A":"1"},"labels":{"l":"m"},
			"contract":null,"command":["run"],"networks":["n"],"restart":"no"},
		"11":{"serviceName":"db","imageId":"12","image":"db","volumes":["data:/data"]}},"volumes":{"data":{}}}`

	preloadV1 = ` [{"appId":"5","name":"old","commit":"abc","imageId":"registry.example/old","env":{"A":"1","N":2,"RESIN_X":"y","B":null},
		"config":{"RESIN_HOST_CONFIG_gpu_mem":"16","RESIN_SUPERVISOR_UPDATE_STRATEGY":"kill-then-download","RESIN_APP_RESTART_POLICY":"on-failure","RESIN_APP_RESTART_RETRIES":"5"}}]`
)

// preloaded decodes apps.json and checks that what is stored gives the same
// target again.
func preloaded(t *testing.T, doc string, o Options) (Preload, string) {
	t.Helper()
	o.Device = device
	p, problems, err := DecodeApps(t.Context(), []byte(doc), o)
	if err != nil {
		t.Fatal(err)
	}
	sameAgain(t, p.Converted, problems)
	return p, lines(problems)
}

func sameAgain(t *testing.T, c Converted, problems []Problem) {
	t.Helper()
	again, said, err := DecodeV3(t.Context(), c.Document, Options{Device: device})
	if err != nil || !cmp.Equal(again, c.Target) || lines(said) != lines(problems) {
		t.Errorf("stored and read again it is another target: %v\n%s", err, cmp.Diff(c.Target, again))
	}
}

func TestPreloadV3(t *testing.T) {
	p, said := preloaded(t, preloadV3, Options{
		Name: "dev", Config: map[string]string{"BALENA_HOST_CONFIG_gpu_mem": "8", "BALENA_SUPERVISOR_DELTA": "1"},
	})
	if said != "" {
		t.Error(said)
	}
	if want := map[string]string{"RESIN_HOST_CONFIG_gpu_mem": "16", "BALENA_SUPERVISOR_DELTA": "1"}; p.Target.Name != "dev" || !cmp.Equal(p.Target.Config, want) {
		t.Errorf("name %q, config %v", p.Target.Name, p.Target.Config)
	}
	if want := (&Pin{AppID: 5, Commit: "f1"}); !cmp.Equal(p.Pin, want) {
		t.Errorf("pin %+v, want the first fleet's release", p.Pin)
	}
	web := p.Target.Apps["fleet"].Services["web"]
	if web.Spec.Restart.Name != "no" || web.ID != 7 || web.Spec.Environment["A"] != "1" || len(p.Target.Apps) != 3 {
		t.Errorf("%+v", p.Target)
	}
	if images := p.Images(); len(images) != 2 || !strings.HasPrefix(images[0], "registry.example/v2/a@sha256:1") {
		t.Errorf("images %v", images)
	}
	if p, _ := preloaded(t, strings.Replace(preloadV3, `"pinDevice":true,`, ``, 1), Options{}); p.Pin != nil {
		t.Errorf("pinned without being told: %+v", p.Pin)
	}
}

func TestPreloadV2(t *testing.T) {
	known := Options{AppUUID: func(id int64) string { return map[int64]string{7: "uuid7", 8: "uuid8"}[id] }}
	p, said := preloaded(t, `{"config":null,"apps":{"7":`+appV2+`,"8":{"name":"empty","services":{},"commit":null}}}`, known)
	if said != "" {
		t.Error(said)
	}
	app := p.Target.Apps["uuid7"]
	web, db := app.Services["web"], app.Services["db"]
	for name, ok := range map[string]bool{
		"app":         app.ID == 7 && app.Name == "shop" && app.Class == "fleet" && app.Commit == "c1" && app.ReleaseID == 8,
		"ids":         web.ID == 9 && web.ImageID == 10 && db.ID == 11 && db.ImageID == 12,
		"running":     !web.Running && db.Running,
		"composition": cmp.Equal(web.Spec.Command, []string{"run"}) && web.Spec.Restart.Name == "no",
		"networks":    cmp.Equal(slices.Collect(maps.Keys(web.Spec.Networks)), []string{"n"}),
		"volumes":     len(db.Spec.Mounts) == 1 && len(app.Volumes) == 1,
		"variables":   web.Spec.Environment["A"] == "1" && web.Spec.Labels["l"] == "m",
		"no release":  p.Target.Apps["uuid8"].Name == "empty" && p.Target.Apps["uuid8"].Commit == "",
	} {
		if !ok {
			t.Errorf("%s: %+v", name, p.Target)
		}
	}
}

func TestPreloadV1(t *testing.T) {
	p, _ := preloaded(t, preloadV1, Options{})
	app := p.Target.Apps["user-app"]
	main := app.Services["main"]
	for name, ok := range map[string]bool{
		"app":        app.ID == 5 && app.Name == "old" && app.Commit == "abc" && app.ReleaseID == 1 && app.Rejected == "",
		"service":    main.ID == 1 && main.ImageID == 1 && main.Image == "registry.example/old:latest",
		"host":       main.Spec.Privileged && main.Spec.NetworkMode == "host",
		"volume":     len(main.Spec.Mounts) == 1 && main.Spec.Mounts[0].Source == "resin-data" && main.Spec.Mounts[0].Target == "/data",
		"variables":  cmp.Equal(main.Spec.Environment, map[string]string{"A": "1", "N": "2"}),
		"restart":    main.Spec.Restart == state.RestartPolicy{Name: "on-failure", MaxRetries: 5},
		"config":     p.Target.Config["RESIN_HOST_CONFIG_gpu_mem"] == "16",
		"strategy":   main.Strategy == "kill-then-download",
		"old labels": main.Spec.Labels["io.balena.legacy-container"] == "1" && main.Spec.Labels["io.balena.features.dbus"] == "1",
	} {
		if !ok {
			t.Errorf("%s: %+v", name, app)
		}
	}
	p, _ = preloaded(t, `[{"appId":5,"commit":"abc","imageId":"i"}]`, Options{})
	if main := p.Target.Apps["user-app"].Services["main"]; main.Spec.Restart.Name != "always" || main.Strategy != "download-then-kill" {
		t.Errorf("defaults: %+v", main)
	}
}

func TestPreloadsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{``, `apps.json: the document is cut off after byte 0`},
		{`{`, `apps.json: the document is cut off after byte 1`},
		{`{"apps":{"a":`, `apps.json: the document is cut off`},
		{`5`, `apps.json: the document: want an object, got 5`},
		{`{} {}`, `apps.json: something follows the document`},
		{`{"config":{"A":1}}`, `apps.json: config.A: want text, got 1`},
		{`{"pinDevice":"yes"}`, `apps.json: pinDevice: want true or false, got "yes"`},
		{`{"apps":[]}`, `apps.json: apps: want an object, got an array`},
		{`{"apps":{"a":{}}}`, "apps.json: invalid: target state: apps.a.id: missing\napps.a.name: missing"},
		{`{"apps":{"a":{"id":1,"name":"x","releases":{}}}}`, `apps.json: apps.a.releases: empty`},
		{`{"apps":{"a":{"id":1,"name":"x"}}}`, `apps.json: apps.a.releases: empty`},
		{`{"apps":{"7":` + appV2 + `}}`, `apps.json: apps.7: this old form names apps by number and the app's UUID is not known here; preload the image again with balena CLI 13.5.1 or later`},
		{`[]x`, `apps.json: something follows the document`},
		{`[{}]`, "apps.json: [0].appId: missing\n[0].commit: missing\n[0].imageId: missing"},
		{`[{"appId":1,"commit":"c","imageId":"i","env":[]}]`, `apps.json: [0].env: want an object, got an array`},
		{`[{"appId":1,"commit":"c","imageId":"i"},{"appId":2,"commit":"c","imageId":"i"}]`, `apps.json: [1]: this old form holds one app`},
		{`[5]`, `apps.json: [0]: want an object, got 5`},
	} {
		p, _, err := DecodeApps(t.Context(), []byte(c.doc), Options{Device: device})
		if err == nil || !strings.Contains(err.Error(), c.want) || state.ClassOf(err) != state.ClassInvalid || p.Document != nil {
			t.Errorf("%s\n got %v\nwant %s", c.doc, err, c.want)
		}
	}
	if _, _, err := DecodeApps(t.Context(), []byte(preloadV3), Options{}); err == nil || !strings.Contains(err.Error(), "no UUID yet") {
		t.Errorf("without a device: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := DecodeApps(ctx, []byte(preloadV3), Options{Device: device}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestDecodeLocal(t *testing.T) {
	o := Options{Device: device, Name: "dev", Config: map[string]string{"A": "1"}}
	c, problems, err := DecodeLocal(t.Context(), []byte(`{"local":{"apps":{"7":`+appV2+`}},"dependent":{"apps":{}}}`), o)
	if err != nil {
		t.Fatal(err)
	}
	sameAgain(t, c, problems)
	app := c.Target.Apps["7"]
	if c.Target.Name != "dev" || len(c.Target.Config) != 0 || app.UUID != "7" || app.ID != 7 || len(app.Services) != 2 {
		t.Errorf("%+v", c.Target)
	}
	c, _, err = DecodeLocal(t.Context(), []byte(`{"local":{"name":"new","config":{"B":"2"}}}`), o)
	if err != nil || c.Target.Name != "new" || !cmp.Equal(c.Target.Config, map[string]string{"B": "2"}) || len(c.Target.Apps) != 0 {
		t.Errorf("%+v %v", c.Target, err)
	}
	for _, c := range []struct{ doc, want string }{
		{`{}`, `local target state: local: missing`},
		{`{"local":null}`, `local: want an object, got null`},
		{`{"local":{"name":"a\nb"}}`, `name: contains a line break`},
		{`{"local":{"apps":{"x":{"name":"n"}}}}`, `apps.x.id: want a whole number`},
		{`{"local":{"apps":{"1":{}}}}`, `apps.1.name: missing`},
		{`{"local":{"apps":{"1":{"name":"n","commit":5}}}}`, `local.apps.1.commit: want text, got 5`},
		{`{"local":{"apps":{"1":{"name":"n","commit":"c"}}}}`, `apps.1.releases.c.id: missing`},
		{`{"local":{"apps":{"1":{"name":"n","services":{"2":{}}}}}}`, `local.apps.1.services.2.serviceName: missing`},
		{`{"local":{"apps":{"1":{"name":"n","services":{"2":{"serviceName":"a"},"3":{"serviceName":"a"}}}}}}`, `local.apps.1.services.3.serviceName: a is also the name of another service`},
		{`{"local":{"apps":{"1":{"name":"n","commit":"c","releaseId":1,"services":{"2":{"serviceName":"a","image":"i"}}}}}}`, `apps.1.releases.c.services.a.image_id: missing`},
	} {
		_, _, err := DecodeLocal(t.Context(), []byte(c.doc), o)
		if err == nil || !strings.Contains(err.Error(), c.want) || state.ClassOf(err) != state.ClassInvalid {
			t.Errorf("%s\n got %v\nwant %s", c.doc, err, c.want)
		}
	}
}

// A composition of any form that cannot be run rejects its app, not the file.
func TestAPreloadWithABadComposition(t *testing.T) {
	p, said := preloaded(t, strings.Replace(preloadV3, `"restart":"no"`, `"restart":"often"`, 1), Options{})
	if app := p.Target.Apps["fleet"]; app.Rejected == "" || !strings.Contains(said, string(compose.Rejected)) {
		t.Errorf("%+v\n%s", app, said)
	}
}

func TestReadApps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "apps.json")
	have := func(string) bool { return true }
	read := func(have func(string) bool) (*Preload, error) {
		p, _, err := ReadApps(t.Context(), file, Options{Device: device}, have)
		return p, err
	}
	put := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := read(have); p != nil || err != nil {
		t.Errorf("no file: %v %v", p, err)
	}
	for _, nothing := range []string{`{}`, `{"config":{},"apps":{}}`, `[]`, `{"apps":null,"config":null}`} {
		put(nothing)
		if p, err := read(have); p != nil || err != nil {
			t.Errorf("%s: %v %v", nothing, p, err)
		}
	}
	put(preloadV3)
	_, err := read(func(ref string) bool { return !strings.Contains(ref, "/b@") })
	if state.ClassOf(err) != state.ClassNotFound || !strings.Contains(err.Error(), "1 of the images") || !strings.Contains(err.Error(), "v2/b@sha256:2222") {
		t.Errorf("a missing image: %v", err)
	}
	if p, err := read(have); err != nil || p == nil || len(p.Target.Apps) != 3 {
		t.Errorf("%+v %v", p, err)
	}
	put(strings.Repeat(" ", maxDocument+1))
	if _, err := read(have); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if p, err := read(have); p != nil || err != nil {
		t.Errorf("a folder: %v %v", p, err)
	}
}

func TestAppsAreSetAsideOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "apps.json")
	if err := os.WriteFile(file, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	content := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	for range 2 {
		if err := SetAppsAside(file); err != nil {
			t.Fatal(err)
		}
		if content(file) != "{}" || content(file+".preloaded") != "first" {
			t.Errorf("%q and %q", content(file), content(file+".preloaded"))
		}
	}
	if err := SetAppsAside(filepath.Join(t.TempDir(), "apps.json")); err == nil {
		t.Error("a file that is not there is set aside")
	}
}

// FuzzOldForms: any bytes give an error that says what is wrong, or a document
// that DecodeV3 reads as the same target.
func FuzzOldForms(f *testing.F) {
	for _, doc := range []string{preloadV1, preloadV3, `{"apps":{"7":` + appV2 + `}}`, `{"local":{"name":"n","apps":{"7":` + appV2 + `}}}`} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		o := Options{Device: device, AppUUID: func(int64) string { return "u" }}
		if p, problems, err := DecodeApps(t.Context(), doc, o); err != nil {
			invalid(t, err)
		} else if p.Document != nil {
			sameAgain(t, p.Converted, problems)
			allComplete(t, p.Target)
		}
		if c, problems, err := DecodeLocal(t.Context(), doc, o); err != nil {
			invalid(t, err)
		} else {
			sameAgain(t, c, problems)
			allComplete(t, c.Target)
		}
	})
}

func invalid(t *testing.T, err error) {
	if err.Error() == "" || state.ClassOf(err) != state.ClassInvalid {
		t.Fatal(err)
	}
}
