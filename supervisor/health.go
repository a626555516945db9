package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"deckhand/hostapp"
	"deckhand/state"
	"deckhand/uplink"
	"deckhand/version"
)

const (
	// engineSilence is the patience with the engine before it counts as a fault
	// of the device.
	engineSilence = 2 * time.Minute
	// loopPatience is how long a look and a plan may take. It is far more than a
	// busy device needs, and less than anybody wants to wait.
	loopPatience = 3 * time.Minute
	// missedPolls is how many poll intervals may pass without an answer.
	missedPolls = 2
	// leastRoom is what the store needs for its next writes, in bytes.
	leastRoom = 256 << 10
)

// Ailment is something that keeps the supervisor from doing its job.
type Ailment struct {
	Check  string    `json:"check"` // engine, loop, cloud, connection or store
	Text   string    `json:"text"`
	Advice string    `json:"advice,omitempty"`
	Since  time.Time `json:"since"`
}

// String is the ailment for a log.
func (a Ailment) String() string {
	return fmt.Sprintf("%s: %s (since %s)", a.Check, a.Text, a.Since.UTC().Format(time.RFC3339))
}

// ailments lists what keeps the supervisor from doing its job; none: it is healthy.
func (s *Supervisor) ailments() []Ailment {
	now := time.Now()
	var all []Ailment
	// The loop comes first: its other answers may be old.
	if since := s.runner.Pulse().Stalled(now, loopPatience); !since.IsZero() {
		all = append(all, Ailment{"loop", "it has something to do and does not do it", "restart deckhand, and report this with its log", since})
	}
	st := s.runner.Status()
	s.sign.want(st.Looked, now)
	if since, err := s.sign.silent(st, s.started); err != nil && now.Sub(since) > engineSilence {
		all = append(all, Ailment{"engine", fmt.Sprintf("it does not answer: %v", err), state.ClassOf(err).Advice(), since})
	}
	all = append(all, s.cloudAilments(now)...)
	if since, err := s.disk.failing(); err != nil {
		all = append(all, Ailment{"store", fmt.Sprintf("nothing can be written down: %v", err), state.ClassSpace.Advice(), since})
	}
	return all
}

// cloudAilments are those of a device that has a cloud.
func (s *Supervisor) cloudAilments(now time.Time) []Ailment {
	if !s.values().Managed() {
		return nil
	}
	var all []Ailment
	s.mu.Lock()
	p, trouble := s.poller, s.trouble
	s.mu.Unlock()
	reached := s.started
	if p != nil {
		reached = p.LastSuccess()
	}
	if now.Sub(reached) > missedPolls*s.pollInterval() {
		text := "it does not answer"
		if trouble != "" {
			text += ": " + trouble
		}
		all = append(all, Ailment{"cloud", text, "check the device's connection, and that the cloud knows the device", reached})
	}
	if since, err := s.link.Lost(); err != nil && s.settings().ConnectivityCheck {
		all = append(all, Ailment{"connection", fmt.Sprintf("the cloud's address is not reached: %v", err), state.ClassOf(err).Advice(), since})
	}
	return all
}

// health says whether the supervisor does its job, and if not, why.
func (s *Supervisor) health() (ok bool, reasons []string) {
	for _, a := range s.ailments() {
		reasons = append(reasons, a.String())
	}
	return len(reasons) == 0, reasons
}

// disk knows whether the store can be written, without writing: flash wears out.
type disk struct {
	dir string

	mu    sync.Mutex
	since time.Time // of the first of the writes that failed in a row; zero: the last one succeeded
	err   error
}

// write carries out a write of the store.
func (d *disk) write(do func() error) error {
	err := do()
	d.note(err)
	return err
}

// note remembers how a write ended, if that is for the disk to answer for.
func (d *disk) note(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.since, d.err = time.Time{}, nil
	case d.since.IsZero():
		d.since, d.err = time.Now(), err
	default:
		d.err = err
	}
}

// failing says since when nothing can be written, and why. Where nothing was
// written for a while it looks at the folder: it may have become read-only, or full.
func (d *disk) failing() (since time.Time, err error) {
	const writable = 2 // W_OK
	seen := syscall.Access(d.dir, writable)
	var fs syscall.Statfs_t
	if seen == nil && syscall.Statfs(d.dir, &fs) == nil && fs.Blocks > 0 && int64(fs.Bavail)*int64(fs.Bsize) < leastRoom { //nolint:unconvert // 32 bits wide on some processors
		seen = syscall.ENOSPC
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case seen != nil && d.since.IsZero():
		d.since, d.err = time.Now(), fmt.Errorf("%s: %w", strings.TrimSuffix(d.dir, "/"), seen)
	case seen == nil && (errors.Is(d.err, syscall.EROFS) || errors.Is(d.err, syscall.ENOSPC) || errors.Is(d.err, syscall.EACCES)):
		// There is room again; the next write shows whether that is enough.
		d.since, d.err = time.Time{}, nil
	}
	return d.since, d.err
}

// vitals is what the supervisor watches about itself and its surroundings.
type vitals struct {
	disk      *disk
	sign      *sign // of the engine
	clock     *hostapp.Clock
	transport *uplink.Transport // of everybody who talks to the cloud
	link      *link
	load      *hostapp.Meter
	voltage   *hostapp.Voltage
	nudges    chan struct{} // something that is reported may have changed
}

// openVitals begins to watch; the store is open.
func (s *Supervisor) openVitals() {
	var err error
	if s.clock, err = hostapp.NewClock(version.BuildTime(), s.store.Clock, nil); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("a clock that starts in the past may not be noticed")
	}
	if now, wrong := s.clock.Now(); wrong {
		s.cfg.Log.Warn().Time("shows", time.Now()).Time("later_than", now).Str("advice", state.ClassClock.Advice()).Msg("the device's clock is wrong; certificates are checked with the last good time")
	}
	s.transport = s.newTransport()
	s.link = s.newWay()
	s.load = hostapp.NewMeter(hostapp.MeterConfig{Root: s.cfg.HostRoot})
	s.voltage = hostapp.NewVoltage(s.cfg.HostRoot)
	s.nudges, s.sign = make(chan struct{}, 1), newSign()
}

// nudge hints that something that is reported may have changed.
func (s *Supervisor) nudge() {
	select {
	case s.nudges <- struct{}{}:
	default:
	}
}

// watchVitals watches until ctx ends.
func (s *Supervisor) watchVitals(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { s.link.run(ctx) })
	all.Go(func() { s.watchEngine(ctx) })
	all.Go(func() { s.voltage.Watch(ctx, s.nudge) })
	all.Go(func() { s.watchdog(ctx) })
	all.Wait()
}
