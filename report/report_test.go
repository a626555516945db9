package report

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/test/golden"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// golden compares v, as indented JSON, with a file of testdata.
func goldenReport(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	must(t, err)
	golden.File(t, "testdata/"+name+".json", string(got)+"\n")
}

const (
	old   = "aaaaaaaa"
	next  = "bbbbbbbb"
	refA1 = "registry.example/v2/a1@sha256:a1"
	refA2 = "registry.example/v2/a2@sha256:a2"
	refB1 = "registry.example/v2/b1@sha256:b1"
)

func facts() Facts {
	return Facts{
		UUID: "u1", SupervisorVersion: "1.0.0", OSVersion: "balenaOS 6.0", OSVariant: "prod",
		MACAddress: "AA:BB", IPAddress: "10.0.0.2", APIPort: 48484, APISecret: "secret",
	}
}

func app(commit string, services ...state.Service) state.App {
	a := state.App{UUID: "app1", ID: 7, Name: "hall", Commit: commit, ReleaseID: 70, Services: map[string]state.Service{}}
	for _, s := range services {
		a.Services[s.Name] = s
	}
	return a
}

func service(name, image string) state.Service {
	return state.Service{Name: name, ID: 1, ImageID: 2, Image: image, Running: true, Hash: "v1:" + name}
}

func container(id, name, commit, image string, phase state.Phase) state.Container {
	return state.Container{ID: id, Service: name, Commit: commit, Image: image, Phase: phase, Hash: "v1:" + name}
}

func target(apps ...state.App) state.Target {
	t := state.Target{Apps: map[string]state.App{}}
	for _, a := range apps {
		t.Apps[a.UUID] = a
	}
	return t
}

func world(commit string, images []state.Image, containers ...state.Container) state.World {
	w := state.World{Apps: map[string]state.AppNow{"app1": {UUID: "app1", ID: 7, Commit: commit, Containers: containers}}, Images: map[string]state.Image{}}
	for _, i := range images {
		w.Images[i.ID] = i
	}
	return w
}

func image(id string, refs ...string) state.Image { return state.Image{ID: id, Refs: refs} }

// One golden file for each moment of a device's life.
func TestReports(t *testing.T) {
	a1, a2, b1 := image("ia1", "registry.example/v2/a1:latest", refA1), image("ia2", refA2), image("ib1", refB1)
	appRef := reconcile.App{UUID: "app1", ID: 7}
	for name, in := range map[string]Input{
		"hand-over-failed": {
			Target: target(app(next, service("a", refA2))),
			World: func() state.World {
				w := world(old, []state.Image{a1, a2}, container("c1", "a", old, "ia1", state.Running))
				app1 := w.Apps["app1"]
				app1.Handovers = map[string]state.Handover{"a": {Hash: "v1:a", Image: refA2, Failed: true}}
				w.Apps["app1"] = app1
				return w
			}(),
		},
		"waiting": {
			Target: target(app(next, service("a", refA2)), state.App{UUID: "app2", ID: 8, Commit: next}),
			World:  world(old, []state.Image{a1}, container("c1", "a", old, "ia1", state.Running)),
			Waiting: map[string][]Wait{"app1": {
				{Step: "take locks of hall", Class: state.ClassLocked, Text: "an update lock is held", Holder: "hall/a: updates.lock of user 1000", Since: time.Unix(1e9, 5)},
				{Step: "fetch a2 for hall/a", Class: state.ClassNetwork, Text: strings.Repeat("é", 400), Tries: 3, Until: time.Unix(2e9, 5)},
			}},
		},
		"no-target": {World: world("", nil)},
		"empty-target": {
			Target: target(),
			World:  world(old, []state.Image{a1}, container("c1", "a", old, "ia1", state.Running)),
		},
		"first-install-nothing-yet": {
			Target: target(app(old, service("a", refA1), service("b", refB1))),
		},
		"first-install-downloading": {
			Target: target(app(old, service("a", refA1), service("b", refB1))),
			World:  world("", []state.Image{b1}),
			Running: []Running{
				{Step: reconcile.Fetch{Image: refA1}, Done: 333, Total: 1000},
			},
		},
		"first-install-creating": {
			Target:  target(app(old, service("a", refA1), service("b", refB1))),
			World:   world("", []state.Image{a1, b1}, container("c2", "b", old, "ib1", state.Created)),
			Running: []Running{{Step: reconcile.Create{App: appRef, Commit: old, Service: service("a", refA1)}}, {Step: reconcile.Start{App: appRef, Service: "b", Hash: "v1:b"}}},
		},
		"settled": {
			Target: target(app(old, service("a", refA1), service("b", refB1))),
			World:  world(old, []state.Image{a1, b1}, container("c1", "a", old, "ia1", state.Running), container("c2", "b", old, "ib1", state.Exited)),
		},
		"update-stopping": {
			Target: target(app(next, service("a", refA2), service("b", refB1))),
			World: world(old, []state.Image{a1, a2, b1},
				container("c1", "a", old, "ia1", state.Running), container("c2", "b", next, "ib1", state.Running), container("c3", "a", next, "ia2", state.Created)),
			Running: []Running{{Step: reconcile.Stop{App: appRef, Service: "a", Container: "c1"}}},
		},
		"hand-over": {
			Target: target(app(next, service("a", refA2))),
			World:  world(old, []state.Image{a1, a2}, container("c1", "a", old, "ia1", state.Running), container("c3", "a", next, "ia2", state.Running)),
		},
		"rejected": {
			Target: target(func() state.App { a := app(next, service("a", refA2)); a.Rejected = "no"; return a }()),
			World:  world(old, []state.Image{a1}, container("c1", "a", old, "ia1", state.Running)),
		},
		"odd-containers": { // no commit, an image without a name, a duplicate, other phases
			Target: target(app(old, service("a", refA1))),
			World: world(old, []state.Image{a1, image("nameless"), b1},
				container("c0", "a", old, "ia1", state.Dead), container("c1", "a", old, "ia1", state.Running), container("c2", "a", old, "ia1", state.Created),
				container("c3", "x", "", "ib1", state.Running), container("c4", "y", old, "nameless", state.Running),
				container("c5", "z", next, "ib1", state.Restarting), container("c6", "p", next, "ib1", state.Paused), container("c7", "r", next, "ib1", state.Removing)),
		},
		"not-to-run": {
			Target: target(app(old, func() state.Service { s := service("a", refA1); s.Running = false; return s }())),
			World:  world(old, []state.Image{a1}, container("c1", "a", old, "ia1", state.Created)),
		},
		"app-without-release": {
			Target: target(app("")),
			World:  world(old, []state.Image{a1}, container("c1", "a", old, "ia1", state.Running)),
		},
		"app-removed": {
			Target: target(state.App{UUID: "app2", ID: 8, Commit: next}),
			World:  world(old, []state.Image{a1}, container("c1", "a", old, "ia1", state.Running)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			in.Facts = facts()
			goldenReport(t, name, Build(in))
		})
	}
}

