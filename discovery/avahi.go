package discovery

import (
	"context"
	"fmt"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	busTimeout = 15 * time.Second

	avahi     = "org.freedesktop.Avahi"
	anyWhere  = int32(-1) // every interface, both protocols
	noFlags   = uint32(0)
	groupCall = avahi + ".EntryGroup."
)

// group is an announcement that the host's Avahi makes for us. It ends with the
// connection.
type group struct {
	bus   *dbus.Conn
	owner string // of the name; another one is another Avahi
}

// askAvahi has the host's Avahi announce the device.
func (c Config) askAvahi(ctx context.Context) (announcement, error) {
	bus, err := dbus.Connect(c.Bus)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	owner, err := ownerOf(ctx, bus)
	if err == nil {
		err = c.publish(ctx, bus)
	}
	if err != nil {
		_ = bus.Close()
		return nil, err
	}
	return group{bus, owner}, nil
}

func ownerOf(ctx context.Context, bus *dbus.Conn) (string, error) {
	var owner string
	if err := bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, avahi).Store(&owner); err != nil {
		return "", errAbsent
	}
	return owner, nil
}

func (c Config) publish(ctx context.Context, bus *dbus.Conn) error {
	var path dbus.ObjectPath
	if err := bus.Object(avahi, "/").CallWithContext(ctx, avahi+".Server.EntryGroupNew", 0).Store(&path); err != nil {
		return fmt.Errorf("ask Avahi for an announcement: %w", err)
	}
	entry := bus.Object(avahi, path)
	text := make([][]byte, 0, len(c.Text))
	for _, t := range c.Text {
		text = append(text, []byte(t))
	}
	name := c.Name()
	if err := entry.CallWithContext(ctx, groupCall+"AddService", 0, anyWhere, anyWhere, noFlags, name, Service, "", "", c.Port, text).Err; err != nil {
		return fmt.Errorf("announce %s through Avahi: %w", name, err)
	}
	for _, sub := range []string{Subtype, OldTypes} {
		if err := entry.CallWithContext(ctx, groupCall+"AddServiceSubtype", 0, anyWhere, anyWhere, noFlags, name, Service, "", sub+"."+Service).Err; err != nil {
			return fmt.Errorf("announce %s as a device through Avahi: %w", name, err)
		}
	}
	if err := entry.CallWithContext(ctx, groupCall+"Commit", 0).Err; err != nil {
		return fmt.Errorf("announce %s through Avahi: %w", name, err)
	}
	return nil
}

// Alive reports whether the Avahi that was asked still runs.
func (g group) Alive() bool {
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	owner, err := ownerOf(ctx, g.bus)
	return err == nil && owner == g.owner
}

// Close takes the announcement back.
func (g group) Close() { _ = g.bus.Close() }

// units is the host's own announcement, which outlives us, or that it was stopped.
type units struct{ on bool }

// Alive is true: what stopped Avahi, if not we, had a reason.
func (units) Alive() bool { return true }

// Close leaves the host as it is.
func (units) Close() {}

// switchAvahi starts or stops the host's Avahi.
func (c Config) switchAvahi(ctx context.Context, on bool) error {
	bus, err := dbus.Connect(c.Bus)
	if err != nil {
		return fmt.Errorf("reach the host's D-Bus at %s: %w", c.Bus, err)
	}
	defer func() { _ = bus.Close() }()
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	method := "StopUnit"
	if on {
		method = "StartUnit"
	}
	manager := bus.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	for _, unit := range []string{"avahi-daemon.socket", "avahi-daemon.service"} {
		if err := manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager."+method, 0, unit, "fail").Err; err != nil {
			return fmt.Errorf("%s %s on the host: %w", method, unit, err)
		}
	}
	return nil
}
