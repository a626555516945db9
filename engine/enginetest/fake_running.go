package enginetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
)

const (
	restartDelay = 100 * time.Millisecond // doubled each time
	restartMost  = time.Minute
	removalTime  = 3 * time.Second // of a removal that somebody else began
)

// settle lets happen what is due and sets the alarm for what comes next. The
// lock is held.
func (f *Fake) settle() {
	now := time.Now()
	var next time.Time
	for _, c := range f.m.sorted() {
		f.advance(c, now)
		for _, at := range []time.Time{c.endsAt, c.checkedAt, c.againAt, c.goneAt} {
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	if f.alarm != nil {
		f.alarm.Stop()
		f.alarm = nil
	}
	if !next.IsZero() && !f.closed {
		f.alarm = time.AfterFunc(next.Sub(now), func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if !f.closed {
				f.settle()
			}
		})
	}
}

// advance lets a container do what it was to do until now.
func (f *Fake) advance(c *box, now time.Time) {
	due := func(at *time.Time) bool {
		if at.IsZero() || at.After(now) {
			return false
		}
		*at = time.Time{}
		return true
	}
	if due(&c.goneAt) {
		delete(f.m.containers, c.id)
		f.about(c, "destroy")
		return
	}
	if due(&c.againAt) {
		c.restarts++
		if err := f.begin(c); err != nil {
			c.running, c.restarting = false, false
			f.about(c, "die")
		}
	}
	if due(&c.checkedAt) {
		c.health = container.Unhealthy
		if f.program(c).Healthy {
			c.health = container.Healthy
		}
		f.about(c, "health_status: "+c.health)
	}
	if due(&c.endsAt) {
		f.end(c, f.program(c).Code)
		f.again(c)
	}
}

// program is what a container does.
func (f *Fake) program(c *box) Program {
	if p, ok := f.cfg.Program(c.name, c.config); ok {
		return p
	}
	p := Program{Healthy: true}
	all := slices.Concat(c.config.Entrypoint, c.config.Cmd)
	if code, found := strings.CutPrefix(all[len(all)-1], "exit "); found {
		p.Ends = true
		p.Code, _ = strconv.Atoi(code)
	}
	if h := c.config.Healthcheck; h != nil && len(h.Test) > 0 {
		p.Healthy = h.Test[len(h.Test)-1] != "false"
		p.Check = cmp.Or(h.Interval, 30*time.Second)
		if !p.Healthy {
			p.Check *= time.Duration(cmp.Or(h.Retries, 3))
		}
	}
	return p
}

// begin starts the process.
func (f *Fake) begin(c *box) error {
	if err := f.join(c); err != nil {
		c.failed = err.Error()
		c.code = cmp.Or(c.code, 128)
		f.m.changes++
		return err
	}
	now := time.Now()
	c.running, c.restarting, c.code, c.failed, c.startedAt, c.health = true, false, 0, "", now, ""
	p := f.program(c)
	if p.Ends {
		c.endsAt = now.Add(p.After)
	}
	if h := c.config.Healthcheck; h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" {
		c.health, c.checkedAt = container.Starting, now.Add(p.Check)
	}
	f.about(c, "start")
	return nil
}

// end ends the process.
func (f *Fake) end(c *box, code int) {
	c.running, c.restarting, c.paused, c.code, c.endedAt = false, false, false, code, time.Now()
	c.endsAt, c.checkedAt, c.againAt = time.Time{}, time.Time{}, time.Time{}
	if c.health != "" {
		c.health = container.Unhealthy
	}
	for name, e := range c.nets {
		e = e.Copy()
		e.NetworkID, e.EndpointID, e.IPAddress, e.Gateway, e.MacAddress = "", "", "", "", ""
		c.nets[name] = e
	}
	f.about(c, "die")
}

// again starts a container anew if its policy says so.
func (f *Fake) again(c *box) {
	p := c.host.RestartPolicy
	switch {
	case c.stopped:
		return
	case p.Name == "always", p.Name == "unless-stopped":
	case p.Name == "on-failure" && c.code != 0 && (p.MaximumRetryCount == 0 || c.restarts < p.MaximumRetryCount):
	default:
		return
	}
	c.running, c.restarting = true, true // the engine counts it as running
	c.againAt = time.Now().Add(min(restartDelay<<min(c.restarts, 20), restartMost))
}

// join attaches a container to its networks and ports, all of them or none.
func (f *Fake) join(c *box) error {
	for _, m := range c.host.Mounts {
		if m.Type != mount.TypeBind {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			return broken("OCI runtime create failed: container_linux.go:380: starting container process caused: rootfs_linux.go:76: mounting %q to rootfs at %q caused: stat %s: no such file or directory: unknown",
				m.Source, m.Target, m.Source)
		}
	}
	if mode := c.host.NetworkMode; mode.IsContainer() {
		owner, err := f.m.find(mode.ConnectedContainer())
		switch {
		case err != nil:
			return err
		case owner.restarting:
			return conflict("Container %s is restarting, wait until the container is running", owner.id)
		case !owner.running:
			return conflict("cannot join network of a non running container: %s", owner.id)
		}
		return nil
	}
	joined := maps.Clone(c.nets)
	for _, name := range slices.Sorted(maps.Keys(c.nets)) {
		n, err := f.m.network(name)
		if err != nil {
			return err
		}
		e := c.nets[name].Copy()
		if e.IPAddress, err = f.address(c, n, e.IPAMConfig); err != nil {
			return err
		}
		e.NetworkID, e.EndpointID = n.id, n.id+c.id
		joined[name] = e
	}
	if err := f.publishable(c); err != nil {
		return err
	}
	for name, e := range joined {
		c.nets[name] = e
		f.changed("network", "connect", e.NetworkID, map[string]string{"container": c.id, "name": name})
	}
	return nil
}

