package story

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"deckhand/reconcile/sim"
	"deckhand/state"
)

// Device is a device before the first plan of a scenario.
type Device struct {
	World state.World
	Fails []string       // beginnings of the titles of steps that fail every time
	Slow  map[string]int // beginnings of the titles of steps that take so many rounds

	want  map[string]string // releases that are asked for now, by app UUID; empty: those that are here
	asked int               // wishes so far
}

// verb is a line of a device section.
type verb struct {
	words string
	do    func(d *Device, arg []string) error
	calm  bool // the first plan is still what will be done
}

// verbs lists them all.
func verbs() []verb { return slices.Concat(objectVerbs, lockVerbs, wishVerbs, systemVerbs) }

// objectVerbs are the lines about containers, networks, volumes and images.
// Words in capitals stand for anything; a SERVICE of another app than shop is
// written app/service.
var objectVerbs = []verb{
	{words: "SERVICE exited CODE", do: func(d *Device, arg []string) error {
		return d.container(arg[0], func(c *state.Container) error { c.Phase = state.Exited; return number(arg[1], &c.ExitCode) })
	}},
	{words: "SERVICE halted", do: phase(state.Exited, func(c *state.Container) { c.Halted = true })},
	{words: "SERVICE created", do: phase(state.Created, nil)},
	{words: "SERVICE runs", do: phase(state.Running, func(c *state.Container) { c.Halted, c.Refused = false, "" })},
	{words: "SERVICE dead", do: phase(state.Dead, nil)},
	{words: "SERVICE removing", do: phase(state.Removing, nil)},
	{words: "SERVICE healthy", do: phase(state.Running, func(c *state.Container) { c.Health = "healthy" })},
	{words: "SERVICE unhealthy", do: phase(state.Running, func(c *state.Container) { c.Health = "unhealthy" })},
	{words: "SERVICE foreign", do: edit(func(c *state.Container) { c.Hash, c.Spec = "", nil })},
	{words: "SERVICE half created", do: phase(state.Created, func(c *state.Container) { c.Networks = nil })},
	{words: "SERVICE gone", do: func(d *Device, arg []string) error {
		return d.app(arg[0], func(a *state.AppNow, name string) error {
			a.Containers = slices.DeleteFunc(a.Containers, func(c state.Container) bool { return c.Service == name })
			return nil
		})
	}},
	{words: "SERVICE twice", do: func(d *Device, arg []string) error {
		return d.app(arg[0], func(a *state.AppNow, name string) error {
			i := slices.IndexFunc(a.Containers, func(c state.Container) bool { return c.Service == name })
			if i < 0 {
				return fmt.Errorf("there is no container of %s", name)
			}
			c := a.Containers[i]
			a.Containers[i].Name = "old_" + c.ID + "_" + c.Name
			c.ID, c.Created = c.ID+"-twin", c.Created+1
			a.Containers = append(a.Containers, c)
			return nil
		})
	}},
	{words: "network NAME twice", do: network(func(a *state.AppNow, n state.NetworkNow) {
		n.ID += "-twin"
		a.Networks = append(a.Networks, n)
	})},
	{words: "network NAME gone", do: network(func(a *state.AppNow, n state.NetworkNow) {
		a.Networks = slices.DeleteFunc(a.Networks, func(x state.NetworkNow) bool { return x.ID == n.ID })
	})},
	{words: "volume NAME gone", do: func(d *Device, arg []string) error {
		return d.app(arg[0], func(a *state.AppNow, name string) error {
			a.Volumes = slices.DeleteFunc(a.Volumes, func(v state.VolumeNow) bool { return v.Name == name })
			return nil
		})
	}},
	{words: "image REF here", do: func(d *Device, arg []string) error { d.image(arg[0], false); return nil }},
	{words: "image REF fetched", do: func(d *Device, arg []string) error { d.image(arg[0], true); return nil }},
	{words: "image REF gone", do: func(d *Device, arg []string) error {
		maps.DeleteFunc(d.World.Images, func(_ string, i state.Image) bool { return i.Leads(state.Reference(arg[0])) })
		return nil
	}},
}

// Words lists the lines that device and options sections may have.
func Words() []string {
	var out []string
	for _, v := range verbs() {
		out = append(out, v.words)
	}
	for _, o := range settings {
		out = append(out, o.words)
	}
	return out
}

// Apply does what a device line says.
func (d *Device) Apply(line string) error {
	v, arg, err := find(line)
	if err != nil {
		return err
	}
	if err := v.do(d, arg); err != nil {
		return fmt.Errorf("device: %s: %w", line, err)
	}
	return nil
}

func find(line string) (verb, []string, error) {
	for _, v := range verbs() {
		if arg, ok := match(v.words, line); ok {
			return v, arg, nil
		}
	}
	return verb{}, nil, fmt.Errorf("device: %q is not known; README.md lists what is", line)
}

// copied is the device as it is, to be changed without changing this one.
func (d Device) copied() Device {
	d.World.Apps, d.World.Images = maps.Clone(d.World.Apps), maps.Clone(d.World.Images)
	for id, a := range d.World.Apps {
		a.Containers, a.Networks, a.Volumes = slices.Clone(a.Containers), slices.Clone(a.Networks), slices.Clone(a.Volumes)
		a.Files, a.Handovers, a.Reboots = slices.Clone(a.Files), maps.Clone(a.Handovers), maps.Clone(a.Reboots)
		d.World.Apps[id] = a
	}
	return d
}

// app edits one app; at is "name" or "app/name".
func (d *Device) app(at string, change func(a *state.AppNow, name string) error) error {
	app, name, found := strings.Cut(at, "/")
	if !found {
		app, name = shop, at
	}
	a, ok := d.World.Apps[uuid(app)]
	if !ok {
		return fmt.Errorf("there is no app %s on the device", app)
	}
	if err := change(&a, name); err != nil {
		return err
	}
	d.World.Apps[uuid(app)] = a
	return nil
}

// container edits the last container of a service; "service:id" names another.
func (d *Device) container(at string, change func(*state.Container) error) error {
	at, id, _ := strings.Cut(at, ":")
	return d.app(at, func(a *state.AppNow, name string) error {
		for i := range slices.Backward(a.Containers) {
			if a.Containers[i].Service == name && (id == "" || id == a.Containers[i].ID) {
				return change(&a.Containers[i])
			}
		}
		return fmt.Errorf("there is no container of %s", name)
	})
}

func (d *Device) image(ref string, ours bool) {
	ref = state.Reference(ref)
	id := sim.ImageID(ref)
	d.World.Images[id] = state.Image{ID: id, Refs: []string{ref}, Ours: ours}
}

func edit(change func(*state.Container)) func(*Device, []string) error {
	return func(d *Device, arg []string) error {
		return d.container(arg[0], func(c *state.Container) error { change(c); return nil })
	}
}

func phase(p state.Phase, more func(*state.Container)) func(*Device, []string) error {
	return edit(func(c *state.Container) {
		c.Phase, c.Health = p, ""
		if more != nil {
			more(c)
		}
	})
}

func network(change func(*state.AppNow, state.NetworkNow)) func(*Device, []string) error {
	return func(d *Device, arg []string) error {
		return d.app(arg[0], func(a *state.AppNow, name string) error {
			i := slices.IndexFunc(a.Networks, func(n state.NetworkNow) bool { return n.Name == name })
			if i < 0 {
				return fmt.Errorf("there is no network %s", name)
			}
			change(a, a.Networks[i])
			return nil
		})
	}
}
