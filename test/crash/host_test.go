package crash

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errReboot ends a life of the supervisor: the host is going down.
var errReboot = errors.New("the device is being rebooted")

// host is the operating system. What is noted there outlives the supervisor.
type host struct {
	asked chan struct{} // one for each reboot that is asked for

	mu      sync.Mutex
	boot    time.Time
	pending bool
}

func newHost(boot time.Time, pending bool) *host {
	return &host{asked: make(chan struct{}, 1), boot: boot, pending: pending}
}

// copy is a host that remembers the same.
func (h *host) copy() *host {
	h.mu.Lock()
	defer h.mu.Unlock()
	return newHost(h.boot, h.pending)
}

// Boot implements supervisor.Host.
func (h *host) Boot() (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boot.Unix(), nil
}

// BootID implements supervisor.Host.
func (h *host) BootID() (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boot.String(), nil
}

// Pending implements supervisor.Host.
func (h *host) Pending() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pending, nil
}

// Require implements supervisor.Host.
func (h *host) Require() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending = true
	return nil
}

// Reboot implements supervisor.Host: the host agrees and goes down soon.
func (h *host) Reboot(context.Context) error {
	select {
	case h.asked <- struct{}{}:
	default:
	}
	return nil
}

// restarts reports whether a reboot was asked for.
func (h *host) restarts() bool {
	select {
	case <-h.asked:
		return true
	default:
		return false
	}
}

// started moves the time of the start.
func (h *host) started() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boot = time.Now()
}

// up is the host after a reboot.
func (h *host) up() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boot, h.pending = time.Now(), false
}
