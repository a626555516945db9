//go:build engine && linux

package engine_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"deckhand/engine"
	"deckhand/reconcile"
	"deckhand/state"
)

// apiNetwork is an API network that collides with that of no other engine on
// this machine. It goes with the test.
func apiNetwork(t *testing.T) engine.APINetwork {
	t.Helper()
	made, err := docker().Client.NetworkCreate(t.Context(), "pool", network.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := docker().Client.NetworkInspect(t.Context(), made.ID, network.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	removeNetwork(t, made.ID)
	p, err := netip.ParsePrefix(n.IPAM.Config[0].Subnet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, _ := docker().Client.NetworkList(context.Background(), network.ListOptions{})
		for _, n := range list {
			if n.Name == state.APINetworkName {
				_ = docker().Client.NetworkRemove(context.Background(), n.ID)
			}
		}
	})
	b := p.Addr().As4()
	return engine.APINetwork{
		Bridge: fmt.Sprintf("br-api%d", b[1]), Subnet: fmt.Sprintf("10.%d.250.0/25", b[1]), Gateway: fmt.Sprintf("10.%d.250.1", b[1]),
	}
}

func removeNetwork(t *testing.T, id string) {
	t.Helper()
	if err := docker().Client.NetworkRemove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// apiRig is a rig with an API network of its own.
func apiRig(t *testing.T) *rig {
	t.Helper()
	api := apiNetwork(t)
	return newRig(t, func(c *engine.Config) { c.API = api })
}

func (r *rig) world() state.World {
	r.Helper()
	w, err := r.e.Observe(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return w
}

// refused does a step that must fail with the class and name what is in the way.
func (r *rig) refused(s reconcile.Step, class state.Class, texts ...string) {
	r.Helper()
	err := r.e.Do(r.Context(), s, nil)
	if err == nil {
		r.Fatalf("%s succeeded", s.Key())
	}
	for _, text := range texts {
		if state.ClassOf(err) != class || !strings.Contains(err.Error(), text) {
			r.Errorf("%s: %v: want %s and %q", s.Key(), err, class, text)
		}
	}
}

func TestRemoveVolume(t *testing.T) {
	r := newRig(t, nil)
	v := state.Volume{Name: "data", Spec: state.VolumeSpec{Driver: "local"}}
	v.Hash = v.Spec.Hash()
	r.do(reconcile.CreateVolume{App: r.app, Volume: v})
	c := r.made(func(s *state.Service) {
		s.Spec.Mounts = []state.Mount{{Type: "volume", Source: "data", Target: "/data"}}
	})
	remove := reconcile.RemoveVolume{App: r.app, Name: "data", Intent: "i"}
	r.refused(remove, state.ClassEngine, c.Name, "uses it")
	r.do(reconcile.Remove{App: r.app, Service: "web", Container: c.ID})
	r.do(remove)
	if left := r.now().Volumes; len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	r.do(remove) // gone is gone

	name := state.VolumeName(r.app.ID, "data")
	for what, labels := range map[string]map[string]string{
		"a project's":   {state.LabelProject: "demo"},
		"another app's": {state.LabelAppUUID: "other"},
	} {
		if _, err := docker().Client.VolumeCreate(t.Context(), volume.CreateOptions{Name: name, Labels: labels}); err != nil {
			t.Fatal(err)
		}
		r.refused(remove, state.ClassInvalid, "its data is kept")
		if err := docker().Client.VolumeRemove(t.Context(), name, false); err != nil {
			t.Errorf("%s volume: %v", what, err)
		}
	}
}

func TestAPINetwork(t *testing.T) {
	r := apiRig(t)
	if r.world().APINetwork {
		t.Fatal("there before it was made")
	}
	uses := func(v *state.Service) { v.Spec.Features = []string{state.FeatureAPI} }
	r.refused(r.create(uses), state.ClassEngine, state.APINetworkName+" does not exist")
	r.do(reconcile.CreateAPINetwork{})
	r.do(reconcile.CreateAPINetwork{})
	if !r.world().APINetwork {
		t.Fatal("not seen after it was made")
	}
	c := r.made(uses)
	if !c.API {
		t.Errorf("a container that never ran is not on it: %+v", c)
	}
	r.do(r.create(uses)) // nothing is made twice
	if n := len(r.now().Containers); n != 1 {
		t.Errorf("%d containers", n)
	}
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	if c = r.now().Containers[0]; !c.API || len(c.Networks) != 1 {
		t.Errorf("running: %+v", c)
	}
}

// A network of that name with other settings, as an older system left it.
func TestAPINetworkIsMadeAnew(t *testing.T) {
	r := apiRig(t)
	old, err := docker().Client.NetworkCreate(t.Context(), state.APINetworkName, network.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := r.made(func(v *state.Service) { v.Spec.Features = []string{state.FeatureAPI} })
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	if w := r.world(); w.APINetwork || !w.Apps[r.app.UUID].Containers[0].API {
		t.Errorf("right: %v, attached: %v", w.APINetwork, w.Apps[r.app.UUID].Containers[0].API)
	}
	r.refused(reconcile.CreateAPINetwork{}, state.ClassEngine, c.Name)
	r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID})
	r.do(reconcile.CreateAPINetwork{})
	w := r.world()
	if !w.APINetwork {
		t.Error("still not right")
	}
	if w.Apps[r.app.UUID].Containers[0].API {
		t.Errorf("a container of network %.12s counts as attached to the new one", old.ID)
	}
	if err := r.start(c); err == nil {
		t.Error("test is wrong: the engine starts a container whose network is gone")
	}
}

func TestExternalNetworkAndVolume(t *testing.T) {
	r := newRig(t, nil)
	outside := "outside-" + fmt.Sprint(r.app.ID)
	on := func(v *state.Service) {
		v.Spec.Networks["shared"] = state.Attachment{External: outside, Aliases: []string{"web"}}
		v.Spec.MainNetwork = "shared"
		v.Spec.Mounts = []state.Mount{{Type: "volume", Source: outside, External: true, Target: "/data"}}
	}
	step := r.create(on)
	r.refused(step, state.ClassInvalid, "external network "+outside)
	made, err := docker().Client.NetworkCreate(t.Context(), outside, network.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = docker().Client.NetworkRemove(context.Background(), made.ID) })
	r.refused(step, state.ClassInvalid, "external volume "+outside)
	if _, err := docker().Client.VolumeCreate(t.Context(), volume.CreateOptions{Name: outside}); err != nil {
		t.Fatal(err)
	}
	c := r.made(on)
	r.do(r.create(on))
	if n := len(r.now().Containers); n != 1 {
		t.Errorf("made a second time")
	}
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	in, err := docker().Client.ContainerInspect(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(in.NetworkSettings.Networks) != 2 || in.NetworkSettings.Networks[outside] == nil {
		t.Errorf("networks: %+v", in.NetworkSettings.Networks)
	}
	if !slices.ContainsFunc(in.Mounts, func(m container.MountPoint) bool { return m.Name == outside && m.Destination == "/data" }) {
		t.Errorf("mounts: %+v", in.Mounts)
	}
}

func TestNetworkOfAnotherService(t *testing.T) {
	r := newRig(t, nil)
	shares := func(v *state.Service) {
		v.Name = "side"
		v.Spec.Networks, v.Spec.NetworkMode = nil, "service:web"
		v.Spec.Command = []string{"sh", "-c", "ip addr"}
	}
	r.refused(r.create(shares), state.ClassEngine, "no container of web")
	old := r.made(nil)
	if err := r.start(old); err != nil {
		t.Fatal(err)
	}
	r.do(r.create(func(v *state.Service) { v.Spec.User = "0" })) // another one that will stay
	r.do(r.create(shares))
	var side, fresh state.Container
	for _, c := range r.now().Containers {
		switch {
		case c.Service == "side":
			side = c
		case c.ID != old.ID:
			fresh = c
		}
	}
	if side.NetworkOwner != fresh.ID {
		t.Fatalf("it uses the network of %s, not that of the newest, %s", side.NetworkOwner, fresh.ID)
	}
	if err := r.start(side); err == nil || !strings.Contains(err.Error(), "non running container") {
		t.Errorf("started without its owner: %v", err)
	}
	if err := r.start(fresh); err != nil {
		t.Fatal(err)
	}
	if err := r.start(side); err != nil {
		t.Error(err)
	}
	if in, err := docker().Client.ContainerInspect(t.Context(), side.ID); err != nil || in.HostConfig.NetworkMode != container.NetworkMode("container:"+fresh.ID) {
		t.Errorf("%v %v", in.HostConfig.NetworkMode, err)
	}
}
