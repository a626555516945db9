package supervisor

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"deckhand/state"
)

// intentsNow lists what people asked for, oldest first; the lock is held.
func (d *device) intentsNow() []state.Intent {
	return slices.SortedFunc(maps.Values(d.intents), func(a, b state.Intent) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
}

// strike takes an object off what is left of intents; the lock is held. What is
// in memory is what is on the disk.
func (d *device) strike(of func(state.Intent) bool, object string) error {
	var put []state.Intent
	for _, i := range d.intentsNow() {
		if object != "" && of(i) && slices.Contains(i.Left, object) {
			i.Left = without(i.Left, object)
			put = append(put, i)
		}
	}
	return d.changeIntents(put)
}

// changeIntents writes and forgets intents in one write; the lock is held.
func (d *device) changeIntents(put []state.Intent, forget ...string) error {
	if len(put)+len(forget) == 0 {
		return nil
	}
	if err := d.Store.Intents.Change(put, forget...); err != nil {
		return err
	}
	for _, i := range put {
		d.intents[i.ID] = i
	}
	for _, id := range forget {
		delete(d.intents, id)
	}
	return nil
}

func (d *device) forgetIntents(ids ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changeIntents(nil, ids...)
}

// wish is a request about one app, with what there is of the app.
type wish struct {
	kind     state.IntentKind
	by       string
	at       time.Time
	now      state.AppNow
	want     state.App
	name     string   // of the app, for people
	services []string // the ones it is about, sorted
	named    bool     // somebody named them; else it is all of them
}

// granted is what is written down for a wish.
type granted struct {
	put    []state.Intent
	forget []string
	text   string // for people
	joined bool   // the same was asked for before and is on its way
}

// ask writes a wish down. Wishes that it contradicts are taken back in the same
// write: the last word counts.
func (d *device) ask(x wish) (granted, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var mine []state.Intent
	for _, i := range d.intentsNow() {
		if i.App == x.now.UUID {
			mine = append(mine, i)
		}
	}
	g, err := x.grant(mine)
	if err != nil {
		return g, state.Classify(state.ClassInvalid, err)
	}
	if err := d.changeIntents(g.put, g.forget...); err != nil {
		return g, fmt.Errorf("write the request down: %w", state.Classify(state.ClassSpace, err))
	}
	return g, nil
}

func (x wish) grant(mine []state.Intent) (granted, error) {
	switch x.kind {
	case state.Restart:
		return x.restart(mine)
	case state.Stop:
		return x.stop(mine)
	case state.Start:
		return x.start(mine), nil
	case state.Purge:
		return x.purge(mine)
	}
	return granted{}, fmt.Errorf("there is no request of the kind %q", x.kind)
}

func (x wish) restart(mine []state.Intent) (granted, error) {
	ids := x.containers(func(c state.Container) bool { return c.Up() || c.Phase == state.Exited })
	if len(ids) == 0 {
		return granted{}, fmt.Errorf("%s has no container that could be restarted; see \"deckhand explain\" for what it waits for", x.subject())
	}
	var g granted
	x.add(&g, mine, ids)
	g.take(freeing(mine, x.services)) // who restarts a stopped service wants it to run
	g.text = x.subject() + " restarts"
	return g, nil
}

func (x wish) stop(mine []state.Intent) (granted, error) {
	if x.want.Commit == "" {
		return granted{}, fmt.Errorf("no release of %s is wanted, so it is being removed", x.name)
	}
	var g granted
	services := slices.Clone(x.services)
	for _, i := range mine {
		if i.Kind == state.Stop && i.Commit == x.want.Commit {
			services = without(services, i.Services...)
		}
	}
	g.joined = len(services) == 0
	if !g.joined {
		i := x.intent()
		i.Services, i.Commit = services, x.want.Commit
		g.put = append(g.put, i)
	}
	// Nobody shall start or replace them any more.
	all := x.containers(func(state.Container) bool { return true })
	for _, i := range mine {
		if i.Kind != state.Start && i.Kind != state.Restart || len(without(i.Left, all...)) == len(i.Left) {
			continue
		}
		i.Left = without(i.Left, all...)
		g.put = append(g.put, i)
	}
	g.text = x.subject() + " stops and stays stopped until it is started or a new release comes"
	return g, nil
}

func (x wish) start(mine []state.Intent) granted {
	var g granted
	g.take(freeing(mine, x.services))
	freed := len(g.put)+len(g.forget) > 0
	if ids := x.containers(func(c state.Container) bool { return c.Phase == state.Created || c.Phase == state.Exited }); len(ids) > 0 {
		x.add(&g, mine, ids)
		g.joined = g.joined && !freed
	} else {
		g.joined = !freed
	}
	g.text = x.subject() + " starts"
	return g
}

func (x wish) purge(mine []state.Intent) (granted, error) {
	var names []string
	for _, v := range x.now.Volumes {
		names = append(names, v.Name)
	}
	if len(names) == 0 {
		return granted{}, fmt.Errorf("%s has no volumes", x.name)
	}
	var g granted
	x.add(&g, mine, names)
	g.text = "the volumes of " + x.name + " are deleted and made anew: " + strings.Join(names, ", ")
	return g, nil
}

// add writes an intent for the objects that no earlier one is about.
func (x wish) add(g *granted, mine []state.Intent, objects []string) {
	for _, i := range mine {
		if i.Kind == x.kind {
			objects = without(objects, i.Left...)
		}
	}
	if g.joined = len(objects) == 0; g.joined {
		return
	}
	i := x.intent()
	i.Left = objects
	g.put = append(g.put, i)
}

func (x wish) intent() state.Intent {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return state.Intent{ID: hex.EncodeToString(b), Kind: x.kind, App: x.now.UUID, By: x.by, At: x.at}
}

// containers lists the IDs of the containers of the services.
func (x wish) containers(which func(state.Container) bool) []string {
	var ids []string
	for _, c := range x.now.Containers {
		if slices.Contains(x.services, c.Service) && which(c) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// subject is what the wish is about, for people.
func (x wish) subject() string {
	if !x.named {
		return x.name
	}
	return x.name + "/" + strings.Join(x.services, ", "+x.name+"/")
}

func (g *granted) take(put []state.Intent, forget []string) {
	g.put, g.forget = append(g.put, put...), append(g.forget, forget...)
}

// freeing takes services out of the intents that keep them stopped.
func freeing(mine []state.Intent, services []string) (put []state.Intent, forget []string) {
	for _, i := range mine {
		left := without(i.Services, services...)
		switch {
		case i.Kind != state.Stop || len(left) == len(i.Services):
		case len(left) == 0:
			forget = append(forget, i.ID)
		default:
			i.Services = left
			put = append(put, i)
		}
	}
	return put, forget
}

// without is a list less some of its members.
func without(list []string, members ...string) []string {
	var out []string
	for _, x := range list {
		if !slices.Contains(members, x) {
			out = append(out, x)
		}
	}
	return out
}
