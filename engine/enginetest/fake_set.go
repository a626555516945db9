package enginetest

import (
	"maps"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
)

// Box is a container as a test sees and sets it.
type Box struct {
	ID       string
	Name     string
	Image    string // ID
	Status   string // the engine's word
	Health   string
	Code     int    // exit code
	Failed   string // why the engine could not start it
	Labels   map[string]string
	Networks []string // names, sorted
	Restart  string   // restart policy
}

// Boxes lists the containers, oldest first.
func (f *Fake) Boxes() []Box {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle()
	var out []Box
	for _, c := range f.m.sorted() {
		out = append(out, c.box())
	}
	return out
}

func (c *box) box() Box {
	return Box{
		ID: c.id, Name: c.name, Image: c.image, Status: c.status(), Health: c.health, Code: c.code, Failed: c.failed, Labels: maps.Clone(c.config.Labels),
		Networks: slices.Sorted(maps.Keys(c.nets)), Restart: string(c.host.RestartPolicy.Name),
	}
}

// Set changes a container behind everybody's back; nothing is refused and
// nothing follows by itself, except that a removal ends. Networks can only be taken away, and ID and Image
// stay. It is false if there is no such container.
func (f *Fake) Set(id string, change func(*Box)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.m.containers[id]
	if c == nil {
		return false
	}
	b := c.box()
	change(&b)
	config := *c.config
	config.Labels = b.Labels
	c.config, c.name, c.health, c.code, c.failed = &config, b.Name, b.Health, b.Code, b.Failed
	for name := range c.nets {
		if !slices.Contains(b.Networks, name) {
			delete(c.nets, name)
		}
	}
	c.endsAt, c.checkedAt, c.againAt, c.goneAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if b.Status == container.StateRemoving {
		c.goneAt = time.Now().Add(removalTime)
	}
	c.running = b.Status == container.StateRunning || b.Status == container.StatePaused || b.Status == container.StateRestarting
	c.paused, c.restarting = b.Status == container.StatePaused, b.Status == container.StateRestarting
	c.removing, c.dead = b.Status == container.StateRemoving, b.Status == container.StateDead
	if b.Status == container.StateCreated {
		c.startedAt = time.Time{}
	} else if c.startedAt.IsZero() {
		c.startedAt = time.Now()
	}
	f.about(c, "update")
	f.settle()
	return true
}

// Name gives the container or network that is made next this ID.
func (f *Fake) Name(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m.next = id
}

// Network is a network as a test sees it.
type Network struct{ ID, Name string }

// Networks lists those that are not the engine's own, oldest first.
func (f *Fake) Networks() []Network {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Network
	for _, n := range f.m.networksByAge() {
		if !predefined(n.name) {
			out = append(out, Network{n.id, n.name})
		}
	}
	return out
}

// DropNetwork removes a network behind everybody's back, endpoints or not.
func (f *Fake) DropNetwork(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.m.networks, id)
	f.changed("network", "destroy", id, nil)
}

// DropContainer removes a container behind everybody's back, running or not.
func (f *Fake) DropContainer(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.m.containers[id]; c != nil {
		delete(f.m.containers, id)
		f.about(c, "destroy")
	}
}

// CopyNetwork makes a second network of the same name and settings.
func (f *Fake) CopyNetwork(id, copied string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := *f.m.networks[id]
	n.id = copied
	f.m.networks[copied] = &n
	f.changed("network", "create", copied, nil)
}

// Add makes a network or volume of somebody else; kind is "network" or "volume".
func (f *Fake) Add(kind, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind == "volume" {
		f.m.volumes[name] = &vol{name: name, driver: "local", created: time.Now()}
		f.changed(kind, "create", name, nil)
		return
	}
	n := &net{id: f.m.id(), name: name, driver: "bridge", created: time.Now()}
	f.m.networks[n.id] = n
	f.changed("network", "create", n.id, nil)
}

// Volumes lists the names of the volumes that have one, sorted.
func (f *Fake) Volumes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(f.m.volumes)) {
		if !f.m.volumes[name].anonymous {
			out = append(out, name)
		}
	}
	return out
}