// publishable refuses a port of the host that another container has.
func (f *Fake) publishable(c *box) error {
	for _, port := range slices.Sorted(maps.Keys(c.host.PortBindings)) {
		for _, b := range c.host.PortBindings[port] {
			ip := cmp.Or(b.HostIP, "0.0.0.0")
			for _, other := range f.m.sorted() {
				if other != c && other.running && !other.restarting && other.publishes(port.Proto(), ip, b.HostPort) {
					return broken("driver failed programming external connectivity on endpoint %s (%s): Bind for %s:%s failed: port is already allocated",
						c.name, c.id, ip, b.HostPort)
				}
			}
		}
	}
	return nil
}

func (c *box) publishes(protocol, ip, hostPort string) bool {
	if hostPort == "" || hostPort == "0" {
		return false // the engine chooses a free one
	}
	every := func(ip string) bool { return ip == "0.0.0.0" || ip == "::" || ip == "" }
	for port, bindings := range c.host.PortBindings {
		for _, b := range bindings {
			if port.Proto() == protocol && b.HostPort == hostPort && (b.HostIP == ip || every(b.HostIP) || every(ip)) {
				return true
			}
		}
	}
	return false
}

func (f *Fake) startContainer(q request) (reply, error) {
	c, err := f.m.find(q.Object)
	switch {
	case err != nil:
		return reply{}, err
	case c.paused:
		return reply{}, conflict("cannot start a paused container, try unpause instead")
	case c.running:
		return same()
	case c.removing || c.dead:
		return reply{}, conflict("container is marked for removal and cannot be started")
	}
	c.stopped, c.restarts = false, 0
	if err := f.begin(c); err != nil {
		return reply{}, err
	}
	return done()
}

func (f *Fake) stopContainer(q request) (reply, error) {
	c, err := f.m.find(q.Object)
	if err != nil {
		return reply{}, err
	}
	if !c.running {
		return same()
	}
	c.stopped = true
	code := 0
	if c.restarting {
		code = c.code
	}
	f.end(c, code)
	f.about(c, "stop")
	return done()
}

func (f *Fake) killContainer(q request) (reply, error) {
	c, err := f.m.find(q.Object)
	if err != nil {
		return reply{}, err
	}
	if !c.running {
		return reply{}, conflict("Cannot kill container: %s: Container %s is not running", q.Object, c.id)
	}
	c.stopped = true
	f.about(c, "kill")
	switch signal := strings.TrimPrefix(strings.ToUpper(q.Query.Get("signal")), "SIG"); signal {
	case "", "KILL", "9":
		f.end(c, 137)
	case "TERM", "INT", "QUIT", "15", "2", "3":
		f.end(c, 0)
	}
	return done()
}

// waitContainer waits until a container does not run, or is gone. An unknown
// condition counts as the first of these.
func (f *Fake) waitContainer(q request) (reply, error) {
	if err := f.cfg.Before(q.ctx, q.Call); err != nil {
		return reply{}, err
	}
	f.mu.Lock()
	c, err := f.m.find(q.Object)
	f.mu.Unlock()
	if err != nil {
		return reply{}, err
	}
	removed := q.Query.Get("condition") == "removed"
	return reply{status: http.StatusOK, stream: func(ctx context.Context, line func(any) bool) error {
		s := f.listen(nil)
		defer f.leave(s)
		for {
			f.mu.Lock()
			now, code := f.m.containers[c.id], c.code
			over := now == nil || !removed && !now.running
			f.mu.Unlock()
			if over {
				line(map[string]any{"StatusCode": code})
				return f.cfg.After(q.ctx, q.Call)
			}
			if _, more := s.next(ctx); !more {
				return fmt.Errorf("wait: %w", ErrLost)
			}
		}
	}}, nil
}

// Restart is a restart of the engine, or of the device: processes end, streams
// break, and what its policy says runs again.
func (f *Fake) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.streams {
		s.end()
	}
	clear(f.streams)
	ran := map[*box]bool{}
	for _, c := range f.m.sorted() {
		if c.running {
			ran[c] = true
			f.end(c, 137)
		}
		if c.removing {
			c.removing, c.dead = false, true
		}
	}
	for _, c := range f.m.sorted() {
		p := c.host.RestartPolicy.Name
		was := !c.startedAt.IsZero()
		if was && (p == "always" || p == "unless-stopped" && !c.stopped || p == "on-failure" && ran[c]) {
			if f.begin(c) != nil { // the engine does not try again
				c.endedAt = time.Now()
			}
		}
	}
	f.settle()
}
