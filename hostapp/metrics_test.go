package hostapp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// plant writes the files of an archive below root; those with a prefix only
// when it is asked for. ROOT in them is root.
func plant(t *testing.T, a *txtar.Archive, root, prefix string) {
	t.Helper()
	for _, f := range a.Files {
		name, ok := strings.CutPrefix(f.Name, prefix)
		if !ok || !strings.Contains(name, "/") || strings.HasPrefix(name, "later/") {
			continue
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(f.Data, []byte("ROOT"), []byte(root)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func part(a *txtar.Archive, name string) string {
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

// disks answers from lines of path, size and free space.
func disks(root, lines string) func(path string) (total, free int64, err error) {
	return func(path string) (total, free int64, err error) {
		for line := range strings.Lines(lines) {
			var p string
			if _, err := fmt.Sscan(line, &p, &total, &free); err == nil && filepath.Join(root, p) == path {
				return total, free, nil
			}
		}
		return 0, 0, errors.New("no such file system")
	}
}

// Each archive is a host's files, and what is measured there.
func TestMetrics(t *testing.T) {
	files, err := filepath.Glob("testdata/metrics/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no archives", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			plant(t, a, root, "")
			m := NewMeter(MeterConfig{Root: root, Statfs: disks(root, part(a, "statfs"))})
			measure := func(want string) {
				t.Helper()
				got, err := json.MarshalIndent(m.Read(), "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(want, string(got)+"\n"); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			}
			measure(part(a, "want"))
			if want := part(a, "later/want"); want != "" {
				plant(t, a, root, "later/")
				measure(want)
			}
		})
	}
}

// This machine has a processor, memory and a disk.
func TestMetricsOfThisMachine(t *testing.T) {
	m := NewMeter(MeterConfig{}).Read()
	if m.CPUUsage == nil || *m.CPUUsage < 0 || *m.CPUUsage > 100 || m.MemoryTotal == nil || *m.MemoryTotal <= 0 || *m.MemoryUsage > *m.MemoryTotal {
		t.Errorf("metrics %+v", m)
	}
}

func TestLowVoltage(t *testing.T) {
	for name, c := range map[string]struct {
		path, content string
		low           bool
	}{
		"kernel's log":      {"dev/kmsg", "6,1,2,-;usb 1-1: new device\n4,2,3,-;hwmon hwmon1: Undervoltage detected!\n", true},
		"older kernel":      {"dev/kmsg", "4,2,3,-;Under-voltage detected! (0x00050005)\n", true},
		"nothing in it":     {"dev/kmsg", "6,1,2,-;voltage is fine, nothing under it\n", false},
		"the board's alarm": {"sys/class/hwmon/hwmon3/in0_lcrit_alarm", "1\n", true},
		"the alarm is off":  {"sys/class/hwmon/hwmon3/in0_lcrit_alarm", "0\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			plant(t, &txtar.Archive{Files: []txtar.File{
				{Name: c.path, Data: []byte(c.content)}, {Name: "sys/class/hwmon/hwmon3/name", Data: []byte("rpi_volt\n")},
			}}, root, "")
			v := NewVoltage(root)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			v.Watch(ctx, func() {})
			if v.Low() != c.low {
				t.Errorf("low %v", v.Low())
			}
		})
	}
}
