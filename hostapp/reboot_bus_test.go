//go:build engine

package hostapp

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// privateBus runs a bus of its own and returns its address.
func privateBus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	config := filepath.Join(dir, "bus.conf")
	write(t, config, `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>`+address+`</listen><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>`)
	// The address is printed when the bus is up.
	cmd := exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--config-file="+config, "--print-address=3")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.ExtraFiles, cmd.Stderr = []*os.File{write}, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("start dbus-daemon: %v; install the package dbus", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = read.Close()
		if t.Failed() {
			t.Logf("dbus-daemon says:\n%s", said.String())
		}
	})
	_ = write.Close()
	if line, err := bufio.NewReader(read).ReadString('\n'); err != nil || !strings.HasPrefix(line, address) {
		t.Fatalf("dbus-daemon says %q, %v", line, err)
	}
	return address
}

// logind stands in for the host's: it counts and refuses.
type logind struct {
	calls       atomic.Int32
	off         atomic.Int32
	interactive atomic.Bool
	refusal     *dbus.Error
}

// Reboot is called over the bus.
func (l *logind) Reboot(interactive bool) *dbus.Error {
	l.calls.Add(1)
	l.interactive.Store(interactive)
	return l.refusal
}

// PowerOff is called over the bus.
func (l *logind) PowerOff(interactive bool) *dbus.Error {
	l.off.Add(1)
	l.interactive.Store(interactive)
	return l.refusal
}

func (l *logind) serve(t *testing.T, address string) {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.Export(l, "/org/freedesktop/login1", "org.freedesktop.login1.Manager"); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName("org.freedesktop.login1", dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("%v %v", reply, err)
	}
}

func TestARebootAsksTheHostOnce(t *testing.T) {
	bus, l := privateBus(t), &logind{}
	l.serve(t, bus)
	r := NewReboots(RebootConfig{Root: t.TempDir(), Bus: bus})
	now := r.now()
	r.now = func() time.Time { return now }
	for range 3 {
		if err := r.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if l.calls.Load() != 1 || l.interactive.Load() {
		t.Errorf("%d calls, interactive: %v; want one that asks nobody", l.calls.Load(), l.interactive.Load())
	}
	now = now.Add(downWithin)
	if err := r.Reboot(t.Context()); err != nil || l.calls.Load() != 2 {
		t.Errorf("%d calls, %v; want a device that never went down to be asked again", l.calls.Load(), err)
	}
}

// Who is on the way down is not asked for anything else.
func TestADeviceIsSwitchedOffOnce(t *testing.T) {
	bus, l := privateBus(t), &logind{}
	l.serve(t, bus)
	root := t.TempDir()
	trial := filepath.Join(root, trials[0])
	if err := os.MkdirAll(filepath.Dir(trial), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, trial, "")
	r := NewReboots(RebootConfig{Root: root, Bus: bus})
	if !r.OnTrial() || r.Reboot(t.Context()) == nil {
		t.Error("a new host OS on trial is taken back")
	}
	for _, down := range []func() error{func() error { return r.PowerOff(t.Context()) }, func() error { return r.ForceReboot(t.Context()) }} {
		if err := down(); err != nil {
			t.Fatal(err)
		}
	}
	if l.off.Load() != 1 || l.calls.Load() != 0 || l.interactive.Load() {
		t.Errorf("switched off %d times, restarted %d times", l.off.Load(), l.calls.Load())
	}
}

func TestWhatTheHostRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		refusal string
		want    string // "": it is as good as done
	}{
		"going down":  {"org.freedesktop.login1.OperationInProgress", ""},
		"not allowed": {"org.freedesktop.DBus.Error.AccessDenied", "run it as root"},
		"inhibited":   {"org.freedesktop.login1.BlockedByInhibitorLock", "the host refused"},
	} {
		t.Run(name, func(t *testing.T) {
			bus, l := privateBus(t), &logind{refusal: dbus.NewError(c.refusal, []any{"no"})}
			l.serve(t, bus)
			r := NewReboots(RebootConfig{Root: t.TempDir(), Bus: bus})
			err := r.Reboot(t.Context())
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _ = r.Reboot(t.Context()); l.calls.Load() != 2 {
				t.Errorf("%d calls, want another try after a refusal", l.calls.Load())
			}
		})
	}
	t.Run("no logind", func(t *testing.T) {
		err := NewReboots(RebootConfig{Root: t.TempDir(), Bus: privateBus(t)}).Reboot(t.Context())
		if err == nil || !strings.Contains(err.Error(), "logind must run") {
			t.Error(err)
		}
	})
}
