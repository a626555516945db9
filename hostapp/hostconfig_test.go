package hostapp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// whole is a file as it is written.
const whole = `base {
	log_debug = off;
	log_info = on;
	log = stderr;
	daemon = off;
	redirector = iptables;
}

redsocks {
	type = socks5;
	ip = proxy.example.com;
	port = 1080;
	login = "me";
	password = "a=b\c;d}e "f";
	local_ip = 127.0.0.1;
	local_port = 12345;
}

dnsu2t {
	remote_ip = 2001:db8::1;
	remote_port = 5353;
	local_ip = 127.0.0.1;
	local_port = 53;
}
`

func proxy() Redsocks {
	return Redsocks{
		Options: []Option{{"type", "socks5"}, {"ip", "proxy.example.com"}, {"port", "1080"}, {"login", "me"}, {"password", `a=b\c;d}e "f`}},
		DNS:     "2001:db8::1:5353",
	}
}

func TestRedsocksIsWrittenAndRead(t *testing.T) {
	if diff := cmp.Diff(whole, proxy().String()); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	r, bad := ParseRedsocks(whole)
	if diff := cmp.Diff(proxy(), r); diff != "" || len(bad) != 0 {
		t.Errorf("read (-want +got):\n%s%v", diff, bad)
	}
}

func TestRedsocksByHand(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Redsocks
		bad  []string
	}{
		"nothing":         {"", Redsocks{}, nil},
		"no block":        {"base {\n}\n", Redsocks{}, nil},
		"not a file":      {"\x00\xff{{{}}}", Redsocks{}, nil},
		"no end":          {"redsocks {\n type = socks4", Redsocks{Options: []Option{{"type", "socks4"}}}, nil},
		"no semicolons":   {"redsocks{\r\ntype = socks4\r\nip=1.2.3.4\r\n}\r\n", Redsocks{Options: []Option{{"type", "socks4"}, {"ip", "1.2.3.4"}}}, nil},
		"noProxy in it":   {"redsocks {\n\ttype = socks5;\n\tnoProxy = 1.2.3.4;\n}\n", Redsocks{Options: []Option{{"type", "socks5"}}}, []string{"redsocks: noProxy"}},
		"a line of junk":  {"redsocks {\n\tjunk\n\tip = 1.2.3.4;\n}\n", Redsocks{Options: []Option{{"ip", "1.2.3.4"}}}, []string{"redsocks: line 2"}},
		"ends in a line":  {"redsocks {\n\tip = 1.2.3.4; }\nport = 1;\n}\n", Redsocks{Options: []Option{{"ip", "1.2.3.4"}}}, nil},
		"quoted and ends": {"redsocks {\n\tlogin = \"a}b\"; }\nport = 1;\n}\n", Redsocks{Options: []Option{{"login", "a}b"}}}, nil},
		"not quoted":      {"redsocks {\n\tlogin = me;\n\tpassword = x=y=z;\n}\n", Redsocks{Options: []Option{{"login", "me"}, {"password", "x=y=z"}}}, nil},
		"comments":        {"# redsocks {\n// x\nredsocks {\n\t// no\n\t# no\n\tport = 1;\n}", Redsocks{Options: []Option{{"port", "1"}}}, nil},
		"more options":    {"redsocks {\n\ttimeout = 10;\n\tdisclose_src = false;\n}", Redsocks{Options: []Option{{"timeout", "10"}, {"disclose_src", "false"}}}, nil},
		"dns, usual":      {"dnsu2t {\n\tlocal_port = 53;\n}", Redsocks{DNS: DefaultDNS}, nil},
		"dns, bad":        {"dnsu2t {\n\tremote_port = x;\n}", Redsocks{}, []string{"dnsu2t: remote_ip"}},
		"twice":           {"redsocks {\n\tport = 1;\n\tport = 2;\n}", Redsocks{Options: []Option{{"port", "2"}}}, nil},
	} {
		r, bad := ParseRedsocks(c.text)
		if diff := cmp.Diff(c.want, r); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(c.bad, bad); diff != "" {
			t.Errorf("%s, bad (-want +got):\n%s", name, diff)
		}
	}
}