// While images are fetched one after the other, the release never looks
// finished and no finished image shows progress.
func TestAnUpdateNeverLooksDoneBetweenDownloads(t *testing.T) {
	refs := []string{refA1, refA2, refB1}
	want := target(app(next, service("a", refA1), service("b", refA2), service("c", refB1)))
	var images []state.Image
	for i, ref := range refs {
		for _, running := range [][]Running{nil, {{Step: reconcile.Fetch{Image: ref}}}, {{Step: reconcile.Fetch{Image: ref}, Done: 5, Total: 10}}, {{Step: reconcile.Fetch{Image: ref}, Done: 20, Total: 10}}} {
			release := Build(Input{Facts: facts(), Target: want, World: world(old, images), Running: running}).Device.Apps["app1"].Releases[next]
			if release.UpdateStatus != DownloadingNow || len(release.Services) != 3 {
				t.Errorf("with %d images: %s, %d services", i, release.UpdateStatus, len(release.Services))
			}
			for name, s := range release.Services {
				if (s.Progress != nil) != (s.Status == Downloading) || s.Progress != nil && *s.Progress > 99 {
					t.Errorf("with %d images: %s is %s with progress %v", i, name, s.Status, s.Progress)
				}
			}
		}
		images = append(images, image("i"+string(rune('0'+i)), ref))
	}
	if s := Build(Input{Facts: facts(), Target: want, World: world(old, images)}).Device.Apps["app1"].Releases[next].UpdateStatus; s != DownloadedAll {
		t.Errorf("with all images: %s", s)
	}
}

func TestNumbersOfADownloadDoNotMatter(t *testing.T) {
	for _, n := range []struct {
		done, total int64
		want        int
	}{{0, 0, 0}, {5, 0, 0}, {-5, 10, 0}, {5, -1, 0}, {1, 3, 33}, {10, 10, 99}, {1 << 62, 1<<62 + 1, 99}} {
		if got := *percent(Running{Done: n.done, Total: n.total}); got != n.want {
			t.Errorf("%d of %d is %d %%, want %d", n.done, n.total, got, n.want)
		}
	}
}

