package hostapp

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deckhand/state"
)

// write makes a file with its folders.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// started is a host that was started at a time, in Unix seconds.
func started(t *testing.T, id, boot string) (*Reboots, string) {
	t.Helper()
	root := t.TempDir()
	// Never the bus of the machine that runs the test.
	r := NewReboots(RebootConfig{RunDir: filepath.Join(root, "tmp/balena-supervisor"), Root: root, Bus: "unix:path=" + root + "/bus"})
	restart(t, root, id, boot)
	return r, root
}

func restart(t *testing.T, root, id, boot string) {
	t.Helper()
	write(t, filepath.Join(root, "proc/stat"), "cpu  1 2 3\nintr 5\nctxt 1\nbtime "+boot+"\nprocesses 9\n")
	if id != "" {
		write(t, filepath.Join(root, "proc/sys/kernel/random/boot_id"), id+"\n")
	}
}

func pending(t *testing.T, r *Reboots) bool {
	t.Helper()
	got, err := r.Pending()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBootTime(t *testing.T) {
	r, _ := started(t, "", "1700000000")
	if boot, err := r.Boot(); err != nil || boot != 1700000000 {
		t.Errorf("%d %v", boot, err)
	}
	for _, content := range []string{"", "cpu 1\n", "btime soon\n", "\x00\xff"} {
		write(t, filepath.Join(r.cfg.Root, "proc/stat"), content)
		if _, err := r.Boot(); err == nil || !strings.Contains(err.Error(), "proc/stat") {
			t.Errorf("%q: %v, want an error that names the file", content, err)
		}
	}
	if boot, err := NewReboots(RebootConfig{RunDir: t.TempDir()}).Boot(); err != nil || boot < 1_000_000_000 {
		t.Errorf("this machine: %d %v", boot, err)
	}
}

func TestARequiredRebootIsPendingUntilTheDeviceRestarts(t *testing.T) {
	for name, ids := range map[string][2]string{"by the boot's ID": {"one", "two"}, "by time": {"", ""}} {
		t.Run(name, func(t *testing.T) {
			r, root := started(t, ids[0], "1000")
			if pending(t, r) {
				t.Error("a reboot is pending that nobody required")
			}
			require(t, r)
			require(t, r)
			if again := NewReboots(r.cfg); !pending(t, again) {
				t.Error("a restart of the supervisor loses the required reboot")
			}
			restart(t, root, ids[1], "4000000000")
			if pending(t, r) {
				t.Error("still pending after the device has restarted")
			}
		})
	}
}

func TestASecondRebootCanBeRequired(t *testing.T) {
	r, root := started(t, "one", "1000")
	require(t, r)
	restart(t, root, "two", "2000")
	require(t, r)
}

func require(t *testing.T, r *Reboots) {
	t.Helper()
	if err := r.Require(); err != nil {
		t.Fatal(err)
	}
	if !pending(t, r) {
		t.Error("the required reboot is not pending")
	}
}

// A device without a clock of its own starts in the past or is set to the right
// time long after its boot.
func TestAJumpOfTheClockLosesAndInventsNoReboot(t *testing.T) {
	r, root := started(t, "one", "1000")
	if err := r.Require(); err != nil {
		t.Fatal(err)
	}
	restart(t, root, "one", "4000000000")
	if !pending(t, r) {
		t.Error("the clock was set forward: the required reboot is lost")
	}
	restart(t, root, "two", "10")
	if pending(t, r) {
		t.Error("the device started in the past: it would restart for ever")
	}
}

func TestABreadcrumbOfAnotherSupervisor(t *testing.T) {
	r, root := started(t, "one", "1000")
	path := filepath.Join(root, "tmp/balena-supervisor/reboot-after-apply")
	write(t, path, "")
	if !pending(t, r) {
		t.Error("an empty breadcrumb from after the boot counts")
	}
	old := time.Unix(999, 0)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if pending(t, r) {
		t.Error("an empty breadcrumb from before the boot does not count")
	}
}

func TestABreadcrumbThatCannotBeWrittenIsAnError(t *testing.T) {
	r, root := started(t, "one", "1000")
	write(t, filepath.Join(root, "tmp/balena-supervisor"), "a file where the folder should be")
	if err := r.Require(); err == nil {
		t.Error("the required reboot is lost without a word")
	}
}

func TestNoRebootWhileANewHostOSIsOnTrial(t *testing.T) {
	for _, name := range []string{"rollback-health-breadcrumb", "rollback-altboot-breadcrumb"} {
		r, root := started(t, "one", "1000")
		write(t, filepath.Join(root, "mnt/state", name), "")
		err := r.Reboot(t.Context())
		if state.ClassOf(err) != state.ClassLocked || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want class locked and the name of the file", err)
		}
		if err := r.ForceReboot(t.Context()); err == nil || !strings.Contains(err.Error(), "D-Bus") {
			t.Errorf("%v, want force to go as far as the bus", err)
		}
	}
}

func TestABusThatCannotBeReached(t *testing.T) {
	r, root := started(t, "one", "1000")
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
	err := NewReboots(RebootConfig{RunDir: r.cfg.RunDir, Root: root}).Reboot(t.Context())
	if want := filepath.Join(root, "run/dbus/system_bus_socket"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want the socket's path %s", err, want)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")
	err = NewReboots(RebootConfig{Root: root}).Reboot(t.Context())
	if err == nil || !strings.Contains(err.Error(), "unix:path=/nowhere") {
		t.Errorf("%v, want the address of the environment", err)
	}
}

func TestABusThatDoesNotAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err = NewReboots(RebootConfig{Root: t.TempDir(), Bus: "unix:path=" + socket}).Reboot(ctx)
	if state.ClassOf(err) != state.ClassTimeout || !strings.Contains(err.Error(), socket) {
		t.Errorf("%v, want class timeout and the bus", err)
	}
}
