package supervisor

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"deckhand/report"
	"deckhand/state"
	"deckhand/uplink"
)

const (
	// probeDoubt is how often the way to the cloud is tried while it is not known
	// to be good, and how long one try may take.
	probeDoubt = 10 * time.Second
	// probeCalm is how often when all is well: a try costs a device on a metered
	// link as much as a question does.
	probeCalm = 5 * time.Minute
	// addressLook is how often addresses are looked at where the kernel does not
	// tell of changes.
	addressLook = 30 * time.Second
	// newAddressRest is the least time between two questions that new addresses lead to.
	newAddressRest = 30 * time.Second
	// vpnFile is the file that says that the VPN is up, below the host's root.
	vpnFile = "run/openvpn/vpn_status/active"
)

// linkConfig says what a link is about.
type linkConfig struct {
	Network   network
	Endpoint  func() string // of the cloud; empty: there is none
	Enabled   func() bool   // the owner wants the way to be tried
	VPN       string        // file that exists while a VPN is up: it is proof enough
	Addresses func() string // of this device
	// Watch calls changed when the addresses may have changed, until ctx ends.
	Watch func(ctx context.Context, changed func()) error
	// Moved is told when the device has other addresses than before.
	Moved func()
	// Turned is told when the way is lost (with the reason) and found again (nil).
	Turned func(error)
}

// network is the part of uplink.Transport that a link needs.
type network interface {
	Probe(ctx context.Context, endpoint string) error
	CloseIdleConnections()
}

// link is the way to the cloud: whether packets get there, and under which
// addresses the device can be reached.
type link struct {
	linkConfig
	wake chan struct{} // something speaks against the way being good

	mu   sync.Mutex
	lost time.Time // since when; zero: it is good, or nobody wants to know
	why  error
}

func newLink(c linkConfig) *link { return &link{linkConfig: c, wake: make(chan struct{}, 1)} }

// doubt asks for a try soon.
func (l *link) doubt() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Lost says since when the cloud's address is not reached; zero: it is.
func (l *link) Lost() (since time.Time, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost, l.why
}

// run tries the way until ctx ends: often while it is lost, seldom while it is good.
func (l *link) run(ctx context.Context) {
	var watcher sync.WaitGroup
	defer watcher.Wait()
	watcher.Go(func() { l.follow(ctx) })
	wait := probeDoubt
	for ctx.Err() == nil {
		switch err, tried := l.try(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = probeDoubt
		case tried:
			wait = min(2*wait, probeCalm)
		default:
			wait = time.Minute // for the owner, or the VPN, to change their mind
		}
		l.rest(ctx, wait)
	}
}

// rest ends early when there is doubt, but not at once: a request that failed for
// another reason must not become a storm of tries.
func (l *link) rest(ctx context.Context, wait time.Duration) {
	if !pause(ctx, min(wait, probeDoubt)) || wait <= probeDoubt {
		return
	}
	timer := time.NewTimer(wait - probeDoubt)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-l.wake:
	case <-timer.C:
	}
}

// try sees whether the way is good; tried is false when nobody wants to know.
func (l *link) try(ctx context.Context) (err error, tried bool) { //nolint:revive // the error comes first as it decides
	endpoint := l.Endpoint()
	if endpoint == "" || !l.Enabled() || l.vpnUp() {
		l.note(nil)
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, probeDoubt)
	defer cancel()
	err = l.Network.Probe(ctx, endpoint)
	if errors.Is(ctx.Err(), context.Canceled) {
		return err, true
	}
	l.note(err)
	return err, true
}

func (l *link) vpnUp() bool {
	if l.VPN == "" {
		return false
	}
	_, err := os.Stat(l.VPN)
	return err == nil
}

func (l *link) note(err error) {
	l.mu.Lock()
	turned := l.lost.IsZero() != (err == nil)
	if err == nil {
		l.lost = time.Time{}
	} else if l.lost.IsZero() {
		l.lost = time.Now()
	}
	l.why = err
	l.mu.Unlock()
	if turned {
		l.Turned(err)
	}
}

// follow tells of new addresses. Connections under the old ones would only be
// given up after a minute of silence.
func (l *link) follow(ctx context.Context) {
	hints := make(chan struct{}, 1)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	watcher.Go(func() {
		err := l.Watch(ctx, func() {
			select {
			case hints <- struct{}{}:
			default:
			}
		})
		for err != nil && pause(ctx, addressLook) {
			select {
			case hints <- struct{}{}:
			default:
			}
		}
	})
	known := l.Addresses()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hints:
		}
		if now := l.Addresses(); now != known {
			known = now
			l.Network.CloseIdleConnections()
			l.doubt()
			l.Moved()
			pause(ctx, newAddressRest) // interfaces get their addresses one by one
		}
	}
}

// transport is the way to the cloud for all who talk to it.
func (s *Supervisor) newTransport() *uplink.Transport {
	return uplink.NewTransport(uplink.TransportConfig{
		Authorities: func() []byte {
			b, err := base64.StdEncoding.DecodeString(s.values().RootCA)
			if err != nil {
				return nil // config.json was checked when it was read
			}
			return b
		},
		Clock: s.clock.Now,
		Answered: func(verified bool) {
			if !verified {
				return
			}
			if err := s.clock.Good(); err != nil {
				s.cfg.Log.Warn().Err(err).Msg("a clock that starts in the past may not be noticed")
			}
		},
		Failed:  func(error) { s.link.doubt() },
		Resolve: newResolver(),
	})
}

// newWay is the way from this device to its cloud.
func (s *Supervisor) newWay() *link {
	return newLink(linkConfig{
		Network: s.transport, Endpoint: func() string { return s.values().APIEndpoint },
		Enabled:   func() bool { return s.settings().ConnectivityCheck },
		VPN:       filepath.Join("/", s.cfg.HostRoot, vpnFile),
		Addresses: addresses, Watch: report.WatchAddresses,
		Moved: func() {
			s.cfg.Log.Info().Msg("the device has other addresses; asking the cloud anew")
			s.nudge()
			s.mu.Lock()
			p := s.poller
			s.mu.Unlock()
			if p != nil {
				p.Trigger(uplink.Trigger{Own: true})
			}
		},
		Turned: func(err error) {
			if bad := s.led.Lost(err != nil); bad != nil {
				s.cfg.Log.Debug().Err(bad).Msg("the lamp does not show whether the cloud is reached")
			}
			if err == nil {
				s.cfg.Log.Info().Msg("the cloud's address is reached again")
				return
			}
			s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Str("advice", state.ClassOf(err).Advice()).Msg("the cloud's address is not reached")
		},
	})
}
