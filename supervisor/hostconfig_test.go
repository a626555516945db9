package supervisor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/config"
	"deckhand/localapi"
	"deckhand/locks"
	"deckhand/state"
)

// hosted is a supervisor with a boot partition.
func hosted(t *testing.T) (e edge, m *modelled, boot string) {
	t.Helper()
	s, m := supervised(t)
	t.Cleanup(func() { m.close(t) })
	boot = filepath.Join(t.TempDir(), "boot")
	if err := os.Mkdir(boot, 0o755); err != nil {
		t.Fatal(err)
	}
	s.cfg.ConfigFile, s.cfg.HostRoot = filepath.Join(boot, "config.json"), t.TempDir()
	if err := os.WriteFile(s.cfg.ConfigFile, []byte(`{"uuid":"0123456789abcdef0123456789abcdef","mine":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.file, err = config.Load(s.cfg.ConfigFile); err != nil {
		t.Fatal(err)
	}
	return edge{s: s}, m, boot
}

// tree is everything on the boot partition.
func tree(t *testing.T, boot string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range []string{"config.json", "system-proxy/redsocks.conf", "system-proxy/no_proxy"} {
		if b, err := os.ReadFile(filepath.Join(boot, name)); err == nil {
			out[filepath.Base(name)] = string(b)
		}
	}
	return out
}

func full() *localapi.ProxyChange {
	return &localapi.ProxyChange{Options: []localapi.ProxyOption{{Key: "type", Value: "socks5"}, {Key: "ip", Value: "10.0.0.1"}, {Key: "port", Value: "1080"}, {Key: "password", Value: "a=b=c"}}}
}

func TestTheHostsProxy(t *testing.T) {
	e, _, boot := hosted(t)
	text := func(s string) *string { return &s }
	list := func(s ...string) *[]string { return &s }
	set := func(c *localapi.ProxyChange) map[string]string {
		t.Helper()
		if err := e.SetHostConfig(t.Context(), localapi.HostChange{Proxy: c}, false); err != nil {
			t.Fatal(err)
		}
		return tree(t, boot)
	}
	first := set(full())
	if !strings.Contains(first["redsocks.conf"], "\tpassword = \"a=b=c\";\n") || strings.Contains(first["redsocks.conf"], "dnsu2t") {
		t.Errorf("%s", first["redsocks.conf"])
	}

	// Addresses that bypass it are a file of their own, also when they are the
	// same as before, or none.
	for _, addresses := range [][]string{{"10.0.0.0/8", "example.com"}, {"10.0.0.0/8", "example.com"}, {}, {}} {
		got := set(&localapi.ProxyChange{NoProxy: list(addresses...)})
		if got["redsocks.conf"] != first["redsocks.conf"] || got["no_proxy"] != strings.Join(addresses, "\n") {
			t.Errorf("%v: %v", addresses, got)
		}
	}

	// Another option leaves the rest as it is; what redsocks does not know is not
	// written.
	got := set(&localapi.ProxyChange{Options: []localapi.ProxyOption{{Key: "port", Value: "1081"}, {Key: "nonsense", Value: "x"}, {Key: "local_port", Value: "1"}}, DNS: text("1.1.1.1:53")})
	want := strings.Replace(first["redsocks.conf"], "1080", "1081", 1) + "\ndnsu2t {\n\tremote_ip = 1.1.1.1;\n\tremote_port = 53;\n\tlocal_ip = 127.0.0.1;\n\tlocal_port = 53;\n}\n"
	if diff := cmp.Diff(want, got["redsocks.conf"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	shown, err := e.HostConfig()
	if err != nil || shown.Proxy == nil || shown.Proxy.DNS != "1.1.1.1:53" || shown.Proxy.Options[3].Value != "a=b=c" {
		t.Errorf("%+v, %v", shown.Proxy, err)
	}
	if got := set(&localapi.ProxyChange{DNS: text("")}); strings.Contains(got["redsocks.conf"], "dnsu2t") {
		t.Errorf("%v", got)
	}
	if got := set(&localapi.ProxyChange{Remove: true}); got["redsocks.conf"] != "" {
		t.Errorf("%v", got)
	}
	if shown, err := e.HostConfig(); err != nil || shown.Proxy != nil {
		t.Errorf("%+v, %v", shown, err)
	}
}

func TestTheHostsName(t *testing.T) {
	e, _, boot := hosted(t)
	for _, c := range []struct{ name, want string }{{"pi", "pi"}, {"", "0123456"}} {
		if err := e.SetHostConfig(t.Context(), localapi.HostChange{Hostname: &c.name}, false); err != nil {
			t.Fatal(err)
		}
		var now map[string]any
		if err := json.Unmarshal([]byte(tree(t, boot)["config.json"]), &now); err != nil || now["hostname"] != c.want || now["mine"] != 1.0 {
			t.Errorf("%v, %v", now, err)
		}
	}
}

// What cannot be is refused, and nothing is changed, not even a part that could be.
func TestBadHostConfig(t *testing.T) {
	e, _, boot := hosted(t)
	text := func(s string) *string { return &s }
	option := func(key, value string) *localapi.ProxyChange {
		c := full()
		c.Options = append(c.Options, localapi.ProxyOption{Key: key, Value: value})
		return c
	}
	before := tree(t, boot)
	for _, c := range []localapi.HostChange{
		{Proxy: &localapi.ProxyChange{Options: []localapi.ProxyOption{{Key: "port", Value: "1"}}}},
		{Proxy: &localapi.ProxyChange{Options: []localapi.ProxyOption{{Key: "nonsense", Value: "1"}}}},
		{Proxy: &localapi.ProxyChange{DNS: text("1.1.1.1:53")}},
		{Proxy: option("password", "SECRET\n\tip = 6.6.6.6;")},
		{Proxy: option("ip", "10.0.0.1; } base {")},
		{Proxy: option("login", strings.Repeat("x", 256))},
		{Proxy: &localapi.ProxyChange{Options: full().Options, DNS: text("nowhere")}},
		{Proxy: &localapi.ProxyChange{Options: full().Options, NoProxy: &[]string{"10.0.0.1", "a\nb"}}},
		{Proxy: full(), Hostname: text("two words")},
		{Proxy: full(), Hostname: text(strings.Repeat("x", 256))},
	} {
		err := e.SetHostConfig(t.Context(), c, false)
		if state.ClassOf(err) != state.ClassInvalid || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%+v: %v", c, err)
		}
		if diff := cmp.Diff(before, tree(t, boot)); diff != "" {
			t.Fatalf("%+v changed something:\n%s", c, diff)
		}
	}
	// Unusual is not wrong.
	if err := e.SetHostConfig(t.Context(), localapi.HostChange{Proxy: option("type", "something-new")}, false); err != nil {
		t.Error(err)
	}
}

// A lock of any app holds a change up, whatever it is about; force breaks it, and
// no lock of ours stays behind.
func TestHostConfigWaitsForLocks(t *testing.T) {
	e, m, boot := hosted(t)
	name := "pi"
	m.users[1] = []locks.UpdateLock{{AppID: 1, Service: "web"}}
	before := tree(t, boot)
	for _, c := range []localapi.HostChange{{Hostname: &name}, {Proxy: full()}, {Proxy: &localapi.ProxyChange{Remove: true}}} {
		err := e.SetHostConfig(t.Context(), c, false)
		if state.ClassOf(err) != state.ClassLocked || !strings.Contains(err.Error(), "Lockfile exists for { appId: 1, service: web }") {
			t.Errorf("%v", err)
		}
	}
	if diff := cmp.Diff(before, tree(t, boot)); diff != "" {
		t.Errorf("it was changed all the same:\n%s", diff)
	}
	if err := e.SetHostConfig(t.Context(), localapi.HostChange{Hostname: &name}, true); err != nil {
		t.Error(err)
	}
	if w := m.look(t); len(w.Apps["aaaa"].Locked) != 0 {
		t.Errorf("locks stay: %v", w.Apps["aaaa"].Locked)
	}
}
