package device

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"deckhand/cloud/model"
)

// presence knows which devices are there. A device is online from its first
// request; when it has not been heard for one and a half poll intervals it is
// late (timeout), and 15 seconds later offline. Only changes are written at
// once; the time a device was last heard is written in batches.
type presence struct {
	db     *model.DB
	poll   time.Duration
	failed func(error)

	mu      sync.Mutex
	devices map[int64]*heard
	dirty   map[int64]time.Time // last heard, not yet written
	metrics map[int64]time.Time // when metrics were last stored
}

type heard struct {
	last  time.Time
	poll  time.Duration
	held  int // requests of the device that are open now
	state string
}

const (
	sweepEvery   = time.Second
	writeEvery   = 5 * time.Second
	lateGrace    = 15 * time.Second
	metricsEvery = time.Minute
)

func newPresence(db *model.DB, poll time.Duration, failed func(error)) *presence {
	return &presence{db: db, poll: poll, failed: failed, devices: map[int64]*heard{}, dirty: map[int64]time.Time{}, metrics: map[int64]time.Time{}}
}

// enter notes that a request of the device began, leave that it ended.
func (p *presence) enter(ctx context.Context, device int64, poll time.Duration) {
	p.mu.Lock()
	h := p.devices[device]
	if h == nil {
		h = &heard{}
		p.devices[device] = h
	}
	if poll > 0 {
		h.poll = poll
	}
	if h.poll == 0 {
		h.poll = p.poll
	}
	h.held++
	changed := h.state != "online"
	h.state = "online"
	h.last = p.db.Now()
	p.dirty[device] = h.last
	p.mu.Unlock()
	if changed {
		p.set(ctx, device, "online", h.last)
	}
}

func (p *presence) leave(device int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.devices[device]
	h.held--
	h.last = p.db.Now()
	p.dirty[device] = h.last
}

func (p *presence) set(ctx context.Context, device int64, state string, seen time.Time) {
	if err := p.db.SetHeartbeat(ctx, device, state, seen); err != nil && ctx.Err() == nil {
		p.failed(fmt.Errorf("store that device %d is %s: %w", device, state, err))
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
	online, err := p.db.OnlineDevices(ctx)
	if ctx.Err() != nil {
		return nil // told to stop before it began
	}
	if err != nil {
		return fmt.Errorf("read which devices were online: %w", err)
	}
	p.restore(online)
	sweep, write := time.NewTicker(sweepEvery), time.NewTicker(writeEvery)
	defer sweep.Stop()
	defer write.Stop()
	for {
		select {
		case <-sweep.C:
			for device, state := range p.silent() {
				p.set(ctx, device, state, time.Time{})
			}
		case <-write.C:
			p.write(ctx)
		case <-ctx.Done():
			p.write(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// restore gives devices that were online before a restart a full interval to
// be heard again: the silence may have been the cloud's.
func (p *presence) restore(online map[int64]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for device := range online {
		if p.devices[device] == nil {
			p.devices[device] = &heard{last: p.db.Now(), poll: p.poll}
		}
	}
}

// silent lists the devices whose state changes now because they are silent.
func (p *presence) silent() map[int64]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.db.Now()
	changed := map[int64]string{}
	for device, h := range p.devices {
		if h.held > 0 {
			continue
		}
		late := now.Sub(h.last) - h.poll*3/2
		switch {
		case late > lateGrace:
			changed[device] = "offline"
			delete(p.devices, device)
		case late > 0 && h.state != "timeout":
			h.state = "timeout"
			changed[device] = "timeout"
		}
	}
	return changed
}

func (p *presence) write(ctx context.Context) {
	p.mu.Lock()
	dirty := maps.Clone(p.dirty)
	clear(p.dirty)
	p.mu.Unlock()
	if err := p.db.DeviceSeen(ctx, dirty); err != nil && ctx.Err() == nil {
		p.failed(fmt.Errorf("store when devices were last seen: %w", err))
	}
}
