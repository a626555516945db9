package hostapp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Metrics is how busy, full and warm the device is. A nil field is not known.
type Metrics struct {
	CPUUsage     *int   `json:"cpuUsage,omitempty"`     // per cent of all processors since the last measurement
	MemoryUsage  *int   `json:"memoryUsage,omitempty"`  // MiB, without what the kernel can take back
	MemoryTotal  *int   `json:"memoryTotal,omitempty"`  // MiB
	StorageUsage *int   `json:"storageUsage,omitempty"` // MiB used on the data device
	StorageTotal *int   `json:"storageTotal,omitempty"` // MiB of the data partition
	BlockDevice  string `json:"blockDevice"`            // of the data partition; empty: none was found
	CPUTemp      *int   `json:"cpuTemp,omitempty"`      // °C
	CPUID        string `json:"cpuId,omitempty"`        // serial number, lower case
}

// MeterConfig says where the host is.
type MeterConfig struct {
	Root string // the host's root folder; empty: "/"
	// Statfs gives size and free space of a file system in bytes; nil: the
	// kernel's answer. Paths are inside of Root.
	Statfs func(path string) (total, free int64, err error)
}

// Meter measures the device. It may be used by several goroutines.
type Meter struct {
	c MeterConfig

	mu   sync.Mutex
	load cpuTimes // at the last measurement
	id   *string  // the serial number, once it was read
}

// NewMeter makes a meter; it reads nothing yet.
func NewMeter(c MeterConfig) *Meter {
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Statfs == nil {
		c.Statfs = statfs
	}
	return &Meter{c: c}
}

// Read measures now. It never fails: what cannot be read is left out.
func (m *Meter) Read() Metrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == nil {
		m.id = new(m.serial())
	}
	out := Metrics{CPUUsage: m.cpu(), CPUTemp: m.temperature(), CPUID: *m.id}
	out.MemoryUsage, out.MemoryTotal = m.memory()
	m.storage(&out)
	return out
}

// file is the content of a small file of the host; empty if it cannot be read.
func (m *Meter) file(path string) []byte {
	b, err := readSmall(filepath.Join(m.c.Root, path))
	if err != nil {
		return nil
	}
	return b
}

// cpuTimes are ticks since the device was started, over all processors.
type cpuTimes struct{ busy, all uint64 }

// cpu is the load since the last measurement; the first time, since the start
// of the device.
func (m *Meter) cpu() *int {
	now, ok := parseStat(m.file("proc/stat"))
	if !ok {
		return nil
	}
	last := m.load
	m.load = now
	if now.all <= last.all || now.busy < last.busy {
		return nil // no time has passed
	}
	return new(int(math.Round(100 * float64(now.busy-last.busy) / float64(now.all-last.all))))
}

// parseStat reads the first line of /proc/stat.
func parseStat(b []byte) (t cpuTimes, ok bool) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	fields := strings.Fields(string(line))
	const idle, iowait, guest = 3, 4, 8
	if len(fields) < 2+idle || fields[0] != "cpu" {
		return t, false
	}
	for i, f := range fields[1:] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return t, false
		}
		if i >= guest {
			break // it is in user time already
		}
		t.all += n
		if i != idle && i != iowait {
			t.busy += n
		}
	}
	return t, true
}

// memory is what programs use, as htop counts it: without caches, buffers and
// the slabs that the kernel gives back when asked.
func (m *Meter) memory() (usage, total *int) {
	v := map[string]int64{} // KiB
	for line := range strings.Lines(string(m.file("proc/meminfo"))) {
		name, rest, ok := strings.Cut(line, ":")
		if n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64); ok && err == nil {
			v[name] = n
		}
	}
	if v["MemTotal"] <= 0 {
		return nil, nil
	}
	used := v["MemTotal"] - v["MemFree"] - v["Buffers"] - v["Cached"] - v["SReclaimable"]
	return new(int(max(used, 0) >> 10)), new(int(v["MemTotal"] >> 10))
}

// mount is one mounted file system.
type mount struct{ source, path string }

// mounts lists file systems on block devices in the order of mounting, with
// paths as the host sees them.
func (m *Meter) mounts() []mount {
	// The first process sees the host's mounts, also when we are in a container.
	if b := m.file("proc/1/mountinfo"); len(b) > 0 {
		return parseMounts(b, "/")
	}
	return parseMounts(m.file("proc/self/mountinfo"), m.c.Root)
}

