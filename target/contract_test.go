package target

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"deckhand/state"
)

// board is a device of which everything is known.
var board = Provided{
	Supervisor: "19.0.5", DeviceType: "jetson-nano", Arch: "aarch64", L4T: "32.7.4",
	OS: "balena-os", OSVersion: "5.5.5+rev3", Kernel: "linux", KernelVersion: "4.9.337",
}

// webWith is the only app of a document, of whose services web has a contract.
func webWith(t *testing.T, contract string, provided *Provided) (state.App, string) {
	t.Helper()
	got, problems := decodeFor(t, oneService(`,"contract":`+contract), provided)
	return got.Apps["a1"], strings.ReplaceAll(lines(problems), "apps.a1.releases.c1.services.web.", "")
}

func TestRequirements(t *testing.T) {
	for _, c := range []struct {
		requires string
		met      bool
	}{
		{``, true},
		{`{"type":"sw.supervisor"}`, true},
		{`{"type":"sw.supervisor","version":">=12.11.0"}`, true},
		{`{"type":"sw.supervisor","version":">999"}`, false},
		{`{"type":"sw.supervisor","slug":"balena-supervisor"}`, false},
		{`{"type":"hw.device-type","slug":"jetson-nano"}`, true},
		{`{"type":"hw.device-type","slug":"raspberrypi3"}`, false},
		{`{"type":"hw.device-type","slug":"jetson-nano","version":"1"}`, false},
		{`{"type":"arch.sw","slug":"aarch64"}`, true},
		{`{"type":"arch.sw","slug":"amd64"}`, false},
		{`{"type":"sw.l4t","version":">=32.2 <33"}`, true},
		{`{"type":"sw.l4t","version":"<32.2"}`, false},
		{`{"type":"sw.os","slug":"balena-os","version":"5.5.5+rev420"}`, true},
		{`{"type":"sw.os","slug":"balena-os","version":"^5.0.0"}`, true},
		{`{"type":"sw.os","slug":"debian"}`, false},
		{`{"type":"sw.kernel","slug":"linux","version":"4.9.x || >=5"}`, true},
		{`{"type":"sw.kernel","version":""}`, true},
		{`{"type":"sw.kernel","version":"newest"}`, false},
		{`{"type":"sw.spec","slug":"compose","version":">=2"}`, true},
		{`{"type":"sw.spec","slug":"compose","version":">=3"}`, false},
		{`{"type":"arch.sw","slug":"aarch64","data":{}}`, true},
		{`{"type":"arch.sw","slug":"aarch64","data":{"bits":64}}`, false},
		{`{"type":"arch.sw","slug":"aarch64"},{"type":"arch.sw","slug":"amd64"}`, false},
		{`{"or":[{"type":"arch.sw","slug":"amd64"},{"type":"arch.sw","slug":"aarch64"}]}`, true},
		{`{"or":[{"type":"arch.sw","slug":"amd64"},{"type":"arch.sw","slug":"rpi"}]}`, false},
		{`{"or":[{"or":[{"type":"arch.sw","slug":"aarch64"}]}]}`, true},
		{`{"or":[]}`, true},
	} {
		app, _ := webWith(t, `{"type":"sw.container","slug":"x","requires":[`+c.requires+`]}`, &board)
		if met := app.Rejected == ""; met != c.met {
			t.Errorf("%s: met %v, want %v (%s)", c.requires, met, c.met, app.Rejected)
		}
	}
}

// What is not known meets nothing.
func TestADeviceThatKnowsNothingOfItself(t *testing.T) {
	for _, kind := range []string{"sw.supervisor", "sw.l4t", "sw.os", "sw.kernel", "hw.device-type", "arch.sw"} {
		app, _ := webWith(t, `{"requires":[{"type":"`+kind+`"}]}`, &Provided{})
		if want := "services.web.contract: web requires " + kind + "; this device offers nothing of that kind"; app.Rejected != want {
			t.Errorf("got %q\nwant %q", app.Rejected, want)
		}
	}
	app, _ := webWith(t, `{"requires":[{"type":"sw.os","version":">=12"}]}`, &Provided{OS: "debian", OSVersion: "12 (bookworm)"})
	if want := "services.web.contract: web requires sw.os >=12; this device offers debian 12 (bookworm) (not a version)"; app.Rejected != want {
		t.Errorf("got %q\nwant %q", app.Rejected, want)
	}
}

