package hostapp

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The lamp is dark when it has blinked, and a device without one is no mistake.
func TestBlink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "brightness")
	t.Setenv("LED_FILE", path)
	if err := NewLED("").Blink(); err != nil {
		t.Errorf("no lamp: %v", err)
	}
	write(t, path, "0")
	l := NewLED("")
	l.last = time.Hour
	for range 2 { // the second begins anew
		if err := l.Blink(); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		b, err := os.ReadFile(path)
		if err == nil && string(b[:1]) == "2" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never shone: %q %v", b, err)
		}
	}
	l.Close()
	if b, err := os.ReadFile(path); err != nil || b[0] != '0' {
		t.Errorf("%q %v", b, err)
	}
}

func TestALampElsewhere(t *testing.T) {
	t.Setenv("LED_FILE", "")
	if l := NewLED("/host"); l.path != "/host/sys/class/leds/led0/brightness" {
		t.Error(l.path)
	}
}
