package compose

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

func TestNetworkOfAnotherService(t *testing.T) {
	p, problems := release(t, `{"services":{
		"a":{"image":"i","network_mode":"service: vpn"},
		"b":{"image":"i","network_mode":"service:vpn","depends_on":{"vpn":{"condition":"service_healthy","restart":true,"required":false}}},
		"c":{"image":"i","network_mode":"container:outside"},
		"vpn":{"image":"i","ports":["80"]}}}`)
	if got, want := lines(problems), "services.b.depends_on.vpn.required: ignored: the network of vpn is used"; got != want {
		t.Error(got)
	}
	for name, want := range map[string][]state.Dependency{
		"a": {{Service: "vpn", Condition: state.Started}},
		"b": {{Service: "vpn", Condition: state.Healthy, Restart: true}},
		"c": nil,
	} {
		s := p.Services[name]
		if diff := cmp.Diff(want, s.DependsOn); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if len(s.Spec.Networks) > 0 || s.Spec.MainNetwork != "" {
			t.Errorf("%s joins a network of its own: %v", name, s.Spec.Networks)
		}
	}
	if a, c := p.Services["a"].Spec, p.Services["c"].Spec; a.NetworkOwner() != "vpn" || c.NetworkMode != "container:outside" || c.NetworkOwner() != "" {
		t.Errorf("%q, %q", a.NetworkMode, c.NetworkMode)
	}

	for doc, want := range map[string]string{
		`{"services":{"a":{"image":"i","network_mode":"service:b"},"b":{"image":"i","network_mode":"service:a"}}}`:                                                       "services.a.depends_on: rejected: the services wait for each other: a → b → a",
		`{"services":{"a":{"image":"i","network_mode":"service:b"},"b":{"image":"i","depends_on":["a"]}}}`:                                                               "services.a.depends_on: rejected: the services wait for each other: a → b → a",
		`{"services":{"a":{"image":"i","network_mode":"service:b","depends_on":{"b":{"condition":"service_completed_successfully"}}},"b":{"image":"i","restart":"no"}}}`: "services.a.depends_on.b.condition: rejected: the network of b is used, which must go on running",
	} {
		if _, problems := release(t, doc); lines(problems) != want {
			t.Errorf("%s\n got %s\nwant %s", doc, lines(problems), want)
		}
	}
}

func TestOptionalDependencies(t *testing.T) {
	p, problems := release(t, `{"services":{
		"a":{"image":"i","depends_on":{"b":{"required":false,"condition":"service_healthy"},"gone":{"required":false}}},
		"b":{"image":"i","healthcheck":{"disable":true}}}}`)
	if got, want := lines(problems), "services.a.depends_on.gone: warned: there is no service gone; it is not required and not waited for"; got != want {
		t.Error(got)
	}
	want := []state.Dependency{{Service: "b", Condition: state.Healthy, Optional: true}}
	if diff := cmp.Diff(want, p.Services["a"].DependsOn); diff != "" {
		t.Error(diff)
	}
}

func TestExternal(t *testing.T) {
	p, problems := release(t, `{
		"services":{"a":{"image":"i","networks":["lan","own"],"volumes":["old:/old:ro","new:/new"]},"b":{"image":"i"}},
		"networks":{"lan":{"external":true,"name":"office"},"own":{"external":false},"default":{"external":{"name":"shared"}}},
		"volumes":{"old":{"external":"yes"},"new":{"external":null}}}`)
	if len(problems) > 0 {
		t.Error(problems)
	}
	a, b := p.Services["a"].Spec, p.Services["b"].Spec
	if diff := cmp.Diff(map[string]state.Attachment{"lan": {Aliases: []string{"a"}, External: "office"}, "own": {Aliases: []string{"a"}}}, a.Networks); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]state.Attachment{"default": {Aliases: []string{"b"}, External: "shared"}}, b.Networks); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]state.Mount{
		{Type: "volume", Source: "new", Target: "/new"}, {Type: "volume", Source: "old", External: true, Target: "/old", ReadOnly: true},
	}, a.Mounts); diff != "" {
		t.Error(diff)
	}
	if _, ok := p.Networks["own"]; !ok || len(p.Networks) != 1 || len(p.Volumes) != 1 {
		t.Errorf("the app's own are %v and %v", p.Networks, p.Volumes)
	}
}

func TestVolumesFrom(t *testing.T) {
	p, problems := release(t, `{"services":{
		"a":{"image":"i","volumes_from":["b:ro"],"volumes":["mine:/taken"]},
		"b":{"image":"i","volumes_from":["service:c"],"volumes":["data:/data","theirs:/taken","/anon"],"tmpfs":["/tmp"]},
		"c":{"image":"i","volumes":["deep:/deep"]}},"volumes":{"mine":null,"theirs":null,"data":null,"deep":null}}`)
	if got, want := lines(problems), "services.a.volumes_from[0]: ignored: the volume at /anon of b has no name and cannot be shared"; got != want {
		t.Error(got)
	}
	want := []state.Mount{
		{Type: "volume", Source: "data", Target: "/data", ReadOnly: true},
		{Type: "volume", Source: "deep", Target: "/deep", ReadOnly: true},
		{Type: "volume", Source: "mine", Target: "/taken"},
	}
	if diff := cmp.Diff(want, p.Services["a"].Spec.Mounts); diff != "" {
		t.Error(diff)
	}
}

func TestUpdateLabels(t *testing.T) {
	s, problems := web(t, `"labels":{"io.resin.update.handover-timeout":"1500.0","io.balena.update.handover-on-timeout":" keep-old ","io.balena.update.requires-reboot":"ON"}`)
	if len(problems) > 0 || s.HandoverTimeout != state.Duration(1500*time.Millisecond) || !s.KeepOld || !s.RequiresReboot {
		t.Errorf("%+v %v", s, problems)
	}
	s, problems = web(t, `"labels":{"io.balena.update.handover-timeout":"","io.balena.update.handover-on-timeout":"stop-old","io.balena.update.requires-reboot":0}`)
	if len(problems) > 0 || s.HandoverTimeout != 0 || s.KeepOld || s.RequiresReboot {
		t.Errorf("%+v %v", s, problems)
	}
}

func TestFeatures(t *testing.T) {
	s, problems := web(t, `"labels":{"io.resin.features.resin-api":"1","io.balena.features.supervisor-api":true,"io.balena.features.dbus":"0",
		"io.balena.features.sysfs":"On","io.balena.features.optional":"1","io.balena.features.procfs":1}`)
	if len(problems) > 0 {
		t.Error(problems)
	}
	if diff := cmp.Diff([]string{"balena-api", "procfs", "supervisor-api", "sysfs"}, s.Spec.Features); diff != "" {
		t.Error(diff)
	}
	if !s.Spec.UsesAPINetwork() {
		t.Error("the supervisor's API cannot be reached")
	}
	want := map[string]string{
		"io.balena.features.balena-api": "1", "io.balena.features.supervisor-api": "true", "io.balena.features.dbus": "0",
		"io.balena.features.sysfs": "On", "io.balena.features.optional": "1", "io.balena.features.procfs": "1",
	}
	if diff := cmp.Diff(want, s.Spec.Labels); diff != "" {
		t.Error(diff)
	}
}
