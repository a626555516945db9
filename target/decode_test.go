package target

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/compose"
	"deckhand/state"
)

const device = "0123456789abcdef"

// whole wraps the apps of our device into a document.
func whole(apps string) string {
	return `{"` + device + `":{"name":"dev","config":{"BALENA_HOST_CONFIG_gpu_mem":"16"},"apps":{` + apps + `}}}`
}

// oneService is a document with one app, one release and one service that has
// the given fields beside the required ones.
func oneService(fields string) string {
	return whole(`"a1":{"id":1,"name":"app","releases":{"c1":{"id":2,"services":{"web":{"id":3,"image_id":4,"image":"img","environment":{},"labels":{}` + fields + `}}}}}`)
}

func decode(t testing.TB, doc string) (state.Target, []Problem) {
	t.Helper()
	return decodeFor(t, doc, nil)
}

// decodeFor decodes for a device that provides something.
func decodeFor(t testing.TB, doc string, provided *Provided) (state.Target, []Problem) {
	t.Helper()
	got, problems, err := DecodeV3(t.Context(), []byte(doc), Options{Device: device, Provided: provided})
	if err != nil {
		t.Fatalf("%v\n%.500s", err, doc)
	}
	return got, problems
}

func lines(problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&b, p)
	}
	return strings.TrimSpace(b.String())
}