func TestWhatIsSaidOfContracts(t *testing.T) {
	for _, c := range []struct{ contract, want string }{
		{`{}`, ``},
		{`[]`, ``},
		{`{"requires":null,"provides":[],"name":"n"}`, ``},
		{`{"requires":[{"type":"sw.os","slug":"debian"},{"type":"sw.l4t","version":"bad"},{"type":"arch.sw","data":{"a":1}}]}`,
			`contract: rejected: web requires sw.os debian; this device offers balena-os 5.5.5+rev3, and ` +
				`web requires sw.l4t bad (not a range of versions); this device offers 32.7.4, and ` +
				`web requires arch.sw with data, which no device offers; this device offers aarch64`},
		{`{"requires":[{"or":[{"type":"arch.sw","slug":"amd64"},{"type":"sw.l4t","version":">99"}]}]}`,
			`contract: rejected: web requires arch.sw amd64 or sw.l4t >99; this device offers aarch64, 32.7.4`},
		{`{"requires":[{"type":"hw.device-type","name":"x"}]}`, `contract.requires[0].name: warned: is not compared with anything; slug and version are`},
		{`{"requires":[{"or":[]}]}`, `contract.requires[0].or: warned: empty, so it requires nothing`},
		{`{"requires":[{"type":"sw.python"}]}`, `contract.requires[0].type: rejected: "sw.python" is not known; use one of ` + kinds},
		{`{"requires":[{"or":[{"type":"x"}]}]}`, `contract.requires[0].or[0].type: rejected: "x" is not known; use one of ` + kinds},
		{`{"requires":[{"version":"1"}]}`, `contract.requires[0].type: rejected: missing; use one of ` + kinds},
		{`{"requires":[{"type":"sw.os","or":[]}]}`, `contract.requires[0]: rejected: has both type and or; write two requirements`},
		{`{"requires":[{"or":{}}]}`, `contract.requires[0].or: rejected: want a list, got an object`},
		{`{"requires":["arch.sw"]}`, `contract.requires[0]: rejected: want an object, got "arch.sw"`},
		{`{"requires":{"type":"arch.sw"}}`, `contract.requires: rejected: want a list, got an object`},
		{`{"type":5,"slug":[]}`, "contract.slug: rejected: want text, got an array\ncontract.type: rejected: want text, got 5"},
		{`{"requires":[{"type":"sw.os","version":12,"slug":1,"data":"x"}]}`,
			"contract.requires[0].data: rejected: want an object, got \"x\"\n" +
				"contract.requires[0].slug: rejected: want text, got 1\n" +
				"contract.requires[0].version: rejected: want text, got 12"},
		{`{"requires":[{"type":"sw.os","version":"` + strings.Repeat("1", 256) + `"}]}`, `contract.requires[0].version: rejected: longer than 255 characters`},
		{`[1]`, `contract: rejected: want an object, got an array`},
	} {
		app, got := webWith(t, c.contract, &board)
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.contract, got, c.want)
		}
		if rejected := strings.Contains(c.want, "rejected:"); rejected != (app.Rejected != "") || rejected != (len(app.Services) == 0) {
			t.Errorf("%s: rejected %q with %d services", c.contract, app.Rejected, len(app.Services))
		}
	}
}

func TestContractsAreOnlyCheckedForTheirFormWhereTheDeviceIsNotKnown(t *testing.T) {
	app, said := webWith(t, `{"requires":[{"type":"sw.supervisor","version":">999"}]}`, nil)
	if want := "contract: warned: not evaluated: what the device offers is not known here"; said != want || app.Rejected != "" {
		t.Errorf("%s; rejected %q", said, app.Rejected)
	}
	if app, _ := webWith(t, `{"requires":[{"type":"x"}]}`, nil); app.Rejected == "" {
		t.Error("an unknown requirement is accepted")
	}
}

// serve writes services of one app: name → fields beside the required ones.
func serve(services map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(services)) {
		out = append(out, fmt.Sprintf(`%q:{"id":1,"image_id":1,"image":"img","environment":{},"labels":{}%s}`, name, services[name]))
	}
	return `"releases":{"c":{"id":1,"services":{` + strings.Join(out, ",") + `}}}`
}

const (
	never    = `,"contract":{"requires":[{"type":"sw.supervisor","version":">999"}]}`
	optional = `,"labels":{"io.balena.features.optional":"1"}`
)

func TestOneAppWhoseContractIsUnmetHoldsUpNoOther(t *testing.T) {
	got, problems := decodeFor(t, whole(`"a1":{"id":1,"name":"one",`+serve(map[string]string{"web": never, "db": ""})+`},
		"a2":{"id":2,"name":"two",`+serve(map[string]string{"web": ""})+`}`), &board)
	one, two := got.Apps["a1"], got.Apps["a2"]
	if one.Rejected != "services.web.contract: web requires sw.supervisor >999; this device offers 19.0.5" || one.Services != nil || one.Commit != "c" {
		t.Errorf("%+v", one)
	}
	if two.Rejected != "" || len(two.Services) != 1 || len(problems) != 1 {
		t.Errorf("%+v\n%s", two, lines(problems))
	}
	newer := board
	newer.Supervisor = "1000.0.0"
	if got, _ := decodeFor(t, whole(`"a1":{"id":1,"name":"one",`+serve(map[string]string{"web": never})+`}`), &newer); got.Apps["a1"].Rejected != "" {
		t.Error("the same document on a device that has what it needs is rejected")
	}
}

