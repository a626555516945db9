package hostapp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"deckhand/state"
)

const (
	breadcrumb = "reboot-after-apply" // in RunDir; balena's supervisor reads its time

	busTimeout = 30 * time.Second // for the host to take the request
	downWithin = 10 * time.Minute // a device that still runs after that is asked again
)

// trials exist in the host's state folder while a new host OS must show that it
// works; a reboot in that time brings the old one back.
var trials = [...]string{"mnt/state/rollback-health-breadcrumb", "mnt/state/rollback-altboot-breadcrumb"}

// RebootConfig says where things of the host are.
type RebootConfig struct {
	RunDir string // of the supervisor, on the host
	Root   string // the host's root folder; empty: "/"
	Bus    string // address of the host's D-Bus; empty: DBUS_SYSTEM_BUS_ADDRESS, else the usual socket in Root
}

// Reboots knows when the device was started, and whether and how it is to be
// restarted.
type Reboots struct {
	cfg RebootConfig
	now func() time.Time

	mu    sync.Mutex
	asked time.Time // when the host last agreed to reboot
}

// NewReboots makes a Reboots; it touches nothing.
func NewReboots(cfg RebootConfig) *Reboots {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Bus == "" {
		cfg.Bus = os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	}
	if cfg.Bus == "" {
		cfg.Bus = "unix:path=" + filepath.Join(cfg.Root, "run/dbus/system_bus_socket")
	}
	return &Reboots{cfg: cfg, now: time.Now}
}

// Pending reports whether a reboot was required since the device was started.
// The note of it names the boot, because clocks of devices jump; one without a
// name, as balena's supervisor leaves it, counts when it is younger than the
// boot.
func (r *Reboots) Pending() (bool, error) {
	info, err := os.Lstat(r.breadcrumb())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a required reboot: %w", err)
	}
	if info.Mode().IsRegular() {
		note, err := readSmall(r.breadcrumb())
		if err != nil {
			return false, fmt.Errorf("look for a required reboot: %w", err)
		}
		current, err := r.BootID()
		if noted := strings.TrimSpace(string(note)); err == nil && current != "" && noted != "" {
			return noted == current, nil
		}
	}
	boot, err := r.Boot()
	if err != nil {
		return false, fmt.Errorf("look for a required reboot: %w", err)
	}
	return info.ModTime().After(time.Unix(boot, 0)), nil
}

// Require notes that the device must be restarted. The note is on the disk when
// it returns.
func (r *Reboots) Require() error {
	if pending, err := r.Pending(); err == nil && pending {
		return nil
	}
	id, _ := r.BootID() // without one the file's time counts
	if err := writeNote(r.breadcrumb(), id); err != nil {
		return fmt.Errorf("note that a reboot is required: %w", err)
	}
	return nil
}

func writeNote(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	// An empty text does not touch an empty file; its time is what counts then.
	now := time.Now()
	return errors.Join(err, f.Sync(), f.Close(), os.Chtimes(path, now, now))
}

// Boot is when the device was started, in Unix seconds. It moves when the
// device's clock is set.
func (r *Reboots) Boot() (int64, error) {
	path := filepath.Join(r.cfg.Root, "proc/stat")
	b, err := readSmall(path)
	if err != nil {
		return 0, fmt.Errorf("find the time of the boot: %w", err)
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			if boot, err := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64); err == nil {
				return boot, nil
			}
		}
	}
	return 0, fmt.Errorf("find the time of the boot: %s tells none; is the host's /proc there?", path)
}

// Reboot asks the host to restart the device. It returns when the host has
// agreed, which is before anything ends; while the device goes down it is not
// asked a second time. It refuses, with class locked, while a new host OS is on
// trial.
func (r *Reboots) Reboot(ctx context.Context) error {
	if name := r.trial(); name != "" {
		return fmt.Errorf("reboot: %w", state.Classify(state.ClassLocked,
			fmt.Errorf("a new host OS is on trial (%s) and would be taken back; wait until the host has accepted it, or force the reboot", name)))
	}
	return r.ForceReboot(ctx)
}

// OnTrial reports whether a new host OS must still show that it works.
func (r *Reboots) OnTrial() bool { return r.trial() != "" }

// trial is the note of a new host OS on trial; "": there is none.
func (r *Reboots) trial() string {
	for _, name := range trials {
		if _, err := os.Lstat(filepath.Join(r.cfg.Root, name)); err == nil {
			return name
		}
	}
	return ""
}

// ForceReboot is Reboot even while a new host OS is on trial.
func (r *Reboots) ForceReboot(ctx context.Context) error { return r.goDown(ctx, "Reboot", "reboot") }

// PowerOff asks the host to switch the device off, as ForceReboot asks for a
// restart.
func (r *Reboots) PowerOff(ctx context.Context) error { return r.goDown(ctx, "PowerOff", "power off") }

// goDown calls a method of logind, once.
func (r *Reboots) goDown(ctx context.Context, method, verb string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.asked.IsZero() && r.now().Sub(r.asked) < downWithin {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	if err := r.ask(ctx, method); err != nil {
		if ctx.Err() != nil {
			err = state.Classify(state.ClassTimeout, fmt.Errorf("the host's D-Bus (%s) does not answer", r.cfg.Bus))
		}
		return fmt.Errorf("%s: %w", verb, err)
	}
	r.asked = r.now()
	return nil
}

// ask calls logind.
func (r *Reboots) ask(ctx context.Context, method string) error {
	bus, err := dbus.Connect(r.cfg.Bus, dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("cannot reach the host's D-Bus at %s; give the supervisor the host's /run/dbus, or name the bus in DBUS_SYSTEM_BUS_ADDRESS: %w", r.cfg.Bus, err)
	}
	defer func() { _ = bus.Close() }()
	const notInteractive = false
	err = bus.Object("org.freedesktop.login1", "/org/freedesktop/login1").
		CallWithContext(ctx, "org.freedesktop.login1.Manager."+method, 0, notInteractive).Err
	refusal, ok := errors.AsType[dbus.Error](err)
	if !ok {
		return err
	}
	switch refusal.Name {
	case "org.freedesktop.login1.OperationInProgress":
		return nil // it is going down already
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return fmt.Errorf("nobody on the host's D-Bus restarts devices; systemd-logind must run there: %w", err)
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
		return fmt.Errorf("the host does not let the supervisor restart the device; run it as root: %w", err)
	}
	return fmt.Errorf("the host refused: %w", err)
}

func (r *Reboots) breadcrumb() string { return filepath.Join(r.cfg.RunDir, breadcrumb) }

// BootID names this run of the kernel, whatever the clock says.
func (r *Reboots) BootID() (string, error) {
	b, err := readSmall(filepath.Join(r.cfg.Root, "proc/sys/kernel", bootIDFile))
	if err != nil {
		return "", fmt.Errorf("find the ID of the boot: %w", err)
	}
	return oneLine(string(b)), nil
}