func TestDecode(t *testing.T) {
	got, problems := decode(t, whole(`"a1":{"id":"7","name":"shop","class":"app","releases":{"c1":{"id":8,
		"services":{"web":{"id":9,"image_id":"10","image":"registry2.example/v2/x@sha256:1111111111111111111111111111111111111111111111111111111111111111",
			"environment":{"A":"top"},"labels":{"l":"top"},"running":false,"contract":{},
			"composition":{"environment":["A=under","B=under"],"labels":{"l":"under","m":"under"},"depends_on":["db"],"networks":["n"]}},
		"db":{"id":11,"image_id":12,"image":"db","environment":{},"labels":{},"composition":{"image":"other:1","running":true},"running":null}},
		"volumes":{"v":{}},"networks":{"n":{"internal":true}}}}},
		"a2":{"id":20,"name":"empty"}`))
	if len(problems) > 0 {
		t.Error(lines(problems))
	}
	app := got.Apps["a1"]
	web, db := app.Services["web"], app.Services["db"]
	for name, ok := range map[string]bool{
		"device":               got.Name == "dev" && got.Config["BALENA_HOST_CONFIG_gpu_mem"] == "16",
		"app":                  app.UUID == "a1" && app.ID == 7 && app.Name == "shop" && app.Class == "app",
		"release":              app.Commit == "c1" && app.ReleaseID == 8 && app.Rejected == "",
		"ids":                  web.ID == 9 && web.ImageID == 10 && db.ID == 11 && db.ImageID == 12,
		"image beside":         strings.HasPrefix(web.Image, "registry2.example/v2/x@sha256:1"),
		"image inside wins":    db.Image == "other:1",
		"running":              !web.Running && db.Running,
		"environment":          cmp.Equal(web.Spec.Environment, map[string]string{"A": "top", "B": "under"}),
		"labels":               cmp.Equal(web.Spec.Labels, map[string]string{"l": "top", "m": "under"}),
		"depends_on":           cmp.Equal(web.DependsOn, []state.Dependency{{Service: "db", Condition: state.Started}}),
		"networks":             app.Networks["n"].Spec.Internal && len(app.Networks) == 2,
		"volumes":              app.Volumes["v"].Spec.Driver == "local",
		"an app on no release": got.Apps["a2"].Commit == "" && got.Apps["a2"].Class == "fleet",
	} {
		if !ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestDocumentRules(t *testing.T) {
	long := strings.Repeat("x", 256)
	rel := "apps.a1.releases.c1"
	web := rel + ".services.web"
	for _, c := range []struct{ doc, want string }{
		{`[]`, `the document: want an object, got an array`},
		{`{}`, `no entry for this device (0123456789abcdef)`},
		{``, `the document is cut off after byte 0`},
		{whole(``) + `x`, `something follows the document`},
		{`{"a":`, `the document is cut off after byte`},
		{oneService(``)[:100], `the document is cut off after byte`},
		{`{"a" 1}`, `not JSON near byte`},
		{`{"0123456789abcdef":null}`, `the document: want an object, got null`},
		{`{"0123456789abcdef":{}}`, "name: missing\nconfig: missing\napps: missing"},
		{`{"0123456789abcdef":{"name":"a\nb","config":{},"apps":{}}}`, `name: contains a line break`},
		{`{"0123456789abcdef":{"name":"` + long + `","config":{"9":"","A":1},"apps":{}}}`, "name: longer than 255 characters\nconfig.9: not a configuration variable's name\nconfig.A: want text, got 1"},
		{`{"other":{"name":1,"config":{},"apps":{}},"0123456789abcdef":{"name":"","config":{},"apps":{}}}`, `other.name: want text, got 1`},
		{whole(`"a1":{}`), "apps.a1.id: missing\napps.a1.name: missing"},
		{whole(`"a1":{"id":-1,"name":"x"}`), `apps.a1.id: want a whole number, not negative, got -1`},
		{whole(`"a1":{"id":1.5,"name":"x"}`), `apps.a1.id: want a whole number, not negative, got 1.5`},
		{whole(`"a1":{"id":"0xff","name":"x"}`), `apps.a1.id: want a whole number, not negative, got "0xff"`},
		{whole(`"a1":{"id":"+1","name":"x"}`), `apps.a1.id: want a whole number, not negative, got "+1"`},
		{whole(`"a1":{"id":"","name":"x"}`), `apps.a1.id: want a whole number, not negative, got ""`},
		{whole(`"a1":{"id":null,"name":"x"}`), `apps.a1.id: want a whole number, not negative, got null`},
		{whole(`"a1":{"id":[1],"name":"x"}`), `apps.a1.id: want a whole number, not negative, got an array`},
		{whole(`"a1":{"id":99999999999999999999,"name":"x"}`), `apps.a1.id: want a whole number, not negative, got 99999999999999999999`},
		{whole(`"a1":{"id":1,"name":"x","class":"other"}`), `apps.a1.class: want fleet, app or block, got "other"`},
		{whole(`"a1":{"id":1,"name":"x","is_host":null}`), `apps.a1.is_host: want true or false, got null`},
		{whole(`"a1":{"id":1,"name":"x","parent_app":1}`), `apps.a1.parent_app: want text, got 1`},
		{whole(`"a1":{"id":1,"name":"x"},"a2":{"id":1,"name":"y"}`), `apps.a2.id: 1 is also the ID of app a1`},
		{whole(`"a1":{"id":1,"name":"x","releases":{"c1":{"services":{}}}}`), rel + `.id: missing`},
		{whole(`"a1":{"id":1,"name":"x","releases":{"c1":{"id":1,"services":{"a b":{}}}}}`), rel + `.services.a b: a name consists of`},
		{whole(`"a1":{"id":1,"name":"x","releases":{"c1":{"id":1,"volumes":{"v":null,"w":5}}}}`), rel + ".volumes.v: want an object, got null\n" + rel + ".volumes.w: want an object, got 5"},
		{oneService(`,"image":5`), web + `.image: want text, got 5`},
		{oneService(`,"image":"` + long + `"`), web + `.image: longer than 255 characters`},
		{oneService(`,"environment":null`), web + `.environment: want an object, got null`},
		{oneService(`,"environment":{"A-B":"","C":null}`), web + ".environment.A-B: not a variable's name\n" + web + ".environment.C: want text, got null"},
		{oneService(`,"labels":{"a b":"","c":{}}`), web + ".labels.a b: not a label's name\n" + web + ".labels.c: want text, got an object"},
		{oneService(`,"running":"true"`), web + `.running: want true or false, got "true"`},
		{oneService(`,"composition":null`), web + `.composition: want an object, got null`},
		{oneService(`,"composition":[]`), web + `.composition: want an object, got an array`},
		{oneService(`,"contract":null`), web + `.contract: want an object, got null`},
		{oneService(`,"composition":{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`), web + `.composition: more than 40 levels deep`},
		{oneService(`,"environment":{` + strings.TrimSuffix(strings.Repeat(`"-":"",`, 60), ",") + `}`), "and 10 more"},
	} {
		got, _, err := DecodeV3(t.Context(), []byte(c.doc), Options{Device: device})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.200s\n got %v\nwant %s", c.doc, err, c.want)
			continue
		}
		if state.ClassOf(err) != state.ClassInvalid || got.Apps != nil {
			t.Errorf("%.200s: class %s, target %v", c.doc, state.ClassOf(err), got)
		}
	}
}

// Every field of the document: what it may be, and that anything else is named by
// its path and refuses the document.
func TestEveryField(t *testing.T) {
	const (
		anyText   = `"x"`
		object    = `{}`
		null      = `null`
		wholeNum  = `7`
		textNum   = `"7"`
		yes       = `true`
		list      = `[]`
		yesAsText = `"true"`
	)
	long := `"` + strings.Repeat("x", 256) + `"`
	device := func(field, value string) string {
		fields := map[string]string{"name": `"d"`, "config": object, "apps": object}
		return `{"0123456789abcdef":` + object1(fields, field, value) + `}`
	}
	app := func(field, value string) string {
		return device("apps", `{"a1":`+object1(map[string]string{"id": "1", "name": `"n"`}, field, value)+`}`)
	}
	release := func(field, value string) string {
		return app("releases", `{"c1":`+object1(map[string]string{"id": "1"}, field, value)+`}`)
	}
	service := func(field, value string) string {
		fields := map[string]string{"id": "1", "image_id": "1", "image": `"i"`, "environment": object, "labels": object}
		return release("services", `{"web":`+object1(fields, field, value)+`}`)
	}
	for _, c := range []struct {
		level      func(field, value string) string
		path       string
		field      string
		required   bool
		fine, fail []string
	}{
		{device, "", "name", true, []string{anyText, `""`}, []string{null, wholeNum, object, long, `"a\nb"`}},
		{device, "", "config", true, []string{object, `{"A_1:b":""}`}, []string{null, list, anyText, `{"A":1}`, `{"A":null}`, `{"a-b":"x"}`}},
		{device, "", "apps", true, []string{object}, []string{null, list, anyText, `{` + long + `:{"id":1,"name":""}}`}},
		{app, "apps.a1.", "id", true, []string{wholeNum, textNum, `0`, `"0"`, `"51564189199"`}, []string{null, `-1`, `"-1"`, `1.5`, `"0xff"`, `""`, list, yes}},
		{app, "apps.a1.", "name", true, []string{anyText, `""`}, []string{null, wholeNum, long}},
		{app, "apps.a1.", "class", false, []string{null, `"fleet"`, `"app"`, `"block"`}, []string{anyText, wholeNum, `""`, object}},
		{app, "apps.a1.", "releases", false, []string{null, object}, []string{list, anyText}},
		{app, "apps.a1.", "is_host", false, []string{yes, `false`}, []string{null, yesAsText, `1`}},
		{app, "apps.a1.", "parent_app", false, []string{anyText}, []string{null, wholeNum, long}},
		{release, "apps.a1.releases.c1.", "id", true, []string{wholeNum, textNum}, []string{null, `-1`, anyText}},
		{release, "apps.a1.releases.c1.", "services", false, []string{null, object}, []string{list, anyText, `{"-a":{}}`, `{"a/b":{}}`, `{"":{}}`, `{"web":null}`}},
		{release, "apps.a1.releases.c1.", "volumes", false, []string{null, object, `{"v":{}}`, `{"v":[]}`, `{"v":{"unknown":1}}`}, []string{list, anyText, `{"v":null}`, `{"v":"x"}`, `{"_v":{}}`}},
		{release, "apps.a1.releases.c1.", "networks", false, []string{null, object, `{"n":{}}`, `{"n":[]}`, `{"n":{"unknown":1}}`}, []string{list, anyText, `{"n":null}`, `{"n":1}`, `{".n":{}}`}},
		{service, "apps.a1.releases.c1.services.web.", "id", true, []string{wholeNum, textNum}, []string{null, `1.5`, anyText}},
		{service, "apps.a1.releases.c1.services.web.", "image_id", true, []string{wholeNum, textNum}, []string{null, `-1`, object}},
		{service, "apps.a1.releases.c1.services.web.", "image", true, []string{anyText, `""`}, []string{null, wholeNum, long}},
		{service, "apps.a1.releases.c1.services.web.", "environment", true, []string{object, `{"_A1":"` + strings.Repeat("x", 300) + `"}`}, []string{null, list, `{"1A":""}`, `{"A":1}`, `{"A":null}`, `{` + long + `:""}`}},
		{service, "apps.a1.releases.c1.services.web.", "labels", true, []string{object, `{"a/b!":""}`}, []string{null, list, `{"a b":""}`, `{"a'":""}`, `{"é":""}`, `{"":""}`, `{"a":true}`}},
		{service, "apps.a1.releases.c1.services.web.", "running", false, []string{null, yes, `false`}, []string{yesAsText, `1`, object}},
		{service, "apps.a1.releases.c1.services.web.", "contract", false, []string{object, list, `{"requires":5}`}, []string{null, anyText, wholeNum, yes}},
		{service, "apps.a1.releases.c1.services.web.", "composition", false, []string{object, `{"restart":"often"}`}, []string{null, list, anyText, yes}},
	} {
		if c.required {
			refusedAt(t, c.level(c.field, ""), c.path+c.field+": missing")
		} else {
			decode(t, c.level(c.field, ""))
		}
		for _, value := range c.fine {
			decode(t, c.level(c.field, value))
		}
		for _, value := range c.fail {
			refusedAt(t, c.level(c.field, value), c.path+c.field)
		}
	}
}

// object1 writes an object of which one field has another value; "": it is missing.
func object1(fields map[string]string, field, value string) string {
	fields[field] = value
	var out []string
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if fields[k] != "" {
			out = append(out, `"`+k+`":`+fields[k])
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

func refusedAt(t *testing.T, doc, path string) {
	t.Helper()
	_, _, err := DecodeV3(t.Context(), []byte(doc), Options{Device: device})
	if err == nil || state.ClassOf(err) != state.ClassInvalid || !strings.Contains(err.Error(), "target state: "+path) {
		t.Errorf("%.300s\n got %v\nwant a refusal at %s", doc, err, path)
	}
}

func TestScalarsThatAreFine(t *testing.T) {
	for _, doc := range []string{
		whole(`"a1":{"id":"51564189199","name":"x"}`),
		whole(`"a1":{"id":1e3,"name":"x","class":null,"releases":null}`),
		whole(`"a1":{"id":"0","name":"x","is_host":false,"parent_app":"p"}`),
		oneService(`,"running":null,"contract":[],"whatever":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)),
		oneService(`,"environment":{"A":"` + strings.Repeat("x", 1000) + `"}`),
		oneService(`,"labels":{"a.b/c-d_e!#&()":""}`),
		oneService(`,"image":"a","image":"b"`),
	} {
		decode(t, doc)
	}
}

func TestABadCompositionRejectsItsAppAlone(t *testing.T) {
	app := func(uuid string, id int, composition string) string {
		return fmt.Sprintf(`%q:{"id":%d,"name":"n","releases":{"c":{"id":5,"services":{"web":{"id":3,"image_id":4,"image":"img","environment":{},"labels":{},"composition":%s}}}}}`, uuid, id, composition)
	}
	got, problems := decode(t, whole(app("bad", 1, `{"restart":"often","mem_limit":{}}`)+","+app("good", 2, `{"build":"."}`)))
	bad := got.Apps["bad"]
	want := "services.web.mem_limit: want a size such as 512m or 1.5g, got a mapping\n" +
		`services.web.restart: want no, always, unless-stopped, on-failure or on-failure:<times>, got "often"`
	if bad.Rejected != want || bad.Services != nil || bad.Commit != "c" || bad.ReleaseID != 5 {
		t.Errorf("%+v", bad)
	}
	if good := got.Apps["good"]; good.Rejected != "" || len(good.Services) != 1 {
		t.Errorf("%+v", good)
	}
	if got, want := lines(problems), `apps.bad.releases.c.services.web.mem_limit: rejected: want a size such as 512m or 1.5g, got a mapping
apps.bad.releases.c.services.web.restart: rejected: want no, always, unless-stopped, on-failure or on-failure:<times>, got "often"
apps.good.releases.c.services.web.build: ignored: images are built before a release is made; the image is used`; got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestAppProblems(t *testing.T) {
	for _, c := range []struct {
		doc, want string
		apps      int
	}{
		{whole(`"h":{"id":1,"name":"os","is_host":true}`), "", 1},
		{whole(`"52e35121417640b1b28a680504e4039b":{"id":1,"name":"s"}`), "", 1},
		{whole(`"a1":{"id":1,"name":"x","new":[{}],"releases":{"z":{"id":1,"volumes":{"v":[]},"networks":{"n":[1]}}}}`),
			"apps.a1.new: ignored: not known here, so it has no effect; compose attributes belong into the composition\n" +
				"apps.a1.releases.z.networks.n: rejected: want a mapping, got a list", 1},
		{oneService(`,"command":"true"`), "apps.a1.releases.c1.services.web.command: ignored: not known here, so it has no effect; compose attributes belong into the composition", 1},
		{whole(`"a1":{"id":1,"name":"x","releases":{"z":{"id":1},"a":{"id":2}}}`), "apps.a1.releases: warned: only the first release, z, is used; 1 more are not", 1},
		{whole(`"a/1":{"id":1,"name":"x","releases":{"z":{"id":1}}}`), "apps.a/1.releases.z.uuid: rejected: the app's UUID cannot be part of the names of networks", 1},
		{whole(`"a1":{"id":1,"name":"x","releases":{"z z":{"id":1}}}`), "apps.a1.releases.z z.commit: rejected: the commit cannot be part of the names of containers", 1},
		{oneService(`,"composition":{"running":"no"}`), `apps.a1.releases.c1.services.web.running: rejected: want true or false, got "no"`, 1},
		{oneService(`,"composition":{"environment":5}`), `apps.a1.releases.c1.services.web.environment: rejected: want a mapping or a list of key=value, got 5`, 1},
		{oneService(`,"image":""`), `apps.a1.releases.c1.services.web.image: rejected: the service has no image; build it first and name the result here`, 1},
	} {
		got, problems := decode(t, c.doc)
		if lines(problems) != c.want || len(got.Apps) != c.apps {
			t.Errorf("%s\n got %s\nwant %s", c.doc, lines(problems), c.want)
		}
	}
}

// Documents that mean harm are refused or read, without crash and without
// keeping the device busy: the limit is far above what a busy machine needs.
func TestHostileDocuments(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, doc := range map[string]string{
		"too large":      strings.Repeat(" ", maxDocument+1),
		"deep":           strings.Repeat("[", maxDocument/2),
		"deep objects":   strings.Repeat(`{"a":`, maxDocument/8),
		"many services":  whole(`"a1":{"id":1,"name":"x","releases":{"c":{"id":1,"services":{` + many(100_000, `"s%d":{"id":1,"image_id":1,"image":"i","environment":{},"labels":{}}`) + `}}}}`),
		"many networks":  whole(`"a1":{"id":1,"name":"x","releases":{"c":{"id":1,"networks":{` + many(500_000, `"n%d":{}`) + `}}}}`),
		"many variables": oneService(`,"environment":{` + many(900_000, `"V%d":""`) + `}`),
		"many values":    oneService(`,"composition":{"x":[` + strings.Repeat("[],", 2_000_000) + `[]]}`),
		"many ports":     oneService(`,"composition":{"ports":[` + strings.Repeat(`"1-65535",`, 100_000) + `1]}`),
		"many links":     oneService(`,"composition":{"depends_on":[` + many(100_000, `"d%d"`) + `]}`),
		"many contracts": whole(`"a1":{"id":1,"name":"x","releases":{"c":{"id":1,"services":{` + many(4_000, `"s%d":{"id":1,"image_id":1,"image":"i","environment":{},"labels":{},"contract":{"requires":[{"type":"sw.os","name":"a"},{"type":"sw.l4t","version":">99"}]}}`) + `}}}}`),
		"many needs":     oneService(`,"contract":{"requires":[` + many(40_000, `{"type":"sw.os","slug":"%d"}`) + `]}`),
		"many names":     oneService(`,"contract":{"requires":[` + many(20_000, `{"type":"sw.os","name":"%d"}`) + `,5]}`),
		"many choices":   oneService(`,"contract":{"requires":[{"or":[` + many(40_000, `{"type":"sw.os","slug":"`+strings.Repeat("x", 250)+`%d"}`) + `]}]}`),
		"deep choices":   oneService(`,"contract":{"requires":[` + strings.Repeat(`{"or":[`, 1000) + strings.Repeat(`]}`, 1000) + `]}`),
		"many unknown":   oneService(`,"composition":{` + many(100_000, `"d%d":1`) + `}`),
	} {
		start := time.Now()
		got, problems, err := DecodeV3(t.Context(), []byte(doc), Options{Device: device, Provided: &board})
		if rejected := got.Apps["a1"].Rejected; len(rejected) > 100_000 {
			t.Errorf("%s: a rejection of %d bytes", name, len(rejected))
		}
		if err == nil && got.Apps["a1"].Rejected == "" && name != "many unknown" {
			t.Errorf("%s: accepted", name)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if len(problems) > 2000 || err != nil && len(err.Error()) > 20_000 {
			t.Errorf("%s: %d problems, error of %d bytes", name, len(problems), len(fmt.Sprint(err)))
		}
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := DecodeV3(ctx, []byte(oneService(``)), Options{Device: device}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFromCompose(t *testing.T) {
	load := func(image string) compose.Project {
		p, problems, err := compose.Load(t.Context(), compose.Options{Name: "hello"}, map[string]any{"services": map[string]any{
			"web": map[string]any{"image": image}, "db": map[string]any{"image": "db"},
		}})
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		return p
	}
	only := func(target state.Target) state.App {
		for uuid, a := range target.Apps {
			if uuid != a.UUID || len(target.Apps) != 1 {
				t.Errorf("%+v", target)
			}
			return a
		}
		t.Fatal("no app")
		return state.App{}
	}
	a, same, other := only(FromCompose(load("one"), "")), only(FromCompose(load("one"), "")), only(FromCompose(load("two"), ""))
	if diff := cmp.Diff(a, same); diff != "" {
		t.Errorf("the same file is another target:\n%s", diff)
	}
	if a.UUID != other.UUID || a.ID != other.ID || a.Commit == other.Commit {
		t.Errorf("another content must be another commit of the same app: %+v %+v", a, other)
	}
	if len(a.UUID) != 32 || a.ID <= 0 || a.ID >= 1<<31 || len(a.Commit) != 32 || a.ReleaseID != 1 || a.Name != "hello" {
		t.Errorf("%+v", a)
	}
	if db, web := a.Services["db"], a.Services["web"]; db.ID != 1 || web.ID != 2 || web.ImageID != 2 || !web.Running {
		t.Errorf("%+v", a.Services)
	}
	if renamed := only(FromCompose(load("one"), "x")); renamed.UUID == a.UUID || renamed.ID == a.ID {
		t.Error("two projects share an identity")
	}
}

// fifty is a document like a large device gets.
func fifty() string {
	var services []string
	for i := range 50 {
		var env []string
		for j := range 10 {
			env = append(env, fmt.Sprintf(`"KEY_%d":"value %d"`, j, j))
		}
		services = append(services, fmt.Sprintf(`"service%d":{"id":%d,"image_id":%d,"image":"registry2.example/v2/%032d@sha256:%064d","environment":{%s},"labels":{"io.balena.features.dbus":"0","mine":"1"},
			"composition":{"restart":"always","ports":["%d:80"],"volumes":["data:/data","cache:/cache"],"networks":["front","back"],"healthcheck":{"test":"true","interval":"10s"}}}`,
			i, i, i, i, i, strings.Join(env, ","), 8000+i))
	}
	return whole(`"a1":{"id":1,"name":"big","releases":{"c":{"id":1,"services":{` + strings.Join(services, ",") + `},"volumes":{"data":{},"cache":{}},"networks":{"front":{},"back":{}}}}}`)
}

func BenchmarkDecodeV3(b *testing.B) {
	doc := []byte(fifty())
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		got, problems, err := DecodeV3(b.Context(), doc, Options{Device: device})
		if err != nil || len(problems) > 0 || len(got.Apps["a1"].Services) != 50 {
			b.Fatal(err, problems)
		}
	}
}

// FuzzDecodeV3: any bytes give a target or an error that says what is wrong, the
// same every time, and what is accepted is complete.
func FuzzDecodeV3(f *testing.F) {
	f.Add([]byte(oneService(``)))
	f.Add([]byte(oneService(`,"composition":{"ports":["80:80"],"ulimits":{"n":{"soft":1}},"healthcheck":{"test":[1]},"depends_on":{"web":null}}`)))
	f.Add([]byte(whole(`"a1":{"id":"1","name":"x","releases":{"c":{"id":1,"networks":{"n":{"ipam":{"config":[{"subnet":"10.0.0.0/8"}]}}},"volumes":{"v":{"driver_opts":{"a":1}}}}}}`)))
	f.Add([]byte(oneService(`,"contract":{"requires":[{"type":"sw.os","slug":"x","version":">=1 <2 || ^3"},{"or":[{"type":"sw.l4t","data":{"a":1}},{"or":[]}]},{"type":"sw.kernel","name":"y"}]},"composition":{"labels":["io.balena.features.optional=1"]}`)))
	f.Add([]byte(whole(`"h":{"id":1,"name":"x","is_host":true,"releases":{"c":{"id":1,"services":{"o":{"id":1,"image_id":1,"image":"i","environment":{},"labels":{"io.balena.image.class":"overlay"}},"s":{"id":1,"image_id":1,"image":"i","environment":{},"labels":{},"composition":{"depends_on":["o"]}}}}}}`)))
	f.Add([]byte(fifty()))
	f.Fuzz(func(t *testing.T, doc []byte) {
		a, pa, err := DecodeV3(t.Context(), doc, Options{Device: device, Provided: &board})
		if err != nil {
			if err.Error() == "" || state.ClassOf(err) != state.ClassInvalid {
				t.Fatalf("%v", err)
			}
			return
		}
		b, pb, err := DecodeV3(t.Context(), doc, Options{Device: device, Provided: &board})
		if err != nil || lines(pa) != lines(pb) || !cmp.Equal(a, b) {
			t.Fatalf("two answers: %v\n%s\n%s\n%s", err, cmp.Diff(a, b), lines(pa), lines(pb))
		}
		if c, _, err := DecodeV3(t.Context(), doc, Options{Device: device}); err != nil || len(c.Apps) != len(a.Apps) {
			t.Fatalf("what the device offers changes which apps there are: %v", err)
		}
		allComplete(t, a)
	})
}

func allComplete(t *testing.T, target state.Target) {
	for _, app := range target.Apps {
		for name, s := range app.Services {
			complete(t, app, name, s)
		}
	}
}

// complete checks that an accepted service lacks nothing and names nothing that
// its app does not have.
func complete(t *testing.T, app state.App, name string, s state.Service) {
	if s.Name != name || s.Image == "" || s.Hash == "" || s.Strategy == "" {
		t.Fatalf("%s is not complete: %+v", name, s)
	}
	for _, d := range s.DependsOn {
		if _, ok := app.Services[d.Service]; !ok {
			t.Fatalf("%s depends on %s, which is not there", name, d.Service)
		}
	}
	for n := range s.Spec.Networks {
		if _, ok := app.Networks[n]; !ok {
			t.Fatalf("%s joins %s, which is not there", name, n)
		}
	}
}