func TestOptionalServices(t *testing.T) {
	app := `"a1":{"id":1,"name":"one",`
	got, problems := decodeFor(t, whole(app+serve(map[string]string{
		"ml":   never + optional,
		"web":  `,"composition":{"depends_on":["ml","db"]}`,
		"api":  `,"composition":{"depends_on":{"ml":{"condition":"service_healthy"},"db":{"condition":"service_started"}}}`,
		"db":   optional,
		"util": never + `,"composition":{"labels":{"io.resin.features.optional":true}}`,
	})+`}`), &board)
	a1 := got.Apps["a1"]
	if names := slices.Sorted(maps.Keys(a1.Services)); !slices.Equal(names, []string{"api", "db", "web"}) || a1.Rejected != "" {
		t.Errorf("services %v, rejected %q", names, a1.Rejected)
	}
	for _, name := range []string{"api", "web"} {
		if d := a1.Services[name].DependsOn; len(d) != 1 || d[0].Service != "db" {
			t.Errorf("%s depends on %v, want db alone", name, d)
		}
	}
	said := lines(problems)
	for _, want := range []string{
		"services.ml.contract: warned: ml requires sw.supervisor >999; this device offers 19.0.5; the service is optional and left out",
		"services.util.contract: warned: util requires",
		"services.web.depends_on: ignored: ml is left out on this device and not waited for",
		"services.api.depends_on: ignored: ml is left out",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("got\n%s\nwant %s", said, want)
		}
	}
	// One that is not optional decides for all.
	got, problems = decodeFor(t, whole(app+serve(map[string]string{"ml": never + optional, "web": never})+`}`), &board)
	if a1 := got.Apps["a1"]; !strings.Contains(a1.Rejected, "web requires") || strings.Contains(lines(problems), "left out") {
		t.Errorf("%+v\n%s", a1, lines(problems))
	}
	// Optional is the word for a contract that cannot be met, not for one that cannot be read.
	broken := `,"contract":{"requires":[{"type":"x"}]}`
	if got, _ := decodeFor(t, whole(app+serve(map[string]string{"ml": broken + optional})+`}`), &board); got.Apps["a1"].Rejected == "" {
		t.Error("a contract that cannot be read is accepted because its service is optional")
	}
	off := strings.Replace(optional, `"1"`, `"off"`, 1)
	if got, _ := decodeFor(t, whole(app+serve(map[string]string{"ml": never + off})+`}`), &board); got.Apps["a1"].Rejected == "" {
		t.Error("optional: off counts as optional")
	}
}

func TestAHostsAppKeepsItsServicesForTheDataPartition(t *testing.T) {
	services := serve(map[string]string{
		"plain":    "",
		"service":  `,"labels":{"io.balena.image.class":"service","io.balena.image.store":"data"}`,
		"hostapp":  `,"composition":{"labels":{"io.balena.image.class":"hostapp"}}`,
		"overlay":  `,"labels":{"io.balena.image.class":"overlay"}` + never,
		"in-root":  `,"labels":{"io.balena.image.store":"root"}`,
		"mistaken": `,"labels":{"io.balena.image.class":"service"},"composition":{"labels":["io.balena.image.class=overlay"]}`,
	})
	got, problems := decodeFor(t, whole(`"h":{"id":1,"name":"os","is_host":true,`+services+`},"a":{"id":2,"name":"app",`+strings.ReplaceAll(services, never, "")+`}`), &board)
	host := got.Apps["h"]
	if names := slices.Sorted(maps.Keys(host.Services)); !host.Host || !slices.Equal(names, []string{"mistaken", "plain", "service"}) || host.Rejected != "" {
		t.Errorf("host %v, services %v, rejected %q", host.Host, names, host.Rejected)
	}
	if want := `apps.h.releases.c.services.hostapp: ignored: io.balena.image.class is hostapp: it is part of the host, which updates it
apps.h.releases.c.services.in-root: ignored: io.balena.image.store is root: another engine of the host runs it
apps.h.releases.c.services.overlay: ignored: io.balena.image.class is overlay: it is part of the host, which updates it`; lines(problems) != want {
		t.Errorf("got\n%s", lines(problems))
	}
	if app := got.Apps["a"]; app.Host || len(app.Services) != 6 {
		t.Errorf("the labels mean nothing in other apps: %+v", app)
	}
}

func TestTheSupervisorItselfIsLeftToTheHost(t *testing.T) {
	const own = "52e35121417640b1b28a680504e4039b"
	services := serve(map[string]string{"core": never, "main": "", "balena-supervisor": "", "relay": `,"composition":{"depends_on":["core"]}`})
	got, problems := decodeFor(t, whole(`"`+own+`":{"id":1,"name":"s","class":"app",`+services+`},"a":{"id":2,"name":"app",`+serve(map[string]string{"main": ""})+`}`), &board)
	if names := slices.Collect(maps.Keys(got.Apps[own].Services)); !slices.Equal(names, []string{"relay"}) {
		t.Errorf("services %v, want only relay", names)
	}
	if said := lines(problems); strings.Count(said, "this is the supervisor itself") != 3 {
		t.Errorf("got\n%s", said)
	}
	if len(got.Apps["a"].Services) != 1 || IsSupervisor("a", "main") || !IsSupervisor(own, "main") || IsSupervisor(own, "relay") {
		t.Error("only the supervisor's own apps hold the supervisor")
	}
}
