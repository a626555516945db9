//go:build engine

package discovery

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// privateBus runs a bus of its own and returns its address.
func privateBus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	config := filepath.Join(dir, "bus.conf")
	text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>` + address + `</listen><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--config-file="+config, "--print-address=3")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{write}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start dbus-daemon: %v; install the package dbus", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = read.Close() })
	_ = write.Close()
	if line, err := bufio.NewReader(read).ReadString('\n'); err != nil || !strings.HasPrefix(line, address) {
		t.Fatalf("dbus-daemon says %q, %v", line, err)
	}
	return address
}

// host stands in for Avahi and systemd: it notes what it is asked for.
type host struct {
	mu    sync.Mutex
	asked []string
}

func (h *host) note(format string, args ...any) *dbus.Error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, fmt.Sprintf(format, args...))
	return nil
}

func (h *host) story() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.asked)
}

func (h *host) EntryGroupNew() (dbus.ObjectPath, *dbus.Error) { return "/Client1/EntryGroup1", nil }

func (h *host) AddService(i, p int32, _ uint32, name, kind, domain, on string, port uint16, text [][]byte) *dbus.Error {
	return h.note("service %d %d %s %s %q %q %d %s", i, p, name, kind, domain, on, port, text)
}

func (h *host) AddServiceSubtype(_, _ int32, _ uint32, name, kind, _, sub string) *dbus.Error {
	return h.note("subtype %s %s %s", name, kind, sub)
}

func (h *host) Commit() *dbus.Error { return h.note("commit") }

func (h *host) StartUnit(unit, _ string) (dbus.ObjectPath, *dbus.Error) {
	return "/job", h.note("start %s", unit)
}

func (h *host) StopUnit(unit, _ string) (dbus.ObjectPath, *dbus.Error) {
	return "/job", h.note("stop %s", unit)
}

// serve puts the host on a bus under the names.
func (h *host) serve(t *testing.T, bus string, names ...string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(bus)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for path, on := range map[dbus.ObjectPath]string{
		"/": avahi + ".Server", "/Client1/EntryGroup1": avahi + ".EntryGroup", "/org/freedesktop/systemd1": "org.freedesktop.systemd1.Manager",
	} {
		if err := conn.Export(h, path, on); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if reply, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
			t.Fatalf("own %s: %v %v", name, reply, err)
		}
	}
	return conn
}

func TestTheHostsAvahiAnnouncesTheDevice(t *testing.T) {
	bus := privateBus(t)
	h := &host{}
	conn := h.serve(t, bus, avahi)
	want := true
	c := Config{
		Enabled: func() bool { return want }, Bus: bus, Name: func() string { return "kitchen" }, Port: 22, Text: []string{"deckhand=1"},
		Interfaces: []string{"lo"}, Log: zerolog.Nop(),
	}
	now, err := c.step(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{
		`service -1 -1 kitchen _ssh._tcp "" "" 22 [deckhand=1]`,
		"subtype kitchen _ssh._tcp _balena-device._sub._ssh._tcp", "subtype kitchen _ssh._tcp _resin-device._sub._ssh._tcp", "commit",
	}, h.story()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if same, err := c.step(t.Context(), now); err != nil || same != now || len(h.story()) != 4 {
		t.Errorf("it is announced again: %v %v", h.story(), err)
	}
	// Avahi ends: the device answers itself.
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); now.Alive(); {
		if time.Now().After(deadline) {
			t.Fatal("the announcement outlives Avahi")
		}
	}
	now, err = c.step(t.Context(), now)
	if _, own := now.(*responder); err != nil || !own {
		t.Fatalf("%T %v", now, err)
	}
	want = false
	if now, err = c.step(t.Context(), now); now != nil || err != nil {
		t.Errorf("%T %v", now, err)
	}
}

func TestOnBalenaOSTheHostIsToldWhetherToAnnounce(t *testing.T) {
	bus := privateBus(t)
	h := &host{}
	h.serve(t, bus, "org.freedesktop.systemd1")
	want := true
	c := Config{Enabled: func() bool { return want }, Bus: bus, BalenaOS: true, Log: zerolog.Nop()}
	now, err := c.step(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want = false
	for range 2 { // once is enough
		if now, err = c.step(t.Context(), now); seen(now) || err != nil {
			t.Fatalf("%T %v", now, err)
		}
	}
	if diff := cmp.Diff([]string{"start avahi-daemon.socket", "start avahi-daemon.service", "stop avahi-daemon.socket", "stop avahi-daemon.service"}, h.story()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
