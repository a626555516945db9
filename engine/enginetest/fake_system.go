package enginetest

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/system"
)

func (f *Fake) ping(request) (reply, error) { return answer("OK") }

func (f *Fake) version(request) (reply, error) {
	return answer(types.Version{
		Components: []types.ComponentVersion{{Name: "Engine", Version: "20.10.24"}},
		Version:    "20.10.24", APIVersion: apiVersion, MinAPIVersion: minimumAPI, Os: "linux", Arch: "amd64",
	})
}

func (f *Fake) info(request) (reply, error) {
	i := system.Info{
		ID: "FAKE", Driver: "overlay2", ServerVersion: "20.10.24", OSType: "linux", Architecture: "x86_64", NCPU: 2, MemTotal: 1 << 30,
		DockerRootDir: "/fake/docker", Images: len(f.m.images), Containers: len(f.m.containers), MemoryLimit: true, CgroupVersion: "2",
	}
	for _, c := range f.m.containers {
		if c.running {
			i.ContainersRunning++
		} else {
			i.ContainersStopped++
		}
	}
	return answer(i)
}

// stream is somebody who listens to events.
type stream struct {
	match filters.Args

	mu     sync.Mutex
	queue  []events.Message
	closed bool
	wake   chan struct{}
}

func (s *stream) put(m events.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, m)
	s.ring()
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.ring()
}

func (s *stream) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next waits for an event; more is false when there will be none.
func (s *stream) next(ctx context.Context) (m events.Message, more bool) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			m, s.queue = s.queue[0], s.queue[1:]
			s.mu.Unlock()
			return m, true
		}
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return m, false
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return m, false
		}
	}
}

// listen subscribes; f.mu is not held.
func (f *Fake) listen(match *filters.Args) *stream {
	s := &stream{wake: make(chan struct{}, 1)}
	if match != nil {
		s.match = *match
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.closed = f.closed
	f.streams[s] = true
	return s
}

func (f *Fake) leave(s *stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.streams, s)
}

func (f *Fake) publish(kind, action, id string, attributes map[string]string) {
	now := time.Now()
	m := events.Message{
		Type: events.Type(kind), Action: events.Action(action), Actor: events.Actor{ID: id, Attributes: attributes},
		Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
	}
	for s := range f.streams {
		if wanted(s.match, m) {
			s.put(m)
		}
	}
}

// wanted compares an event with filters as the engine does: "health_status" is
// the beginning of an action too.
func wanted(match filters.Args, m events.Message) bool {
	if match.Len() == 0 {
		return true
	}
	begin, _, _ := strings.Cut(string(m.Action), ":")
	name := m.Actor.Attributes["name"]
	return match.ExactMatch("type", string(m.Type)) &&
		(match.ExactMatch("event", string(m.Action)) || match.ExactMatch("event", begin)) &&
		(m.Type != "container" || match.FuzzyMatch("container", m.Actor.ID) || match.ExactMatch("container", name)) &&
		(m.Type == "container" || !match.Contains("container")) &&
		(!match.Contains("label") || match.MatchKVList("label", m.Actor.Attributes))
}

func (f *Fake) events(q request) (reply, error) {
	if err := f.cfg.Before(q.ctx, q.Call); err != nil {
		return reply{}, err
	}
	match, err := filters.FromJSON(q.Query.Get("filters"))
	if err != nil {
		return reply{}, invalid("%s", err)
	}
	s := f.listen(&match)
	return reply{status: http.StatusOK, stream: func(ctx context.Context, line func(any) bool) error {
		defer f.leave(s)
		for {
			m, more := s.next(ctx)
			if !more || !line(m) {
				return nil
			}
		}
	}}, nil
}
