package hostapp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"deckhand/state"
)

const (
	usualLED  = "sys/class/leds/led0/brightness"
	blinkFor  = 15 * time.Second
	blinkHalf = 200 * time.Millisecond // on, and then off
)

// LED is the lamp by which somebody finds the device in a shelf.
type LED struct {
	path string
	last time.Duration // how long it blinks

	mu      sync.Mutex
	stop    context.CancelFunc // nil: it does not blink
	running sync.WaitGroup
}

// NewLED finds the lamp: the file that LED_FILE names, else the usual one below
// the host's root folder; empty: "/".
func NewLED(root string) *LED {
	path := os.Getenv("LED_FILE")
	if path == "" {
		path = filepath.Join("/", root, usualLED)
	}
	return &LED{path: path, last: blinkFor}
}

// Blink lets the lamp blink for 15 seconds from now; it does not wait. A device
// without one is no mistake.
func (l *LED) Blink() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return state.Classify(state.ClassInvalid, fmt.Errorf("blink: %w; is LED_FILE right, and may the supervisor write there?", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		l.stop() // from the start again
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.last)
	l.stop = cancel
	l.running.Go(func() {
		defer cancel()
		blink(ctx, f)
	})
	return nil
}

func blink(ctx context.Context, f *os.File) {
	defer func() { _ = f.Close() }()
	every := time.NewTicker(blinkHalf)
	defer every.Stop()
	for on := true; ; on = !on {
		set(f, on && ctx.Err() == nil)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-every.C:
		case <-ctx.Done():
		}
	}
}

func set(f *os.File, on bool) {
	value := "0"
	if on {
		value = "255"
	}
	_, _ = f.WriteAt([]byte(value), 0) // a lamp that does not shine is not worth a word
}

// Close ends the blinking and waits for it.
func (l *LED) Close() {
	l.mu.Lock()
	if l.stop != nil {
		l.stop()
	}
	l.mu.Unlock()
	l.running.Wait()
}
