// Package hostapp knows the operating system under the supervisor: what the host
// tells about itself, and when it was and should be restarted. Releases of the
// host OS and device configuration come here too.
package hostapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// maxSize is the most that is read of any of these small files, in bytes.
const maxSize = 1 << 20

// Config says where the host's files are.
type Config struct {
	Root       string // the host's root folder; empty: "/"
	ConfigFile string // config.json; device-type.json lies beside it
	DeviceType string // used when there is no device-type.json
}

// Facts are what the host tells about itself. Empty means not known.
type Facts struct {
	OSName           string `json:"osName"`    // PRETTY_NAME, for example "balenaOS 6.0.13"
	OSVersion        string `json:"osVersion"` // VERSION
	OSID             string `json:"osId"`      // ID
	VariantID        string `json:"variantId,omitempty"`
	MetaBalena       string `json:"metaBalena,omitempty"` // META_BALENA_VERSION
	BoardRev         string `json:"boardRev,omitempty"`
	DeviceType       string `json:"deviceType"` // slug; "unknown" when nothing tells
	Arch             string `json:"arch"`       // balena's name, for example aarch64
	BootID           string `json:"bootId,omitempty"`
	Kernel           string `json:"kernel,omitempty"`        // lower case, for example linux
	KernelVersion    string `json:"kernelVersion,omitempty"` // x.y.z
	L4T              string `json:"l4t,omitempty"`           // version of Linux for Tegra, x.y.z
	UnderDevelopment bool   `json:"-"`                       // developmentMode of config.json, set by the caller
}

// Variant is dev or prod, as reported to the cloud.
func (f Facts) Variant() string {
	switch {
	case f.VariantID != "":
		return f.VariantID
	case f.UnderDevelopment:
		return "dev"
	}
	return "prod"
}

// Read collects the facts. It never fails: what is missing or unreadable stays
// empty, and err lists what was there but could not be understood.
func Read(c Config) (Facts, error) {
	if c.Root == "" {
		c.Root = "/"
	}
	var problems []error
	f := Facts{DeviceType: c.DeviceType, Arch: ArchName(runtime.GOARCH, goarm())}

	release, err := readOSRelease(c.Root)
	problems = append(problems, err)
	f.OSName, f.OSVersion, f.OSID = release["PRETTY_NAME"], release["VERSION"], release["ID"]
	f.VariantID, f.MetaBalena = release["VARIANT_ID"], release["META_BALENA_VERSION"]
	f.BoardRev = release["BALENA_BOARD_REV"]
	if f.BoardRev == "" {
		f.BoardRev = release["RESIN_BOARD_REV"]
	}

	slug, arch, err := readDeviceType(filepath.Join(filepath.Dir(c.ConfigFile), "device-type.json"))
	problems = append(problems, err)
	if slug != "" {
		f.DeviceType = slug
	}
	if arch != "" {
		f.Arch = arch
	}
	if f.DeviceType == "" {
		f.DeviceType = "unknown"
	}

	// These are the kernel's, so they are the same inside and outside of Root.
	for name, keep := range map[string]func(text string){
		bootIDFile:  func(text string) { f.BootID = text },
		"ostype":    func(text string) { f.Kernel = strings.ToLower(text) },
		"osrelease": func(text string) { f.KernelVersion, f.L4T = ParseKernel(text) },
	} {
		b, err := readSmall(filepath.Join(c.Root, "proc/sys/kernel", name))
		problems = append(problems, err)
		keep(oneLine(string(b)))
	}
	return f, errors.Join(problems...)
}

// bootIDFile is below /proc/sys/kernel.
const bootIDFile = "random/boot_id"

var (
	kernelVersion = regexp.MustCompile(`^\d+\.\d+(\.\d+)?`)
	l4tVersion    = regexp.MustCompile(`-l4t-r(\d+\.\d+(\.\d+)?)`)
)

// ParseKernel reads a kernel's release, as uname -r prints it, for example
// 4.9.140-l4t-r32.2: the kernel's version and that of Linux for Tegra. Two
// numbers get a third, zero. What the release does not tell is empty.
func ParseKernel(release string) (version, l4t string) {
	version = threeNumbers(kernelVersion.FindString(release))
	if m := l4tVersion.FindStringSubmatch(release); m != nil {
		l4t = threeNumbers(m[1])
	}
	return version, l4t
}

func threeNumbers(version string) string {
	if strings.Count(version, ".") == 1 {
		return version + ".0"
	}
	return version
}

// readOSRelease reads the first os-release file there is.
func readOSRelease(root string) (map[string]string, error) {
	for _, p := range []string{"etc/os-release", "usr/lib/os-release"} {
		b, err := readSmall(filepath.Join(root, p))
		if err != nil || b != nil {
			return ParseOSRelease(string(b)), err
		}
	}
	return nil, nil
}

// ParseOSRelease reads KEY=value lines; values may stand in single or double
// quotes with the shell's escapes. Lines of any other form are skipped.
func ParseOSRelease(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || key == "" || strings.HasPrefix(key, "#") || strings.ContainsAny(key, " \t") {
			continue
		}
		out[key] = oneLine(unquote(strings.TrimSpace(value)))
	}
	return out
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return s[1 : len(s)-1]
	}
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// readDeviceType reads slug and arch of device-type.json.
func readDeviceType(path string) (slug, arch string, err error) {
	b, err := readSmall(path)
	if err != nil || b == nil {
		return "", "", err
	}
	var doc struct {
		Slug *string `json:"slug"`
		Arch *string `json:"arch"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return "", "", fmt.Errorf("read %s: %w", path, err)
	}
	if doc.Slug != nil {
		slug = oneLine(*doc.Slug)
	}
	if doc.Arch != nil {
		arch = oneLine(*doc.Arch)
	}
	return slug, arch, nil
}

// ArchName is balena's name for an architecture of Go; goarm is the version of
// 32-bit ARM, 0 when not known.
func ArchName(goarch string, goarm int) string {
	switch goarch {
	case "386":
		return "i386"
	case "arm64":
		return "aarch64"
	case "arm":
		if goarm == 5 || goarm == 6 {
			return "rpi"
		}
		return "armv7hf"
	}
	return goarch
}

// goarm is the version of ARM that this program was built for.
func goarm() int {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return 0
	}
	for _, s := range info.Settings {
		if s.Key == "GOARM" {
			version, _, _ := strings.Cut(s.Value, ",") // "6,softfloat"
			n, _ := strconv.Atoi(version)
			return n
		}
	}
	return 0
}

// readSmall reads a file; nil without an error when there is none.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("read %s: it is larger than %d bytes", path, maxSize)
	}
	return b, nil
}

// oneLine makes a text fit for labels, headers and reports.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > 255 {
		s = strings.ToValidUTF8(s[:255], "")
	}
	return strings.TrimSpace(s)
}
