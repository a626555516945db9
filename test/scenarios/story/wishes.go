package story

import (
	"cmp"
	"fmt"
	"slices"

	"deckhand/reconcile"
	"deckhand/reconcile/sim"
	"deckhand/state"
)

// since is when a lock was made, a while before every story begins.
var since = dawn.Unix() - 600

// The lines about locks and what permits to break them.
var lockVerbs = []verb{
	{words: "SERVICE locked by TEXT", calm: true, do: func(d *Device, arg []string) error {
		return d.app(arg[0], func(a *state.AppNow, name string) error {
			if slices.Contains(a.Locked, name) {
				return fmt.Errorf("the supervisor holds the lock of %s", name)
			}
			a.UserLocks = append(a.UserLocks, state.UserLock{Service: name, Holder: arg[1], Since: since})
			return nil
		})
	}},
	{words: "SERVICE unlocked", calm: true, do: func(d *Device, arg []string) error {
		return d.app(arg[0], func(a *state.AppNow, name string) error {
			held := func(l state.UserLock) bool { return l.Service == name }
			if !slices.ContainsFunc(a.UserLocks, held) {
				return fmt.Errorf("nobody but the supervisor can hold the lock of %s", name)
			}
			a.UserLocks = slices.DeleteFunc(slices.Clone(a.UserLocks), held)
			return nil
		})
	}},
	{words: "lock of SERVICE left over", do: func(d *Device, arg []string) error {
		return d.app(arg[0], func(a *state.AppNow, name string) error {
			a.Locked = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(a.Locked), name))))
			return nil
		})
	}},
	{words: "override for APP by WHOM", calm: true, do: func(d *Device, arg []string) error {
		o := state.Override{App: uuid(arg[0]), By: arg[1]}
		if arg[0] == "all" {
			o.App = ""
		}
		d.World.Overrides = append(slices.Clone(d.World.Overrides), o)
		return nil
	}},
	{words: "override ends", do: func(d *Device, _ []string) error { d.World.Overrides = nil; return nil }},
}

// The lines about what people ask for beside the target.
var wishVerbs = []verb{
	{words: "NAME asks to restart OBJECT", do: wish(state.Restart)},
	{words: "NAME asks to stop OBJECT", do: wish(state.Stop)},
	{words: "NAME asks to start OBJECT", do: wish(state.Start)},
	{words: "NAME asks to purge OBJECT", do: wish(state.Purge)},
}

// wish writes down what somebody asks for, as the supervisor does: the last word
// counts. The object is an app or a service, for a purge an app or a volume.
func wish(kind state.IntentKind) func(*Device, []string) error {
	return func(d *Device, arg []string) error {
		at, whole := arg[1], false
		if _, ok := d.World.Apps[uuid(at)]; ok {
			at, whole = at+"/", true
		}
		d.asked++
		i := state.Intent{ID: fmt.Sprintf("i%d", d.asked), Kind: kind, By: arg[0], At: dawn}
		err := d.app(at, func(a *state.AppNow, name string) error {
			i.App, i.Commit = a.UUID, cmp.Or(d.want[a.UUID], a.Commit)
			if whole {
				name = ""
			}
			if i.Services, i.Left = objects(*a, kind, name); len(i.Services) == 0 {
				return fmt.Errorf("there is no %s", arg[1])
			}
			return nil
		})
		d.World.Intents = granted(d.World.Intents, i)
		return err
	}
}

// objects lists what a wish is about, by name, and what is to do for it. An empty
// name stands for all.
func objects(a state.AppNow, kind state.IntentKind, name string) (names, left []string) {
	if kind == state.Purge {
		for _, v := range a.Volumes {
			if name == "" || v.Name == name {
				names = append(names, v.Name)
			}
		}
		return names, names
	}
	for _, c := range a.Containers {
		if name != "" && c.Service != name {
			continue
		}
		names = append(names, c.Service)
		if kind == state.Restart && (c.Up() || c.Phase == state.Exited) || kind == state.Start && !c.Up() {
			left = append(left, c.ID)
		}
	}
	return names, left
}

