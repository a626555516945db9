package hostapp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"syscall"
)

var underVoltage = regexp.MustCompile(`(?i)under.*voltage`)

// Voltage knows whether the power supply was ever too weak since the device was
// started, from the kernel's log and, on Raspberry Pis, its sensor. It is true for
// good then, until the device starts anew.
type Voltage struct {
	root  string
	low   atomic.Bool
	alarm string // file of the sensor; empty: there is none
}

// NewVoltage looks for a sensor below the host's root folder, "/" if it is empty.
func NewVoltage(root string) *Voltage {
	if root == "" {
		root = "/"
	}
	v := &Voltage{root: root}
	monitors, _ := filepath.Glob(filepath.Join(root, "sys/class/hwmon/hwmon*"))
	for _, d := range monitors {
		if oneLine(string(small(filepath.Join(d, "name")))) == "rpi_volt" {
			v.alarm = filepath.Join(d, "in0_lcrit_alarm")
		}
	}
	return v
}

// Low reports whether the voltage was too low.
func (v *Voltage) Low() bool {
	if v.alarm != "" && oneLine(string(small(v.alarm))) == "1" {
		v.low.Store(true)
	}
	return v.low.Load()
}

// Watch follows the kernel's log until ctx ends, and calls changed when it first
// tells of a low voltage. It costs nothing while the kernel is silent. Without
// access to the log it returns at once.
func (v *Voltage) Watch(ctx context.Context, changed func()) {
	// Not blocking, so that the runtime waits for it and a close ends the wait.
	f, err := os.OpenFile(filepath.Join(v.root, "dev/kmsg"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer func() {
		if stop() {
			_ = f.Close()
		}
	}()
	buffer := make([]byte, 16<<10) // a record is at most half of that
	for {
		n, err := f.Read(buffer)
		if n > 0 && underVoltage.Match(buffer[:n]) {
			v.low.Store(true)
			changed()
			return
		}
		if errors.Is(err, syscall.EPIPE) {
			continue // the log was faster than we; it goes on with the oldest record
		}
		if err != nil || n == 0 {
			return
		}
	}
}
