package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// way is a network that can be cut.
type way struct {
	mu     sync.Mutex
	cut    error
	probes []time.Duration // after which time
	closed int
	began  time.Time
}

func (w *way) Probe(context.Context, string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes = append(w.probes, time.Since(w.began))
	return w.cut
}

func (w *way) CloseIdleConnections() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed++
}

func (w *way) set(cut error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *way) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.probes)
}

func elapse(d time.Duration) { <-time.After(d) }

// walk runs a link in virtual time.
func walk(t *testing.T, c linkConfig, w *way, during func(l *link)) {
	t.Helper()
	w.began = time.Now()
	c.Network = w
	if c.Endpoint == nil {
		c.Endpoint = func() string { return "https://cloud.test" }
	}
	if c.Enabled == nil {
		c.Enabled = func() bool { return true }
	}
	if c.Addresses == nil {
		c.Addresses = func() string { return "" }
	}
	if c.Watch == nil {
		c.Watch = func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }
	}
	if c.Turned == nil {
		c.Turned = func(error) {}
	}
	l := newLink(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.run(ctx) }()
	during(l)
	cancel()
	<-done
}

func TestTheWayIsTriedOftenInDoubtAndSeldomInPeace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &way{}
		var turns []string
		walk(t, linkConfig{Turned: func(err error) { turns = append(turns, fmt.Sprint(err)) }}, w, func(l *link) {
			elapse(time.Hour)
			if n := w.count(); n > 20 {
				t.Errorf("%d tries in a good hour", n)
			}
			before := w.count()
			outage(t, w, l)
			if n := w.count() - before; n < 60 || n > 66 {
				t.Errorf("%d tries in ten minutes and a half of outage", n)
			}
			w.set(nil)
			elapse(15 * time.Second)
			if since, why := l.Lost(); !since.IsZero() || why != nil {
				t.Errorf("lost since %v: %v", since, why)
			}
		})
		if len(turns) != 2 || turns[0] != "cut" || turns[1] != "<nil>" {
			t.Errorf("turns %q", turns)
		}
	})
}

// outage is one of ten minutes and a half; the way is lost from its beginning on.
func outage(t *testing.T, w *way, l *link) {
	t.Helper()
	w.set(errors.New("cut"))
	l.doubt() // a request has failed
	elapse(30 * time.Second)
	since, why := l.Lost()
	if why == nil || time.Since(since) > 30*time.Second {
		t.Errorf("lost since %v: %v", since, why)
	}
	elapse(10 * time.Minute)
	if again, _ := l.Lost(); !again.Equal(since) {
		t.Errorf("lost since %v, then since %v", since, again)
	}
}

// Everything fails for another reason: that is no storm of tries.
func TestDoubtIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &way{}
		walk(t, linkConfig{}, w, func(l *link) {
			for range 600 {
				l.doubt()
				elapse(time.Second)
			}
			if n := w.count(); n > 61 {
				t.Errorf("%d tries in ten minutes of doubt", n)
			}
		})
	})
}

// Only a check that the owner wants, without a VPN, makes the device unhealthy.
func TestWhoseWayCounts(t *testing.T) {
	vpn := filepath.Join(t.TempDir(), "active")
	if err := os.WriteFile(vpn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		c    linkConfig
		cut  error
		lost bool
	}{
		"enabled, connected": {linkConfig{}, nil, false},
		"enabled, cut":       {linkConfig{}, errors.New("cut"), true},
		"disabled, cut":      {linkConfig{Enabled: func() bool { return false }}, errors.New("cut"), false},
		"VPN up, cut":        {linkConfig{VPN: vpn}, errors.New("cut"), false},
		"VPN down, cut":      {linkConfig{VPN: vpn + "-not"}, errors.New("cut"), true},
		"no cloud, cut":      {linkConfig{Endpoint: func() string { return "" }}, errors.New("cut"), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			walk(t, c.c, &way{cut: c.cut}, func(l *link) {
				elapse(5 * time.Minute)
				if _, why := l.Lost(); (why != nil) != c.lost {
					t.Errorf("%s: %v", name, why)
				}
			})
		})
	}
}

// Another address: old connections are closed, the way is tried, the cloud asked.
// Where the kernel does not tell, somebody looks.
func TestOtherAddresses(t *testing.T) {
	for _, blind := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { otherAddresses(t, blind) })
	}
}

