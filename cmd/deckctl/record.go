package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"deckhand/build/event"
)

// keptBuilds is how many builds' logs stay on the disk.
const keptBuilds = 20

// record keeps the whole log of each service of a build in a file: what scrolled by can be
// read again. It never fails a build; a disk that does not take it is told once.
type record struct {
	root  string // of all builds; "" when there is no place
	dir   string // of this one; "" before there is a release
	files map[string]*os.File
	err   error
}

// newRecord finds the place for logs.
func newRecord(env func(string) string) *record {
	root := env("XDG_STATE_HOME")
	if home := env("HOME"); root == "" && home != "" {
		root = filepath.Join(home, ".local", "state")
	}
	if root != "" {
		root = filepath.Join(root, "deckctl", "builds")
	}
	return &record{root: root, files: map[string]*os.File{}}
}

// add writes down what an event says of a service.
func (r *record) add(e event.Event) {
	switch {
	case r.root == "" || r.err != nil:
		return
	case e.Type == event.ReleaseCreated:
		dir := filepath.Join(r.root, strconv.FormatInt(e.ReleaseID, 10))
		if r.err = os.MkdirAll(dir, 0o700); r.err == nil {
			r.dir = dir
			r.prune()
		}
	case r.dir == "" || e.Service == "":
	case e.Type == event.Step && e.State == event.Start:
		r.write(e, fmt.Sprintf("step %d/%d %s", e.N, e.Total, e.Text))
	case e.Type == event.Log:
		r.write(e, e.Text)
	case e.Type == event.Error:
		r.write(e, "error: "+e.Message)
	}
}

func (r *record) write(e event.Event, text string) {
	f := r.files[e.Service]
	if f == nil {
		// The name comes from the cloud: it must not lead anywhere else.
		if f, r.err = os.Create(filepath.Join(r.dir, filepath.Base(e.Service)+".log")); r.err != nil {
			return
		}
		r.files[e.Service] = f
	}
	_, r.err = fmt.Fprintf(f, "%s %s\n", e.T.Format("2006-01-02T15:04:05.000Z07:00"), text)
}

// file is where a service's log is; "" when there is none.
func (r *record) file(service string) string {
	if f := r.files[service]; f != nil && r.err == nil {
		return f.Name()
	}
	return ""
}

// close ends the files, and says what went wrong with them.
func (r *record) close() error {
	err := r.err
	for _, f := range r.files {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("keep the build's logs: %w", err)
	}
	return nil
}

// prune removes the logs of the oldest builds.
func (r *record) prune() {
	names, err := os.ReadDir(r.root)
	if err != nil {
		r.err = err
		return
	}
	var ids []int
	for _, n := range names {
		if id, err := strconv.Atoi(n.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids[:max(0, len(ids)-keptBuilds)] {
		if strconv.Itoa(id) != filepath.Base(r.dir) {
			r.err = errors.Join(r.err, os.RemoveAll(filepath.Join(r.root, strconv.Itoa(id))))
		}
	}
}