// granted are the intents with one more, which ends what it contradicts.
func granted(have []state.Intent, i state.Intent) []state.Intent {
	var out []state.Intent
	for _, x := range have {
		same := x.App == i.App
		switch {
		case same && x.Kind == state.Stop && (i.Kind == state.Start || i.Kind == state.Restart):
			if x.Services = without(x.Services, i.Services); len(x.Services) == 0 {
				continue
			}
		case same && x.Kind == i.Kind:
			i.Left = without(i.Left, x.Left)
		}
		out = append(out, x)
	}
	switch {
	case i.Kind == state.Stop:
		i.Left = nil
		return append(out, i)
	case len(i.Left) == 0:
		return out
	}
	i.Services, i.Commit = nil, ""
	return append(out, i)
}

func without(list, members []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return slices.Contains(members, x) })
}

// The lines about the device as a whole.
var systemVerbs = []verb{
	{words: "API network gone", do: func(d *Device, _ []string) error {
		d.World.APINetwork = false
		for id, a := range d.World.Apps {
			a.Containers = slices.Clone(a.Containers)
			for i := range a.Containers {
				a.Containers[i].API = false
			}
			d.World.Apps[id] = a
		}
		return nil
	}},
	{words: "reboot", do: func(d *Device, _ []string) (err error) {
		d.World, err = sim.Apply(d.World, reconcile.Reboot{})
		return err
	}},
	{words: "reboot required", do: func(d *Device, _ []string) error {
		d.World.RebootPending = true
		for _, a := range d.World.Apps {
			for _, c := range a.Containers {
				if c.Phase == state.Created && a.Reboots != nil {
					a.Reboots[c.Service] = false
				}
			}
		}
		return nil
	}},
	{words: "SERVICE made after the boot", do: func(d *Device, arg []string) error {
		return d.container(arg[0], func(c *state.Container) error {
			c.Phase, c.Health = state.Created, ""
			d.World.Boot = c.Created
			for _, a := range d.World.Apps {
				delete(a.Reboots, c.Service)
			}
			return nil
		})
	}},
	{words: "SERVICE made before the boot", do: func(d *Device, arg []string) error {
		return d.container(arg[0], func(c *state.Container) error {
			c.Phase, c.Health = state.Created, ""
			d.World.Boot = c.Created + 1
			return nil
		})
	}},
	{words: "SERVICE refused: TEXT", do: func(d *Device, arg []string) error {
		return d.container(arg[0], func(c *state.Container) error {
			c.Phase, c.Health, c.Refused = state.Exited, "", arg[1]
			return nil
		})
	}},
	{words: "SERVICE hand-over failed", do: func(d *Device, arg []string) error {
		return d.app(arg[0], func(a *state.AppNow, name string) error {
			for _, c := range slices.Backward(a.Containers) {
				if c.Service != name {
					continue
				}
				if a.Handovers == nil {
					a.Handovers = map[string]state.Handover{}
				}
				a.Handovers[name] = state.Handover{Hash: c.Hash, Image: d.World.Images[c.Image].Refs[0], Failed: true}
				return nil
			}
			return fmt.Errorf("there is no container of %s", name)
		})
	}},
	{words: "STEP fails", do: func(d *Device, arg []string) error { d.Fails = append(slices.Clone(d.Fails), arg[0]); return nil }},
	{words: "STEP works again", do: func(d *Device, arg []string) error {
		d.Fails = slices.DeleteFunc(slices.Clone(d.Fails), func(x string) bool { return x == arg[0] })
		return nil
	}},
	{words: "STEP takes N rounds", do: func(d *Device, arg []string) error {
		var n int
		if err := number(arg[1], &n); err != nil {
			return err
		}
		if d.Slow == nil {
			d.Slow = map[string]int{}
		}
		d.Slow[arg[0]] = n
		return nil
	}},
}
