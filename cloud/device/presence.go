package device

import (
	"context"
	"fmt"
	"sync"
	"time"

	"deckhand/cloud/model"
)

// presence writes down which devices are there. A device is online from its first
// request on. When it has not been heard for one and a half poll intervals it is
// late (timeout), and 15 seconds later offline.
//
// Several servers may share a database, and a device may ask now this one, now that
// one. So what decides is the database: until when a device counts as heard is
// written there, by whoever heard it, and a server that finds that time over says
// so whoever it was. What is in memory here saves writes, nothing else.
type presence struct {
	db     *model.DB
	poll   time.Duration
	failed func(error)
	kick   chan struct{} // something is to be written soon
	lost   time.Time     // since when sweeps fail; zero: they do not

	mu      sync.Mutex
	devices map[int64]*heard
	dirty   map[int64]struct{}  // to be written
	metrics map[int64]time.Time // when metrics were last stored
}

// heard is a device that was heard by this server.
type heard struct {
	last, written time.Time
	poll          time.Duration
	held          int  // requests of the device that are open now
	acts          bool // it fetches actions
	known         bool // acts is written
}

const (
	sweepEvery = time.Second
	lateGrace  = 15 * time.Second
	// awayAfter is for how long sweeps fail until the database counts as away: one
	// that fails alone is no silence of the cloud's.
	awayAfter    = 3 * sweepEvery
	metricsEvery = time.Minute
	// writeLag is how long a sign of life may wait to be written with others.
	writeLag = time.Second
	// firstLag is the same for one that changes what people see.
	firstLag = 50 * time.Millisecond
	// forgetAfter is after how many poll intervals of silence a device is forgotten.
	forgetAfter = 3
)

func newPresence(db *model.DB, poll time.Duration, failed func(error)) *presence {
	return &presence{
		db: db, poll: poll, failed: failed, kick: make(chan struct{}, 1),
		devices: map[int64]*heard{}, dirty: map[int64]struct{}{}, metrics: map[int64]time.Time{},
	}
}

// enter notes that a request of the device began, leave that it ended. poll is how
// often it will ask, 0 when the request does not tell; acts that it fetches actions.
func (p *presence) enter(device int64, poll time.Duration, acts bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.devices[device]
	if h == nil {
		h = &heard{poll: p.poll}
		p.devices[device] = h
	}
	h.held++
	if poll > 0 {
		if poll != h.poll {
			h.poll, h.written = poll, time.Time{} // it counts as heard for another time
		}
		if acts != h.acts || !h.known {
			h.acts, h.known, h.written = acts, true, time.Time{}
		}
	}
	p.hear(device, h)
}

func (p *presence) leave(device int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.devices[device]; h != nil {
		h.held--
		p.hear(device, h)
	}
}

// hear notes a sign of life. It is written when the last one written is old.
func (p *presence) hear(device int64, h *heard) {
	h.last = p.db.Now()
	if h.last.Sub(h.written) < h.poll/4 {
		return
	}
	first := h.written.IsZero()
	h.written = h.last
	p.dirty[device] = struct{}{}
	if first {
		signal(p.kick)
	}
}

// metricsDue says whether metrics alone are worth a write now.
func (p *presence) metricsDue(device int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.db.Now()
	if now.Sub(p.metrics[device]) < metricsEvery {
		return false
	}
	p.metrics[device] = now
	return true
}

func (p *presence) run(ctx context.Context) error {
	if err := p.db.ExtendHeartbeats(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read which devices were online: %w", err)
	}
	sweep, write := time.NewTicker(sweepEvery), time.NewTimer(writeLag)
	defer sweep.Stop()
	defer write.Stop()
	for {
		select {
		case <-p.kick:
			write.Reset(firstLag) // others come at the same time
		case <-write.C:
			p.write(ctx)
			write.Reset(writeLag)
		case <-sweep.C:
			p.refresh()
			p.write(ctx)
			if err := p.sweep(ctx); err != nil && ctx.Err() == nil {
				p.failed(fmt.Errorf("find silent devices: %w", err))
			}
		case <-ctx.Done():
			p.write(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// sweep finds who fell silent. After a time in which the database was away, nobody
// did: the silence was the cloud's.
func (p *presence) sweep(ctx context.Context) (err error) {
	if !p.lost.IsZero() && time.Since(p.lost) >= awayAfter {
		err = p.db.ExtendHeartbeats(ctx)
	}
	if err == nil {
		err = p.db.SilentDevices(ctx, lateGrace)
	}
	switch {
	case err == nil:
		p.lost = time.Time{}
	case p.lost.IsZero():
		p.lost = time.Now()
	}
	return err
}

// refresh hears those whose request is held, and forgets those that went away.
func (p *presence) refresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.db.Now()
	for device, h := range p.devices {
		switch {
		case h.held > 0:
			p.hear(device, h)
		case now.Sub(h.last) > forgetAfter*h.poll:
			delete(p.devices, device)
			delete(p.metrics, device)
		}
	}
}

func (p *presence) write(ctx context.Context) {
	p.mu.Lock()
	beats := make([]model.Heartbeat, 0, len(p.dirty))
	for device := range p.dirty {
		h := p.devices[device]
		if h == nil {
			continue
		}
		b := model.Heartbeat{Device: device, Seen: h.last, Until: h.last.Add(h.poll * 3 / 2)}
		if h.known {
			b.Acts = new(h.acts)
		}
		beats = append(beats, b)
	}
	clear(p.dirty)
	p.mu.Unlock()
	if err := p.db.Heartbeats(ctx, beats); err != nil && ctx.Err() == nil {
		p.failed(fmt.Errorf("store when devices were last seen: %w", err))
		p.again(beats)
	}
}

// again has heartbeats that could not be stored written with the next ones.
func (p *presence) again(beats []model.Heartbeat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range beats {
		p.dirty[b.Device] = struct{}{}
	}
}