// Whatever is read, written and read again is the same, and what redsocks does not
// know is never written.
func FuzzRedsocks(f *testing.F) {
	f.Add(whole)
	f.Add("redsocks {\n login = \"\"\";\n password = \"a\" b;\n}\n dnsu2t{\nremote_ip=[::1]\n}")
	f.Add("redsocks {\n login = \"; }\n port = ;;\n}")
	f.Fuzz(func(t *testing.T, text string) {
		first, _ := ParseRedsocks(text)
		written := first.String()
		again, bad := ParseRedsocks(written)
		if diff := cmp.Diff(first, again); diff != "" || len(bad) != 0 {
			t.Fatalf("(-first +again):\n%s%v\nof %q", diff, bad, written)
		}
		for line := range strings.Lines(written) {
			key, _, ok := strings.Cut(strings.TrimSpace(line), " = ")
			if ok && !KnowsProxyOption(key) && !strings.Contains(whole, "\t"+key+" = ") {
				t.Fatalf("the option %q was written: %q", key, written)
			}
		}
	})
}

// Every password that is accepted comes back.
func FuzzPassword(f *testing.F) {
	for _, p := range []string{"", "x", `"`, `""`, `a"; }`, "a=b", " a ", "}", ";", `\`, "ä"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, password string) {
		if CheckProxyOption("password", password) != nil {
			t.Skip()
		}
		r, bad := ParseRedsocks(Redsocks{}.With("password", password).String())
		if got := r.Get("password"); got != password || len(bad) != 0 {
			t.Fatalf("%q came back as %q, %v", password, got, bad)
		}
	})
}

func TestHostFiles(t *testing.T) {
	dir := t.TempDir()
	h := HostFiles{Root: dir, Boot: filepath.Join(dir, "boot")}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, _, there, err := h.Proxy(); there || err != nil {
		t.Errorf("%t, %v", there, err)
	}
	if list, err := h.NoProxy(); list != nil || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	check(h.SetProxy(nil))
	check(h.SetNoProxy(nil))
	if _, err := os.Stat(h.Boot); !os.IsNotExist(err) {
		t.Error("folders were made for nothing")
	}
	want := proxy()
	check(h.SetProxy(&want))
	check(h.SetNoProxy([]string{"10.0.0.0/8", "example.com"}))
	b, err := os.ReadFile(filepath.Join(h.Boot, "system-proxy/no_proxy"))
	if string(b) != "10.0.0.0/8\nexample.com" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	got, _, there, err := h.Proxy()
	if diff := cmp.Diff(want, got); diff != "" || !there || err != nil {
		t.Errorf("%t, %v\n%s", there, err, diff)
	}
	before, err := os.Stat(h.path(redsocksFile))
	check(err)
	check(h.SetProxy(&got))
	if after, err := os.Stat(h.path(redsocksFile)); err != nil || !os.SameFile(before, after) {
		t.Error("the same content was written again")
	}
	check(h.SetProxy(nil))
	check(h.SetNoProxy(nil))
	if left, err := os.ReadDir(filepath.Join(h.Boot, "system-proxy")); len(left) != 0 || err != nil {
		t.Errorf("%v, %v", left, err)
	}

	check(os.MkdirAll(filepath.Join(dir, "etc"), 0o755))
	check(os.WriteFile(filepath.Join(dir, "etc/hostname"), []byte(" pi \n"), 0o600))
	if name, err := h.Hostname(); name != "pi" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	check(os.MkdirAll(h.path(redsocksFile), 0o755))
	if _, _, _, err := h.Proxy(); err == nil {
		t.Error("a folder was read as a file")
	}
	if err := h.SetProxy(&want); err == nil {
		t.Error("a folder was replaced")
	}
	if left, _ := filepath.Glob(filepath.Join(h.Boot, "system-proxy/*new")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
