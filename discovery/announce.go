package discovery

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
)

// The service under which tools look for devices, and the subtypes that tell
// devices from other machines: the second is the older name.
const (
	Service  = "_ssh._tcp"
	Subtype  = "_balena-device._sub"
	OldTypes = "_resin-device._sub"
)

// Config says what to announce and when.
type Config struct {
	// Enabled reports whether the device is to be announced. It is asked whenever
	// the channel that Changed gave last is closed, and every minute.
	Enabled func() bool
	Changed func() <-chan struct{}

	BalenaOS bool   // the host's Avahi announces the device by itself
	Bus      string // address of the host's D-Bus, as in "unix:path=/run/dbus/system_bus_socket"

	Name func() string // of the device in its network, unique there; at most 63 bytes
	Port uint16        // of the service
	Text []string      // key=value, for tools

	// Interfaces limits the networks to those of these names; nil: all that are
	// up and not loopback. It does not bind Avahi, which has its own list.
	Interfaces []string

	Log zerolog.Logger
}

// recheck is how often the host is looked at again: Avahi may have come or gone,
// and interfaces too.
const recheck = time.Minute

// errAbsent: there is no Avahi to ask.
var errAbsent = errors.New("no Avahi on the host's D-Bus")

// announcement is one that others see until it is closed.
type announcement interface {
	// Alive reports whether it is still as it should be.
	Alive() bool
	// Close takes it back.
	Close()
}

// Run announces the device until ctx ends. What goes wrong is logged once and
// tried again: a device that is not found is no reason to stop anything.
func Run(ctx context.Context, c Config) {
	var now announcement
	var said string
	defer func() {
		if now != nil {
			now.Close()
		}
	}()
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		changed := c.Changed()
		var err error
		now, err = c.step(ctx, now)
		if text := errorText(err); text != said {
			if said = text; err != nil {
				c.Log.Warn().Err(err).Msg("the device cannot be found in its network; give its address to tools")
			}
		}
		if !c.wait(ctx, changed, tick.C, seen(now)) {
			return
		}
	}
}

// seen reports whether others can find the device.
func seen(now announcement) bool {
	u, hosts := now.(units)
	return now != nil && (!hosts || u.on)
}

// wait returns when it is time to look at the host again, or when what is wanted
// is not what there is; false: ctx has ended.
func (c Config) wait(ctx context.Context, changed <-chan struct{}, tick <-chan time.Time, announced bool) bool {
	for {
		select {
		case <-changed:
			changed = c.Changed()
			if c.Enabled() != announced {
				return true
			}
		case <-tick:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// step makes the announcement as it should be.
func (c Config) step(ctx context.Context, now announcement) (announcement, error) {
	want := c.Enabled()
	if seen(now) && want && now.Alive() {
		return now, nil
	}
	if c.BalenaOS {
		if u, known := now.(units); known && u.on == want {
			return now, nil
		}
		if err := c.switchAvahi(ctx, want); err != nil {
			return nil, err
		}
		return units{want}, nil
	}
	if now != nil {
		now.Close()
	}
	if !want {
		return nil, nil
	}
	a, err := c.askAvahi(ctx)
	if err == nil {
		return a, nil
	}
	r, ownErr := c.answer()
	if ownErr == nil {
		return r, nil
	}
	return nil, errors.Join(err, ownErr)
}
