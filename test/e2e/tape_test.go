//go:build engine && linux

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/volume"

	"deckhand/state"
)

// tape holds what the engine said while a test ran, in the engine's order. A
// moment has a title of the form "start web 2": what happened to the second
// container of the service web. Others are "pull web 2" (the image of that
// container is there), "create network front", "delete image sha256:…".
type tape struct {
	*scene
	mu      sync.Mutex
	moments []moment
	label   map[string]string // container ID → "web 2"
	made    map[string]int    // containers of a service so far
	image   map[string]string // "web 2" → what it was made from
	fences  int
}

// moment is one event of the engine.
type moment struct {
	title, id string
	at        time.Time
}

// record listens from now on. Containers that are there already are numbered in
// the order they were made.
func (s *scene) record() *tape {
	s.Helper()
	p := &tape{scene: s, label: map[string]string{}, made: map[string]int{}, image: map[string]string{}}
	list := s.all("")
	slices.SortFunc(list, func(a, b container.Summary) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID))
	})
	for _, c := range list {
		p.number(c.ID, c.Labels[state.LabelServiceName], c.Image)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	messages, broken := s.engine.Client.Events(ctx, events.ListOptions{})
	go func() {
		defer close(ended)
		for {
			select {
			case m := <-messages:
				p.note(m)
			case err := <-broken:
				if ctx.Err() == nil {
					s.Logf("the tape ends here: %v", err)
				}
				return
			}
		}
	}()
	s.Cleanup(func() {
		if s.Failed() {
			s.Logf("the engine's tape:\n%s", p)
		}
		cancel()
		<-ended
	})
	p.sync()
	return p
}

// number gives a container its title; the lock is held, or nobody listens yet.
func (p *tape) number(id, service, image string) {
	p.made[service]++
	label := fmt.Sprintf("%s %d", service, p.made[service])
	p.label[id], p.image[label] = label, image
}

func (p *tape) note(m events.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := moment{id: m.Actor.ID, at: time.Unix(0, m.TimeNano)}
	action := strings.Replace(string(m.Action), "health_status: ", "", 1)
	switch m.Type {
	case events.ContainerEventType:
		service := m.Actor.Attributes[state.LabelServiceName]
		if service == "" {
			return // not a service
		}
		if _, known := p.label[x.id]; !known {
			p.number(x.id, service, m.Actor.Attributes["image"])
		}
		action, _, _ = strings.Cut(action, ":") // exec_create: COMMAND
		x.title = action + " " + p.label[x.id]
	case events.ImageEventType:
		x.title = action + " image " + m.Actor.ID
	default:
		name := cmp.Or(m.Actor.Attributes["name"], m.Actor.ID)
		if _, short, ok := strings.Cut(name, "_"); ok {
			name = short
		}
		x.title = action + " " + string(m.Type) + " " + name
	}
	p.moments = append(p.moments, x)
}

// sync waits until everything that has happened so far is on the tape.
func (p *tape) sync() {
	p.Helper()
	p.mu.Lock()
	p.fences++
	name := fmt.Sprintf("fence%d", p.fences)
	p.mu.Unlock()
	_, err := p.engine.Client.VolumeCreate(p.Context(), volume.CreateOptions{Name: name})
	p.must(err)
	p.must(p.engine.Client.VolumeRemove(p.Context(), name, true))
	p.within("the engine says what it did", func(context.Context) error {
		if _, ok := p.find("destroy volume "+name, 0); !ok {
			return fmt.Errorf("its events lag behind")
		}
		return nil
	})
}

// find gives the first moment of that title at or behind a position.
func (p *tape) find(title string, from int) (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if of, ok := strings.CutPrefix(title, "pull "); ok && !strings.HasPrefix(of, "image ") {
		title = "pull image " + p.image[of]
	}
	for i := from; i < len(p.moments); i++ {
		if p.moments[i].title == title {
			return i, true
		}
	}
	return 0, false
}

// mark is a position for since.
func (p *tape) mark() int {
	p.Helper()
	p.sync()
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.moments)
}

