package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// supervisor is the owner of locks that are not ours to remove.
const supervisor = 65534

// work is what must not be interrupted. While it goes on, the update lock
// exists: nothing of this project is stopped.
type work struct {
	path string

	mu    sync.Mutex
	lock  os.FileInfo // nil: nothing important goes on
	timer *time.Timer
}

func lockPath() string {
	if p := os.Getenv("BALENA_APP_LOCK_PATH"); p != "" {
		return p
	}
	return "/tmp/balena/updates.lock"
}

// forget removes the lock that an earlier container left when it was killed.
func (w *work) forget() error {
	info, err := os.Lstat(w.path)
	if err != nil {
		return nil // the usual: there is none
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid == supervisor {
		return nil
	}
	return os.Remove(w.path)
}

func (w *work) post(out http.ResponseWriter, r *http.Request) {
	length, err := time.ParseDuration(r.FormValue("for"))
	if err != nil || length <= 0 || length > time.Hour {
		http.Error(out, "say for how long, at most an hour: POST /work?for=30s", http.StatusBadRequest)
		return
	}
	switch err := w.begin(length); {
	case errors.Is(err, os.ErrExist):
		http.Error(out, "not now: an update is going on", http.StatusConflict)
	case err != nil:
		http.Error(out, "cannot take the update lock: "+err.Error(), http.StatusInternalServerError)
	default:
		fmt.Fprintf(out, "worker is busy for %s; do not stop it\n", length)
	}
}

func (w *work) delete(out http.ResponseWriter, _ *http.Request) {
	w.end()
	fmt.Fprintln(out, "worker is done")
}

// begin takes the lock. It fails if somebody has it: creating the file and
// finding that there was none are one thing.
func (w *work) begin(length time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lock != nil {
		w.timer.Reset(length)
		return nil
	}
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if w.lock, err = f.Stat(); err != nil {
		return err
	}
	w.timer = time.AfterFunc(length, w.end)
	fmt.Println("worker: busy, and the update lock is taken")
	return nil
}

// end gives the lock up, unless somebody broke it and put another one there.
func (w *work) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lock == nil {
		return
	}
	w.timer.Stop()
	if now, err := os.Lstat(w.path); err == nil && os.SameFile(w.lock, now) {
		_ = os.Remove(w.path)
	}
	w.lock = nil
	fmt.Println("worker: done, and the update lock is given up")
}