func otherAddresses(t *testing.T, blind bool) {
	var mu sync.Mutex
	address, moved := "10.0.0.1", 0
	tell := make(chan struct{})
	watch := func(ctx context.Context, changed func()) error {
		for !blind {
			select {
			case <-tell:
				changed()
			case <-ctx.Done():
				return nil
			}
		}
		return errors.New("no netlink")
	}
	w := &way{}
	walk(t, linkConfig{
		Addresses: func() string { mu.Lock(); defer mu.Unlock(); return address },
		Moved:     func() { mu.Lock(); defer mu.Unlock(); moved++ },
		Watch:     watch,
	}, w, func(*link) {
		elapse(time.Hour)
		for _, a := range []string{"10.0.0.1", "192.168.7.7"} {
			mu.Lock()
			address = a
			mu.Unlock()
			if !blind {
				tell <- struct{}{}
			}
			elapse(2 * addressLook)
		}
		mu.Lock()
		defer mu.Unlock()
		if moved != 1 || w.closed != 1 {
			t.Errorf("blind %v: moved %d times, closed %d times", blind, moved, w.closed)
		}
	})
}

func TestADiskThatTakesNothing(t *testing.T) {
	d := &disk{dir: t.TempDir()}
	expect := func(what string, want bool) {
		t.Helper()
		if since, err := d.failing(); (err != nil) != want || want && time.Since(since) > time.Minute {
			t.Errorf("%s: %v since %v", what, err, since)
		}
	}
	expect("at first", false)
	if err := d.write(func() error { return syscall.EIO }); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	expect("after a failed write", true)
	_ = d.write(func() error { return nil })
	expect("after a good one", false)
	d.note(fmt.Errorf("put: %w", syscall.ENOSPC))
	expect("there is room again", false)
	d.dir = filepath.Join(d.dir, "gone")
	expect("the folder is gone", true)
}

// systemd is told that the supervisor is up and that its loop is alive, as long as it is.
func TestSystemdHearsOfAStalledLoop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "60000") // a sign of life each 20 ms
	s := testSupervisor(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.watchdog(ctx) }()
	heard := func() string {
		t.Helper()
		b := make([]byte, 1000)
		if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := heard(); got != "READY=1" {
		t.Errorf("first %q", got)
	}
	for range 3 {
		if got := heard(); got != "STATUS=starting\nWATCHDOG=1" {
			t.Errorf("then %q", got)
		}
	}
	cancel()
	<-done
	last := ""
	for !strings.HasPrefix(last, "STOPPING=1\n") {
		last = heard()
	}
	t.Setenv("WATCHDOG_PID", "1")
	if watchdogPeriod() != 0 {
		t.Error("it is somebody else's watchdog")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	s.watchdog(t.Context()) // nobody asks, it ends at once
}

// testSupervisor is a supervisor that does not run, without a cloud or an engine.
func testSupervisor(t *testing.T) *Supervisor {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, []byte(`{"apiEndpoint":"https://cloud.test","appUpdatePollInterval":600000}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := open(Config{ConfigFile: config, Engine: "unix://" + filepath.Join(dir, "none"), DataDir: dir, HostRoot: dir, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	s.loadConfig()
	return s
}

// Each fault shows with the time since when; a supervisor that works has none.
func TestWhatIsWrongAndSinceWhen(t *testing.T) {
	s := testSupervisor(t)
	expect := func(what string, checks ...string) {
		t.Helper()
		var got []string
		for _, a := range s.ailments() {
			got = append(got, a.Check)
			if a.Text == "" || a.Since.IsZero() {
				t.Errorf("%s: %+v", what, a)
			}
		}
		if strings.Join(got, " ") != strings.Join(checks, " ") {
			t.Errorf("%s: %q, want %q", what, got, checks)
		}
	}
	expect("at the start")
	s.started = time.Now().Add(-time.Hour)
	expect("an hour without the cloud", "cloud")
	s.setTrouble(errors.New("dns: no such host"))
	if text := s.ailments()[0].Text; !strings.Contains(text, "no such host") {
		t.Errorf("text %q", text)
	}
	s.started = time.Now()
	s.link.note(errors.New("refused"))
	s.disk.note(syscall.EIO)
	expect("several", "connection", "store")
	if ok, reasons := s.health(); ok || len(reasons) != 2 || !strings.HasPrefix(reasons[0], "connection: the cloud's address is not reached: refused (since ") {
		t.Errorf("health %v %q", ok, reasons)
	}
}