func TestDiff(t *testing.T) {
	base := Input{Facts: facts(), Target: target(app(old, service("a", refA1))), World: world(old, []state.Image{image("ia1", refA1)}, container("c1", "a", old, "ia1", state.Running))}
	first := Build(base)
	check := func(name string, last, now Report, want string) {
		t.Helper()
		patch, empty, err := Diff(last, now)
		must(t, err)
		if empty != (want == "") || string(patch) != want {
			t.Errorf("%s: patch %s, want %s", name, patch, want)
		}
	}
	check("nothing new", first, Build(base), "")

	moved := base
	moved.Facts.IPAddress = "10.0.0.3"
	check("address", first, Build(moved), `{"u1":{"ip_address":"10.0.0.3"}}`)

	gone := base
	gone.Facts.IPAddress = ""
	check("a field that is gone is not nulled", first, Build(gone), "")

	stopped := base
	stopped.World = world(old, []state.Image{image("ia1", refA1)}, container("c1", "a", old, "ia1", state.Exited))
	check("apps go as a whole", first, Build(stopped),
		`{"u1":{"apps":{"app1":{"release_uuid":"aaaaaaaa","releases":{"aaaaaaaa":{"update_status":"done","services":{"a":{"image":"`+refA1+`","status":"exited"}}}}}}}}`)

	unknown := base
	unknown.Target.Apps = nil
	check("no target: silence about apps", first, Build(unknown), "")

	other := base
	other.Facts.UUID = "u2"
	full, _, err := Diff(Report{}, Build(other))
	must(t, err)
	check("another identity gets everything", first, Build(other), string(full))
	if !strings.Contains(string(full), `"api_secret":"secret"`) || !strings.Contains(string(full), `"provisioning_progress":null`) {
		t.Errorf("full report %s", full)
	}
}

func TestReportsSurviveTheStore(t *testing.T) {
	first := Build(Input{Facts: facts(), Target: target(app(old, service("a", refA1)))})
	b, err := json.Marshal(first)
	must(t, err)
	var again Report
	must(t, json.Unmarshal(b, &again))
	if _, empty, err := Diff(again, first); err != nil || !empty {
		t.Errorf("a report that was stored differs from itself: %v", err)
	}
	for _, bad := range []string{`{}`, `[]`, `{"a":{},"b":{}}`, `{"a":5}`, `null`} {
		if json.Unmarshal([]byte(bad), &again) == nil {
			t.Errorf("%s was read as a report", bad)
		}
	}
}

func TestIPAddresses(t *testing.T) {
	ip := func(s ...string) (out []net.IP) {
		for _, x := range s {
			out = append(out, net.ParseIP(x))
		}
		return out
	}
	all := []Interface{
		{"lo", true, ip("127.0.0.1", "::1")},
		{"eth0", true, ip("192.168.1.5", "fe80::1", "2001:db8::5", "169.254.3.4")},
		{"wlan0", true, ip("192.168.1.5", "10.1.1.1")},
		{"eth1", false, ip("10.9.9.9")},
		{"docker0", true, ip("172.17.0.1")},
		{"br-0123456789ab", true, ip("172.18.0.1")},
		{"br-lan", true, ip("10.2.0.1")},
		{"balena0", true, ip("10.114.101.1")},
		{"supervisor0", true, ip("10.114.104.1")},
		{"tun0", true, ip("10.8.0.1")},
		{"resin-vpn", true, ip("10.8.0.2")},
		{"veth12", true, ip("fe80::2")},
		{"empty", true, nil},
	}
	if got := IPAddresses(all); got != "192.168.1.5 2001:db8::5 169.254.3.4 10.1.1.1 10.2.0.1" {
		t.Errorf("addresses %q", got)
	}
	if got := IPAddresses(nil); got != "" {
		t.Errorf("no interfaces: %q", got)
	}
	if _, err := Interfaces(); err != nil {
		t.Errorf("this host: %v", err)
	}
}

func TestMACAddresses(t *testing.T) {
	dir := t.TempDir()
	add := func(name, kind, mac string, master bool) {
		path := filepath.Join(dir, name)
		must(t, os.Mkdir(path, 0o700))
		must(t, os.WriteFile(filepath.Join(path, "type"), []byte(kind+"\n"), 0o600))
		if mac != "" {
			must(t, os.WriteFile(filepath.Join(path, "address"), []byte(mac+"\n"), 0o600))
		}
		if master {
			must(t, os.Symlink("../br", filepath.Join(path, "master")))
		}
	}
	add("eth0", "1", "dc:a6:32:00:00:01", false)
	add("eth0.5", "1", "dc:a6:32:00:00:01", false)
	add("wlan0", "1", "dc:a6:32:00:00:02", false)
	add("veth1", "1", "02:00:00:00:00:01", true)
	add("docker0", "1", "02:42:00:00:00:01", false)
	add("can0", "280", "", false)
	add("odd", "1", "not a mac", false)
	add("none", "1", "", false)
	must(t, os.WriteFile(filepath.Join(dir, "bonding_masters"), nil, 0o600))
	if got := MACAddresses(dir); got != "DC:A6:32:00:00:01 DC:A6:32:00:00:02" {
		t.Errorf("addresses %q", got)
	}
	if got := MACAddresses(filepath.Join(dir, "no")); got != "" {
		t.Errorf("no folder: %q", got)
	}
}
