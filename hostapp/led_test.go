package hostapp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lamp makes a lamp and watches it, in the test's own time.
func lamp(t *testing.T, path string) (l *LED, watch func(time.Duration) string) {
	t.Helper()
	write(t, path, "0")
	l = NewLED("")
	l.path = path
	return l, func(d time.Duration) string {
		t.Helper()
		var b strings.Builder
		for range d / (100 * time.Millisecond) { // between two changes
			<-time.After(50 * time.Millisecond)
			b.WriteString(map[bool]string{true: "#", false: "."}[shines(t, path)])
			<-time.After(50 * time.Millisecond)
		}
		return b.String()
	}
}

func shines(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		t.Fatalf("%q %v", b, err)
	}
	return b[0] != '0'
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s, want\n%s", what, got, want)
	}
}

// Whoever looks for the device sees it blink for 15 seconds from the last time they
// asked.
func TestBlink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "brightness")
	synctest.Test(t, func(t *testing.T) {
		l, watch := lamp(t, path)
		must(t, l.Blink())
		want(t, "it blinks", watch(2*time.Second), strings.Repeat("##..", 5))
		must(t, l.Blink())
		want(t, "still, as asked again", watch(14*time.Second+800*time.Millisecond), strings.Repeat("##..", 37))
		<-time.After(time.Second)
		want(t, "dark", watch(2*time.Second), strings.Repeat(".", 20))
		l.Close()
	})
}

// While the cloud is not reached it blinks four times and pauses; who looks for the
// device sees the other pattern.
func TestTheCloudIsLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "brightness")
	lost := strings.Repeat("##..", 3) + "##" + strings.Repeat(".", 10)
	synctest.Test(t, func(t *testing.T) {
		l, watch := lamp(t, path)
		must(t, l.Lost(true))
		want(t, "lost", watch(2*time.Duration(len(lost))*100*time.Millisecond), strings.Repeat(lost, 2))
		<-time.After(500 * time.Millisecond)
		must(t, l.Blink())
		want(t, "somebody looks for it", watch(2*time.Second), strings.Repeat("##..", 5))
		<-time.After(13 * time.Second)
		if got := watch(5 * time.Second); !strings.Contains(got, lost) {
			t.Errorf("it is still lost: %s", got)
		}
		must(t, l.Lost(false))
		want(t, "found", watch(3*time.Second), strings.Repeat(".", 30))
		must(t, l.Lost(true))
		l.Close()
		want(t, "at the end", watch(time.Second), strings.Repeat(".", 10))
		must(t, l.Lost(true)) // too late
		want(t, "after the end", watch(time.Second), strings.Repeat(".", 10))
	})
}

// A device without a lamp is no mistake.
func TestNoLamp(t *testing.T) {
	for name, path := range map[string]string{"missing": filepath.Join(t.TempDir(), "brightness"), "null": os.DevNull} {
		t.Setenv("LED_FILE", path)
		l := NewLED("")
		must(t, l.Blink())
		must(t, l.Lost(true))
		if l.running {
			t.Errorf("%s: it works for nobody", name)
		}
		l.Close()
	}
}

func TestALampElsewhere(t *testing.T) {
	t.Setenv("LED_FILE", "")
	if l := NewLED("/host"); l.path != "/host/sys/class/leds/led0/brightness" {
		t.Error(l.path)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
