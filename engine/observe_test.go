package engine

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/state"
)

const uuid = "0123456789abcdef0123456789abcdef"

func TestReadStatus(t *testing.T) {
	for text, want := range map[string]struct {
		health string
		exit   int
	}{
		"":                       {"", 0},
		"Created":                {"", 0},
		"Up 3 minutes":           {"", 0},
		"Up 3 minutes (healthy)": {"healthy", 0},
		"Up 2 weeks (unhealthy)": {"unhealthy", 0},
		"Up Less than a second (health: starting)": {"starting", 0},
		"Up 3 minutes (Paused)":                    {"", 0},
		"Exited (0) 2 hours ago":                   {"", 0},
		"Exited (137) About a minute ago":          {"", 137},
		"Exited (-1) 2 hours ago":                  {"", -1},
		"Exited (99999999999999999999) ago":        {"", 0},
		"Restarting (1) 5 seconds ago":             {"", 0},
	} {
		health, exit := readStatus(text)
		if health != want.health || (exit != want.exit && !strings.Contains(text, "9999")) {
			t.Errorf("%q: %q %d", text, health, exit)
		}
	}
}

// found is an engine with objects of several makers.
func found() lists {
	ours := func(more ...string) map[string]string {
		l := map[string]string{state.LabelSupervised: "true", state.LabelAppID: "5", state.LabelAppUUID: uuid}
		for i := 0; i+1 < len(more); i += 2 {
			l[more[i]] = more[i+1]
		}
		return l
	}
	on := func(names ...string) *container.NetworkSettingsSummary {
		n := &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{}}
		for _, x := range names {
			n.Networks[x] = nil
		}
		return n
	}
	return lists{
		containers: []container.Summary{
			{ID: "c2", Names: []string{"/other/alias", "/db_1_2_c"}, Labels: ours(state.LabelServiceName, "db", state.LabelServiceID, "x"), State: "exited", Status: "Exited (3) now", Created: 20},
			{ID: "c1", Names: []string{"/web_1_2_c"}, Image: "x", ImageID: "sha256:1", Created: 10, State: "running", Status: "Up 1 second (healthy)",
				Labels: ours(state.LabelServiceName, "web", state.LabelServiceID, "7", state.LabelSpec, "v1:1"), NetworkSettings: on(uuid+"_b", uuid+"_a", "supervisor0"),
				Mounts: []container.MountPoint{{Type: "volume", Name: "5_data"}, {Type: "bind", Name: "5_no"}, {Type: "volume", Name: "55_no"}}},
			{ID: "c0", Names: []string{"/old_9_8"}, Labels: map[string]string{"io.resin.supervised": "1", "io.resin.service-name": "old", "io.resin.app-id": "5"},
				NetworkSettings: on(uuid + "_default"), State: "created", Created: 20},
			{ID: "no-name", Names: []string{"/boring_wozniak"}, Labels: ours(state.LabelServiceName, "web")},
			{ID: "no-service", Names: []string{"/web_1_2_c"}, Labels: ours()},
			{ID: "no-uuid", Names: []string{"/web_1_2_c"}, Labels: map[string]string{state.LabelSupervised: "", state.LabelServiceName: "web"}},
			{ID: "foreign", Names: []string{"/web_1_2_c"}},
			{ID: "project", Names: []string{"/web_1_2_c"}, Labels: ours(state.LabelServiceName, "web", state.LabelProject, "demo")},
			{ID: "empty"},
		},
		networks: []network.Summary{
			{ID: "n3", Name: uuid + "_b", Labels: map[string]string{state.LabelSupervised: "true"}},
			{ID: "n2", Name: uuid + "_a", Labels: ours(state.LabelSpec, "v1:2")},
			{ID: "n1", Name: uuid + "_b", Labels: ours()},
			{ID: "odd", Name: "odd", Labels: map[string]string{state.LabelSupervised: "true"}},
			{ID: "host", Name: "host"},
		},
		volumes: []*volume.Volume{
			nil,
			{Name: "5_data", Labels: map[string]string{state.LabelSupervised: "true", state.LabelAppUUID: uuid, state.LabelSpec: "v1:3"}},
			{Name: "5_before", Labels: nil}, // from before volumes had labels
			{Name: "6_stranger"},
			{Name: "77deadbeef"},
		},
		images: []image.Summary{
			{ID: "sha256:1", RepoTags: []string{"r.example/web:1", "<none>:<none>"}, RepoDigests: []string{"r.example/web@sha256:9", "<none>@<none>"}, Size: 3},
			{ID: "sha256:2"},
		},
	}
}