// order checks that these things happened, the first time each, one after the
// other.
func (p *tape) order(titles ...string) {
	p.Helper()
	p.sync()
	last, lastTitle := -1, ""
	for _, t := range titles {
		i, ok := p.find(t, 0)
		switch {
		case !ok:
			p.Errorf("%q never happened", t)
			continue
		case i < last:
			p.Errorf("%q happened before %q", t, lastTitle)
		}
		last, lastTitle = i, t
	}
}

// never checks that something did not happen.
func (p *tape) never(titles ...string) {
	p.Helper()
	p.sync()
	for _, t := range titles {
		if _, ok := p.find(t, 0); ok {
			p.Errorf("%q happened", t)
		}
	}
}

// since lists the titles of containers' moments behind a mark, without those of
// health checks and commands that somebody runs in them.
func (p *tape) since(mark int) []string {
	p.Helper()
	p.sync()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, m := range p.moments[mark:] {
		action, _, _ := strings.Cut(m.title, " ")
		if _, ours := p.label[m.id]; ours && !strings.HasPrefix(action, "exec_") && !strings.HasSuffix(action, "healthy") && action != "top" {
			out = append(out, m.title)
		}
	}
	return out
}

// at is when something happened first.
func (p *tape) at(title string) time.Time {
	p.Helper()
	p.sync()
	i, ok := p.find(title, 0)
	if !ok {
		p.Fatalf("%q never happened", title)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.moments[i].at
}

// container is the ID of the container with a title.
func (p *tape) container(label string) string {
	p.Helper()
	p.sync()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, l := range p.label {
		if l == label {
			return id
		}
	}
	p.Fatalf("there was no container %s", label)
	return ""
}

// downtime is how long a service was down between two of its containers; less
// than nothing when both ran.
func (p *tape) downtime(service string, from, to int) time.Duration {
	p.Helper()
	return p.at(fmt.Sprintf("start %s %d", service, to)).Sub(p.at(fmt.Sprintf("die %s %d", service, from)))
}

// String is the tape for people.
func (p *tape) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, m := range p.moments {
		if strings.Contains(m.title, " volume fence") || strings.HasPrefix(m.title, "exec_") {
			continue
		}
		fmt.Fprintf(&b, "%s  %s\n", m.at.Format("05.000"), m.title)
	}
	return b.String()
}

// waitsFor waits until something has happened.
func (p *tape) waitsFor(title string) {
	p.Helper()
	p.within(title, func(context.Context) error {
		if _, ok := p.find(title, 0); !ok {
			return fmt.Errorf("it has not happened")
		}
		return nil
	})
}

// up checks that a container of the tape runs.
func (p *tape) up(label string) {
	p.Helper()
	c, err := p.engine.Client.ContainerInspect(p.Context(), p.container(label))
	p.must(err)
	if !c.State.Running {
		p.Fatalf("%s is %s", label, c.State.Status)
	}
}

// The tape itself: it numbers, orders and forgets nothing.
func TestTape(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.record()
	made, err := s.engine.Client.ContainerCreate(t.Context(), &container.Config{Image: "hello:1", Labels: map[string]string{
		state.LabelServiceName: "web", state.LabelSupervised: "true"}}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "web_1_1_x")
	s.must(err)
	s.must(s.engine.Client.ContainerStart(t.Context(), made.ID, container.StartOptions{}))
	s.must(s.engine.Client.ContainerRemove(t.Context(), made.ID, container.RemoveOptions{Force: true}))
	p.order("create web 1", "start web 1", "die web 1", "destroy web 1")
	p.never("create web 2", "stop web 1")
	if got := p.container("web 1"); got != made.ID {
		t.Errorf("web 1 is %s", got)
	}
}

// label is what the tape calls the nth container of a service, counted from 1.
func label(service string, n int) string { return fmt.Sprintf("%s %d", service, n) }

// times is how often something has happened so far.
func (p *tape) times(title string) int {
	n := 0
	for i := 0; ; n++ {
		at, ok := p.find(title, i)
		if !ok {
			return n
		}
		i = at + 1
	}
}
