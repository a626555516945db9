package hostapp

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// host lays out a host's files and reads them.
func host(t *testing.T, files map[string]string) (Facts, error) {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Read(Config{Root: root, ConfigFile: filepath.Join(root, "mnt/boot/config.json"), DeviceType: "from-config"})
}

func TestABalenaHost(t *testing.T) {
	got, err := host(t, map[string]string{
		"etc/os-release": `ID="balena-os"
NAME="balenaOS"
VERSION="6.0.13+rev1"
PRETTY_NAME="balenaOS 6.0.13+rev1"
# a comment=1
VARIANT_ID=prod
META_BALENA_VERSION='6.0.13'
RESIN_BOARD_REV="old"
BALENA_BOARD_REV="a1b2"
`,
		"mnt/boot/device-type.json":      `{"slug":"raspberrypi4-64","arch":"aarch64","name":"Pi","yocto":{}}`,
		"proc/sys/kernel/random/boot_id": "0b0c\n",
		"proc/sys/kernel/ostype":         "Linux\n",
		"proc/sys/kernel/osrelease":      "5.10.120-l4t-r35.4-g1\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Facts{
		OSName: "balenaOS 6.0.13+rev1", OSVersion: "6.0.13+rev1", OSID: "balena-os", VariantID: "prod", MetaBalena: "6.0.13",
		BoardRev: "a1b2", DeviceType: "raspberrypi4-64", Arch: "aarch64", BootID: "0b0c",
		Kernel: "linux", KernelVersion: "5.10.120", L4T: "35.4.0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAnyOtherHost(t *testing.T) {
	got, err := host(t, map[string]string{"usr/lib/os-release": "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\nRESIN_BOARD_REV=r\n"})
	if err != nil {
		t.Fatal(err)
	}
	want := Facts{OSName: "Debian GNU/Linux 13 (trixie)", OSID: "debian", BoardRev: "r", DeviceType: "from-config", Arch: ArchName(runtime.GOARCH, 0)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	nothing, err := Read(Config{Root: t.TempDir(), ConfigFile: "/nowhere/config.json"})
	if err != nil || nothing.DeviceType != "unknown" || nothing.Arch == "" {
		t.Errorf("an empty host: %+v %v", nothing, err)
	}
}

func TestVariant(t *testing.T) {
	for want, f := range map[string]Facts{
		"prod": {}, "dev": {UnderDevelopment: true}, "other": {VariantID: "other", UnderDevelopment: true},
	} {
		if got := f.Variant(); got != want {
			t.Errorf("%+v is %q, want %q", f, got, want)
		}
	}
}

func TestBadFilesAreNamedAndSkipped(t *testing.T) {
	for name, content := range map[string]string{
		"cut":    `{"slug":"a`,
		"types":  `{"slug":["a"],"arch":5}`,
		"array":  `[]`,
		"binary": "\x00\xff",
		"large":  `{"slug":"` + strings.Repeat("x", maxSize) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			f, err := host(t, map[string]string{"mnt/boot/device-type.json": content, "etc/os-release": "ID=x"})
			if err == nil || !strings.Contains(err.Error(), "device-type.json") {
				t.Errorf("error %v, want one that names the file", err)
			}
			if f.DeviceType != "from-config" || f.OSID != "x" {
				t.Errorf("facts %+v, want the rest to be read", f)
			}
		})
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc/os-release"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(Config{Root: root}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder as os-release: %v", err)
	}
}

func TestOSReleaseQuoting(t *testing.T) {
	got := ParseOSRelease("A=plain\nB=\"a \\\"b\\\" \\$c\"\nC='x \"y\" \\n'\nD=\nE=\"half\n=no key\nno equals\nF = spaced\n G=indented \r\nH=\x1b[31mred\nI=" + strings.Repeat("é", 300))
	want := map[string]string{"A": "plain", "B": `a "b" $c`, "C": `x "y" \n`, "D": "", "E": `"half`, "G": "indented", "H": "[31mred", "I": strings.Repeat("é", 127)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestArchNames(t *testing.T) {
	for _, c := range []struct {
		goarch string
		goarm  int
		want   string
	}{{"amd64", 0, "amd64"}, {"386", 0, "i386"}, {"arm64", 0, "aarch64"}, {"arm", 6, "rpi"}, {"arm", 7, "armv7hf"}, {"arm", 0, "armv7hf"}, {"riscv64", 0, "riscv64"}} {
		if got := ArchName(c.goarch, c.goarm); got != c.want {
			t.Errorf("%s v%d is %s, want %s", c.goarch, c.goarm, got, c.want)
		}
	}
}

func TestKernelReleases(t *testing.T) {
	for _, c := range []struct{ release, version, l4t string }{
		{"6.12.25-v8-16k+", "6.12.25", ""},
		{"5.15.0-rt", "5.15.0", ""},
		{"6.1-rc3", "6.1.0", ""},
		{"4.9.140-l4t-r32.2", "4.9.140", "32.2.0"},
		{"4.9.140-l4t-r32.7.4", "4.9.140", "32.7.4"},
		{"5.10.104-l4t-r35.3.1-gabc", "5.10.104", "35.3.1"},
		{"4.4.38-l4t-r28.2-rc+g1", "4.4.38", "28.2.0"},
		{"5.10.104-tegra", "5.10.104", ""},
		{"5.10.104-l4t-35.1", "5.10.104", ""},
		{"6", "", ""},
		{"custom", "", ""},
		{"", "", ""},
	} {
		if version, l4t := ParseKernel(c.release); version != c.version || l4t != c.l4t {
			t.Errorf("%q is kernel %q and L4T %q, want %q and %q", c.release, version, l4t, c.version, c.l4t)
		}
	}
}
