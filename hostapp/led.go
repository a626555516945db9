package hostapp

import (
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
	lostTimes = 4                      // it blinks while the cloud is not reached,
	lostPause = time.Second            // and is dark then
)

// LED is the lamp by which somebody finds the device in a shelf, and sees that it
// does not reach its cloud.
type LED struct {
	path   string
	change chan struct{} // what it shows is another thing now

	mu      sync.Mutex
	until   time.Time // it blinks for whoever looks for the device
	lost    bool      // the cloud is not reached
	closed  bool
	running bool
	shining sync.WaitGroup
}

// NewLED finds the lamp: the file that LED_FILE names, else the usual one below
// the host's root folder; empty: "/".
func NewLED(root string) *LED {
	path := os.Getenv("LED_FILE")
	if path == "" {
		path = filepath.Join("/", root, usualLED)
	}
	return &LED{path: path, change: make(chan struct{}, 1)}
}

// Blink lets the lamp blink for 15 seconds from now; it does not wait. A device
// without one is no mistake.
func (l *LED) Blink() error {
	return l.show("blink", func() { l.until = time.Now().Add(blinkFor) })
}

// Lost lets the lamp blink four times and pause, again and again, for as long as the
// cloud is not reached. Blink goes first.
func (l *LED) Lost(lost bool) error {
	return l.show("show that the cloud is not reached", func() { l.lost = lost })
}

func (l *LED) show(what string, change func()) error {
	if l.path == os.DevNull {
		return nil // nobody sees it, and it would wake the device for nothing
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return state.Classify(state.ClassInvalid, fmt.Errorf("%s: %w; is LED_FILE right, and may the supervisor write there?", what, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	if l.running || l.closed {
		_ = f.Close()
		l.changed()
		return nil
	}
	l.running = true
	l.shining.Go(func() { l.shine(f) })
	return nil
}

func (l *LED) changed() {
	select {
	case l.change <- struct{}{}:
	default:
	}
}

// shine lets the lamp show what there is to show, until there is nothing any more.
func (l *LED) shine(f *os.File) {
	defer func() { _ = f.Close() }()
	for n := 0; ; n++ {
		wait, more := l.next(f, n)
		if !more {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.change:
			timer.Stop()
			n = -1
		}
	}
}

// next does the n-th part of a pattern and says how long it lasts.
func (l *LED) next(f *os.File, n int) (lasts time.Duration, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := time.Until(l.until)
	on := n%2 == 0
	switch {
	case l.closed, left <= 0 && !l.lost:
		set(f, false)
		l.running = false
		return 0, false
	case left > 0:
		lasts = min(blinkHalf, left)
	case n%(2*lostTimes) == 2*lostTimes-1:
		lasts = lostPause
	default:
		lasts = blinkHalf
	}
	set(f, on)
	return lasts, true
}

func set(f *os.File, on bool) {
	value := "0"
	if on {
		value = "255"
	}
	_, _ = f.WriteAt([]byte(value), 0) // a lamp that does not shine is not worth a word
}

// Close makes the lamp dark for good.
func (l *LED) Close() {
	l.mu.Lock()
	l.closed = true
	l.changed()
	l.mu.Unlock()
	l.shining.Wait()
}
