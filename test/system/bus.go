//go:build linux

package system

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// busConfig lets everybody do everything.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>%s</listen><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>`

// StartBus starts a D-Bus of its own, with its socket in a folder, so that a device
// under test never asks the machine itself to restart. It gives the bus's address.
func StartBus(ctx context.Context, dir string) (address string, bus *Process, err error) {
	address = "unix:path=" + filepath.Join(dir, "bus")
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, address), 0o600); err != nil {
		return "", nil, fmt.Errorf("start a D-Bus: %w", err)
	}
	log := NewLog(nil)
	bus, err = Run(log, nil, "dbus-daemon", "--nofork", "--nopidfile", "--config-file="+config, "--print-address=1")
	if err != nil {
		return "", nil, fmt.Errorf("%w; install the package dbus", err)
	}
	if _, err := log.Wait(ctx, 0, "the address of the bus", func(l Line) bool { return strings.HasPrefix(l.Text, address) }); err != nil {
		bus.Kill()
		return "", nil, fmt.Errorf("start a D-Bus: %w\n%s", err, log)
	}
	return address, bus, nil
}
