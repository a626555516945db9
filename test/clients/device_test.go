//go:build engine && interop && linux

package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/godbus/dbus/v5"

	"deckhand/test/system"
)

// logind stands in for the host's: it is asked to restart, and to switch off.
type logind struct{ asked chan string }

// Reboot is called over the bus.
func (l logind) Reboot(bool) *dbus.Error {
	l.asked <- "restart"
	return nil
}

// PowerOff is called over the bus.
func (l logind) PowerOff(bool) *dbus.Error {
	l.asked <- "switch off"
	return nil
}

// newLogind gives a host's D-Bus with its logind.
func newLogind(t *testing.T, dir string) (string, logind) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	address, bus, err := system.StartBus(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Kill)
	l := logind{make(chan string, 10)}
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
	return address, l
}

// does waits until the host was asked for something.
func (o *owner) does(l logind, want string) {
	o.Helper()
	select {
	case got := <-l.asked:
		if got != want {
			o.Errorf("the host was asked to %s, want %s", got, want)
		}
	case <-time.After(deadline):
		o.Fatalf("the host was not asked to %s", want)
	}
}

// work is a real device with an engine of its own.
type work struct {
	*owner
	unit        *system.Device
	uuid, fleet string
	host        logind
}

// starts starts a device on the config.json that the CLI wrote.
func (o *owner) starts(uuid, fleet string) *work {
	o.Helper()
	t := o.TB.(*testing.T)
	dir, err := os.MkdirTemp("", "deck-") // short: it holds sockets
	o.must(err)
	o.Cleanup(func() { _ = os.RemoveAll(dir) })
	bus, host := newLogind(t, dir)
	program := filepath.Join(dir, "deckhand")
	o.must(os.WriteFile(program, []byte("#!/bin/sh\nexport DBUS_SYSTEM_BUS_ADDRESS="+bus+"\nexec "+set.programs.Deckhand+" \"$@\"\n"), 0o700))
	path := filepath.Join(o.dir, "config.json")
	o.says("config generate --device " + uuid + " --version 6.0.0 --network ethernet --appUpdatePollInterval 10 --dev --generate-device-api-key --output " + path)
	content, err := os.ReadFile(path)
	o.must(err)
	var values map[string]any
	o.must(json.Unmarshal(content, &values))
	unit, err := system.NewDevice(system.DeviceConfig{Program: program, Dir: dir, Engine: set.field.Host, Values: values})
	o.must(err)
	w := &work{owner: o, unit: unit, uuid: uuid, fleet: fleet, host: host}
	o.Cleanup(w.ends)
	o.must(unit.Start())
	return w
}

func (w *work) ends() {
	w.Helper()
	if err := w.unit.Stop(); err != nil {
		w.Error(err)
	}
	if w.Failed() {
		w.Logf("the device says:\n%s", w.unit.Log)
	}
	list, err := set.field.Client.ContainerList(context.Background(), container.ListOptions{All: true})
	for _, c := range list {
		err = errors.Join(err, set.field.Client.ContainerRemove(context.Background(), c.ID, container.RemoveOptions{Force: true}))
	}
	if err != nil {
		w.Error(err)
	}
}

// within waits for a condition.
func (w *work) within(what string, condition func(context.Context) error) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), deadline)
	defer cancel()
	if err := system.Until(ctx, condition); err != nil {
		w.Fatalf("%s: %v", what, err)
	}
}

// settles waits until the device runs a release.
func (w *work) settles(commit string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), deadline)
	defer cancel()
	w.must(w.unit.Settled(ctx, commit))
}

// started is when the only container of the device was started.
func (w *work) started(ctx context.Context) (string, error) {
	list, err := set.field.Client.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", fmt.Errorf("%d containers run, want one", len(list))
	}
	c, err := set.field.Client.ContainerInspect(ctx, list[0].ID)
	if err != nil {
		return "", err
	}
	return c.State.StartedAt, nil
}

// again types a command that starts the device's only service again.
func (w *work) again(line string, wants ...string) {
	w.Helper()
	before, err := w.started(w.Context())
	w.must(err)
	w.says(line, wants...)
	w.within("after "+line+" the service starts again", func(ctx context.Context) error {
		now, err := w.started(ctx)
		if err == nil && now == before {
			err = errors.New("it has not been started")
		}
		return err
	})
}

// A device that the CLI registered and configured runs what the CLI deploys, says so,
// and does what it is told.
func deviceAtWork(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("working")
	commit := o.deploy(fleet, "one", map[string]string{"web": "one"})
	uuid := strings.Repeat("7", 32)
	o.says("device register "+fleet+" --uuid "+uuid, "Registering to "+fleet+": "+uuid)
	o.refuses("device restart "+uuid, "is not online")
	o.refuses("device identify "+uuid, "is not online")
	w := o.starts(uuid, fleet)
	w.settles(commit)
	w.within("the CLI shows what runs", func(context.Context) error {
		var d row
		w.reads("device "+uuid, &d)
		if d.text("commit") != commit || d["is_online"] != true || d.text("overall_status") != "operational" {
			return fmt.Errorf("it is %v", d)
		}
		return nil
	})
	w.says("fleet list", "working "+fleet+" generic-amd64 1 1")
	w.logsOf(uuid)
	w.actions(uuid, fleet)
	w.sdk("live", fleet, uuid, commit)
	w.power(uuid)
}

func (w *work) logsOf(uuid string) {
	w.Helper()
	w.within("the CLI shows lines of the service", func(context.Context) error {
		c := w.types("device logs " + uuid)
		if code := c.ends(); code != 0 {
			return fmt.Errorf("code %d: %s", code, c.log)
		}
		return contains(c.log.String(), "[web] here is one")
	})
	w.says("device logs "+uuid+" --system", "Started service 'web")
	follow := w.types("device logs " + uuid + " --tail --service web")
	follow.shows("[web] here is one")
	old := follow.log.Len()
	w.within("new lines come", func(context.Context) error {
		if now := follow.log.Len(); now < old+3 {
			return fmt.Errorf("%d lines, and %d before", now, old)
		}
		return nil
	})
	follow.interrupt()
}

func (w *work) actions(uuid, fleet string) {
	w.Helper()
	w.again("device restart " + uuid)
	w.again("device restart " + uuid + " --service web")
	w.says("device stop-service " + uuid + " web")
	w.within("the service stops", func(ctx context.Context) error {
		list, err := set.field.Client.ContainerList(ctx, container.ListOptions{})
		if err == nil && len(list) > 0 {
			err = errors.New("it runs")
		}
		return err
	})
	w.says("device start-service " + uuid + " web")
	w.within("the service starts", func(ctx context.Context) error {
		_, err := w.started(ctx)
		return err
	})
	w.says("device identify " + uuid)
	w.says("device purge " + uuid)
	w.says("fleet purge " + fleet)
	w.again("fleet restart " + fleet)
	w.refuses("device local-mode "+uuid+" --enable", "Device OS version does not support local mode") // it is no balenaOS
}

func (w *work) power(uuid string) {
	w.Helper()
	w.says("device reboot " + uuid)
	w.does(w.host, "restart")
	w.must(w.unit.Restart())
	w.within("the device is back", func(context.Context) error {
		var d row
		w.reads("device "+uuid, &d)
		if d["is_online"] != true {
			return fmt.Errorf("it is %v", d)
		}
		return nil
	})
	w.says("device shutdown " + uuid)
	w.does(w.host, "switch off")
}

func contains(text, part string) error {
	if !strings.Contains(squeeze(text), squeeze(part)) {
		return fmt.Errorf("%q is not in %s", part, text)
	}
	return nil
}
