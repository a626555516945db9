package supervisor

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/files"
	"deckhand/locks"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
)

// Core is the part of a supervisor that looks at the device, remembers and
// changes it: neither cloud nor API. Tests end it between any two calls.
type Core struct {
	device *device
	memory memory
}

// CoreConfig says what a core works on.
type CoreConfig struct {
	Engine  *engine.Engine
	Store   *store.Store
	RunDir  string // lock folders, secrets and configs
	LockUID int    // owner of our lock files; 0: locks.LockUID
	Host    Host
	Log     zerolog.Logger
	Deaf    bool // see locks.Config
}

// Host is what a core asks of the operating system.
type Host interface {
	Boot() (int64, error)             // when the device was started, Unix seconds
	BootID() (string, error)          // names this run of the kernel, whatever the clock says
	Pending() (bool, error)           // a reboot was required since then
	Require() error                   // notes that one is required
	Reboot(ctx context.Context) error // asks for it
}

// NewCore reads what the store remembers.
func NewCore(c CoreConfig) (*Core, error) {
	d, err := newDevice(deviceConfig{
		Engine: c.Engine, Store: c.Store, Machine: c.Host, Log: c.Log,
		Locks: locks.Open(locks.Config{RunDir: c.RunDir, UID: c.LockUID, Log: c.Log, Deaf: c.Deaf}),
		Files: files.Open(files.Config{RunDir: c.RunDir, Log: c.Log}),
	})
	return &Core{d, memory{c.Store, c.Log}}, err
}

// Device is what a loop looks at and changes.
func (c *Core) Device() run.Device { return c.device }

// Memory keeps a loop's failures.
func (c *Core) Memory() run.Memory { return c.memory }

// Accept makes a new target the one in force; last is the last look at the
// device, zero if there was none.
func (c *Core) Accept(t state.Target, last state.World) error {
	err := errors.Join(c.device.learn(t, nil), c.device.retryHandovers(""), c.device.tidy(t, last))
	c.device.use(t)
	return err
}

// Restore makes the target the one in force that was so before a restart.
func (c *Core) Restore(t state.Target) { c.device.use(t) }
