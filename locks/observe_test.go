package locks

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// watched is a lock folder that is watched in real time, with the kernel's help.
type watched struct {
	place
	*Folder
	t     *testing.T
	hints <-chan struct{}
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	p := newPlace(t)
	told := zerolog.HookFunc(func(_ *zerolog.Event, _ zerolog.Level, message string) { t.Errorf("logged: %s", message) })
	f := Open(Config{RunDir: p.run, UID: testUID(), Log: zerolog.New(zerolog.NewTestWriter(t)).Hook(told)})
	return &watched{place: p, Folder: f, t: t}
}

// holds says how many locks of others there are; it is watched from then on.
func (w *watched) holds(want int) {
	w.t.Helper()
	all, err := w.Observe(w.t.Context())
	must(w.t, err)
	others := 0
	for _, l := range all {
		if !l.Ours {
			others++
		}
	}
	if others != want {
		w.t.Fatalf("%d locks of others, want %d: %+v", others, want, all)
	}
	if w.hints == nil {
		w.hints = w.Watch(w.t.Context())
		w.t.Cleanup(func() {
			for range w.hints { // until it has ended
				continue
			}
		})
	}
}

// hint waits for a hint, for much less than until the next look unasked.
func (w *watched) hint() {
	w.t.Helper()
	select {
	case <-w.hints:
	case <-time.After(watchFree / 3):
		w.t.Fatal("no hint")
	}
}

// atRest waits until nobody has opened the folder of all locks for longer than
// two looks of those who look often are apart.
func (w *watched) atRest() {
	w.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(w.t, err)
	events := os.NewFile(uintptr(fd), "inotify")
	defer func() { must(w.t, events.Close()) }()
	_, err = unix.InotifyAddWatch(fd, w.root, unix.IN_OPEN)
	must(w.t, err)
	deadline := time.Now().Add(watchFree / 3)
	buf := make([]byte, 16<<10)
	for {
		must(w.t, events.SetReadDeadline(time.Now().Add(2*watchHeld)))
		if _, err := events.Read(buf); os.IsTimeout(err) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("it looks on and on")
		}
	}
}

// Whatever kind of lock it is and however it goes: waiting costs nothing, and that
// it has gone is noticed at once.
func TestALockThatGoesIsNoticedAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		kind string
		end  func(path string) error
	}{
		"file removed":    {kindFile, os.Remove},
		"file moved away": {kindFile, func(path string) error { return os.Rename(path, path+".old") }},
		"folder removed":  {kindFolder, os.Remove},
		"link removed":    {kindLink, os.Remove},
		"pipe removed":    {"pipe", os.Remove},
		"its folder gone": {kindFile, func(path string) error { return os.RemoveAll(filepath.Dir(path)) }},
		"its app gone": {kindFile, func(path string) error {
			return os.RemoveAll(filepath.Dir(filepath.Dir(path)))
		}},
		"folder moved away": {kindFile, func(path string) error {
			return os.Rename(filepath.Dir(path), filepath.Join(filepath.Dir(path), "../../elsewhere"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t)
			path := w.path(1, "web", "resin-updates.lock")
			w.put(c.kind, path)
			w.put(kindFile, w.path(2, "worker", "updates.lock")) // goes on
			w.holds(2)
			w.atRest()
			must(t, c.end(path))
			w.hint()
			w.holds(1)
			w.atRest()
			must(t, os.Remove(w.path(2, "worker", "updates.lock")))
			w.hint()
			w.holds(0)
		})
	}
}

// A second lock beside one that holds is news at once, in the same folder at least.
func TestALockBesideAnotherIsNoticedAtOnce(t *testing.T) {
	w := newWatched(t)
	w.put(kindFile, w.path(1, "web", "updates.lock"))
	w.holds(1)
	w.atRest()
	w.put(kindFile, w.path(1, "web", "resin-updates.lock"))
	w.hint()
	w.holds(2)
}

// A file that would be a leftover of ours is a lock as long as another process has a
// flock on it: that ends with the file's closing or with the process.
func TestAFlockThatGoesIsNoticedAtOnce(t *testing.T) {
	for name, end := range map[string]func(cmd *exec.Cmd, in io.Writer) error{
		"closed": func(_ *exec.Cmd, in io.Writer) error {
			_, err := io.WriteString(in, "close it\n")
			return err
		},
		"killed": func(cmd *exec.Cmd, _ io.Writer) error { return cmd.Process.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t)
			path := w.path(1, "web", "updates.lock")
			w.leave(path)
			cmd, in, out := w.startWith(t, "flock "+path)
			defer func() { _ = cmd.Wait() }()
			defer func() { _ = cmd.Process.Kill() }()
			if line, err := out.ReadString('\n'); err != nil || line != "<nil>\n" {
				t.Fatalf("the other process: %q, %v", line, err)
			}
			w.holds(1)
			w.atRest()
			must(t, end(cmd, in))
			w.hint()
			w.holds(0)
		})
	}
}