func TestWorld(t *testing.T) {
	want := state.World{
		Apps: map[string]state.AppNow{uuid: {UUID: uuid, ID: 5,
			Containers: []state.Container{
				{ID: "c1", Name: "web_1_2_c", Service: "web", ServiceID: 7, ImageID: 1, ReleaseID: 2, Commit: "c", Image: "sha256:1", Hash: "v1:1",
					Phase: state.Running, Health: "healthy", Created: 10, Networks: []string{"a", "b"}, Volumes: []string{"data"}},
				{ID: "c0", Name: "old_9_8", Service: "old", ImageID: 9, ReleaseID: 8, Phase: state.Created, Created: 20, Networks: []string{"default"}},
				{ID: "c2", Name: "db_1_2_c", Service: "db", ImageID: 1, ReleaseID: 2, Commit: "c", Phase: state.Exited, ExitCode: 3, Created: 20},
			},
			Networks: []state.NetworkNow{{ID: "n2", Name: "a", Hash: "v1:2"}, {ID: "n1", Name: "b"}, {ID: "n3", Name: "b"}},
			Volumes:  []state.VolumeNow{{Name: "before"}, {Name: "data", Hash: "v1:3"}},
		}},
		Images: map[string]state.Image{
			"sha256:1": {ID: "sha256:1", Refs: []string{"r.example/web:1", "r.example/web@sha256:9"}, Size: 3},
			"sha256:2": {ID: "sha256:2"},
		},
	}
	var log strings.Builder
	e, err := New(Config{Host: "unix:///nowhere", Log: zerolog.New(&log)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if d := cmp.Diff(want, e.world(found())); d != "" {
			t.Fatal(d)
		}
	}
	for _, id := range []string{"no-name", "no-service", "no-uuid", "odd"} {
		if n := strings.Count(log.String(), `"id":"`+id+`"`); n != 1 {
			t.Errorf("%d log lines about %s, want 1", n, id)
		}
	}
	l := found() // the order of the engine's lists does not matter
	slices.Reverse(l.containers)
	slices.Reverse(l.networks)
	slices.Reverse(l.volumes)
	if d := cmp.Diff(want, e.world(l)); d != "" {
		t.Error(d)
	}
}

func TestWorldOfAProject(t *testing.T) {
	e, err := New(Config{Host: "unix:///nowhere", Project: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	w := e.world(found())
	if c := w.Apps[uuid].Containers; len(w.Apps) != 1 || len(c) != 1 || c[0].ID != "project" {
		t.Errorf("a project sees %+v", w.Apps)
	}
}

// Any list the engine may send is either understood or left out.
func FuzzWorld(f *testing.F) {
	seed, err := json.Marshal(found().containers)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, []byte(`[{"Name":"a_b","Labels":{"io.balena.supervised":""}}]`), []byte(`[null,{"Name":"1_x"}]`))
	f.Fuzz(func(t *testing.T, containers, networks, volumes []byte) {
		var l lists
		if json.Unmarshal(containers, &l.containers) != nil || json.Unmarshal(networks, &l.networks) != nil || json.Unmarshal(volumes, &l.volumes) != nil {
			return
		}
		e, err := New(Config{Host: "unix:///nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e.world(l), e.world(l)); d != "" {
			t.Error(d)
		}
	})
}