// parseMounts reads mountinfo; paths outside of root are left out.
func parseMounts(b []byte, root string) []mount {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var out []mount
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		const path, source = 4, 1
		if !ok || len(left) <= path || len(right) <= source || !strings.HasPrefix(right[source], "/dev/") {
			continue
		}
		p, inside := strings.CutPrefix(unescape.Replace(left[path]), strings.TrimSuffix(root, "/"))
		if !inside || p != "" && p[0] != '/' {
			continue
		}
		out = append(out, mount{unescape.Replace(right[source]), filepath.Clean("/" + p)})
	}
	return out
}

// storage measures the data partition. Its device may be mounted many times, and
// its disk may have more parts under the same name; each counts once.
func (m *Meter) storage(out *Metrics) {
	all := m.mounts()
	data, ok := dataMount(all)
	if !ok {
		return
	}
	out.BlockDevice = data.source
	total, _, err := m.c.Statfs(filepath.Join(m.c.Root, data.path))
	if err != nil {
		return
	}
	var used int64
	seen := map[string]bool{}
	for _, x := range all {
		if seen[x.source] || !strings.HasPrefix(x.source, data.source) {
			continue
		}
		size, free, err := m.c.Statfs(filepath.Join(m.c.Root, x.path))
		if err != nil {
			continue // another mount of it may be readable
		}
		seen[x.source] = true
		used += size - free
	}
	out.StorageTotal, out.StorageUsage = new(int(total>>20)), new(int(used>>20))
}

// dataMount is the first mount with /data in its path, as on balenaOS, else
// what the engine's usual folder is on.
func dataMount(all []mount) (mount, bool) {
	if i := slices.IndexFunc(all, func(x mount) bool { return strings.Contains(x.path, "/data") }); i >= 0 {
		return all[i], true
	}
	const engine = "/var/lib/docker/"
	var best mount
	for _, x := range all {
		if strings.HasPrefix(engine, strings.TrimSuffix(x.path, "/")+"/") && len(x.path) >= len(best.path) {
			best = x
		}
	}
	return best, best.path != ""
}

// temperature is that of the processor.
func (m *Meter) temperature() *int {
	zones, _ := filepath.Glob(filepath.Join(m.c.Root, "sys/class/thermal/thermal_zone*"))
	slices.SortFunc(zones, func(a, b string) int { return zoneRank(a) - zoneRank(b) })
	monitors, _ := filepath.Glob(filepath.Join(m.c.Root, "sys/class/hwmon/hwmon*"))
	var files []string
	for _, z := range zones {
		files = append(files, filepath.Join(z, "temp"))
	}
	for _, d := range monitors {
		switch oneLine(string(small(filepath.Join(d, "name")))) {
		case "coretemp", "k10temp", "cpu_thermal":
			files = append(files, filepath.Join(d, "temp1_input"))
		}
	}
	for _, f := range files {
		if n, err := strconv.Atoi(oneLine(string(small(f)))); err == nil {
			return new(int(math.Round(float64(n) / 1000)))
		}
	}
	return nil
}

// zoneRank puts zones of the processor before others, then sorts by number.
func zoneRank(dir string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "thermal_zone"))
	kind := strings.ToLower(string(small(filepath.Join(dir, "type"))))
	for _, word := range []string{"cpu", "soc", "x86_pkg"} {
		if strings.Contains(kind, word) {
			return n
		}
	}
	return n + 1000
}

// serial is the first serial number that the board tells.
func (m *Meter) serial() string {
	for _, path := range []string{
		"proc/device-tree/serial-number", "proc/device-tree/product-sn", "sys/devices/soc0/serial_number", "sys/class/dmi/id/board_serial",
	} {
		text := strings.ToLower(strings.TrimSpace(strings.ReplaceAll(string(m.file(path)), "\x00", "")))
		if text != "" {
			return text
		}
	}
	return ""
}

// small is a small file's content, without its error.
func small(path string) []byte {
	b, err := readSmall(path)
	if err != nil {
		return nil
	}
	return b
}

func statfs(path string) (total, free int64, err error) {
	var s syscall.Statfs_t
	for {
		err = syscall.Statfs(path, &s)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("measure %s: %w", path, &os.PathError{Op: "statfs", Path: path, Err: err})
	}
	unit := int64(s.Frsize) //nolint:unconvert // 32 bits wide on some processors
	if unit <= 0 {
		unit = int64(s.Bsize) //nolint:unconvert // the same
	}
	return int64(s.Blocks) * unit, int64(s.Bfree) * unit, nil
}
