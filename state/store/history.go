package store

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"deckhand/state"
)

const historyBucket = "history"

// How much of the past is kept, whichever is reached first. An entry of an
// ordinary update takes about 300 bytes.
const (
	historyEntries = 2000
	historyBytes   = 1 << 20
)

// Entry is one thing that happened: a step, a new target, a wish of a person, a
// new reason to wait, something that a container did by itself.
type Entry struct {
	At      time.Time      `json:"at"` // when it began
	App     string         `json:"app,omitempty"`
	Service string         `json:"service,omitempty"`
	Kind    string         `json:"kind"`              // for programs
	Title   string         `json:"title"`             // for people
	Why     string         `json:"why,omitempty"`     // the cause of a step
	Changes []state.Change `json:"changes,omitempty"` // the fields that led to it
	Outcome string         `json:"outcome,omitempty"` // for programs
	Took    state.Duration `json:"took,omitempty"`
	Class   state.Class    `json:"class,omitempty"` // of a failure, or of what is waited for
	Text    string         `json:"text,omitempty"`
	Commit  string         `json:"commit,omitempty"` // the release that was wanted
}

// History remembers what happened, the last of it: a ring of bounded size.
type History struct{ ring *ring }

// ring is what is known of the stored entries without reading them.
type ring struct {
	b bucket[Entry]

	mu     sync.Mutex
	loaded bool
	size   map[uint64]int // bytes of each entry
	keys   []uint64       // oldest first
	bytes  int
}

func newHistory(s *Store) History {
	return History{&ring{b: bucket[Entry]{s, historyBucket}, size: map[uint64]int{}}}
}

// Append adds entries in one write and drops the oldest ones that are too many.
func (h History) Append(entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	r := h.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return err
	}
	next := r.next()
	raws := map[uint64][]byte{}
	for i, e := range entries {
		raw, err := encode(e)
		if err != nil {
			return fmt.Errorf("store: encode history: %w", err)
		}
		raws[next+uint64(i)] = raw
	}
	dropped := r.room(raws)
	for _, k := range dropped {
		delete(raws, k)
	}
	if err := r.write(dropped, raws); err != nil {
		r.loaded = false
		return err
	}
	return nil
}

// next is the key of the next entry.
func (r *ring) next() uint64 {
	if n := len(r.keys); n > 0 {
		return r.keys[n-1] + 1
	}
	return 1
}

// room notes new entries and says which ones have to go for them.
func (r *ring) room(raws map[uint64][]byte) (dropped []uint64) {
	for _, k := range slices.Sorted(maps.Keys(raws)) {
		r.keys, r.size[k] = append(r.keys, k), len(raws[k])
		r.bytes += len(raws[k])
	}
	for len(r.keys) > 1 && (len(r.keys) > historyEntries || r.bytes > historyBytes) {
		k := r.keys[0]
		dropped, r.keys = append(dropped, k), r.keys[1:]
		r.bytes -= r.size[k]
		delete(r.size, k)
	}
	return dropped
}

func (r *ring) write(dropped []uint64, raws map[uint64][]byte) error {
	return r.b.update(func(values *bbolt.Bucket) error {
		for _, k := range dropped {
			if err := values.Delete(historyKey(k)); err != nil {
				return fmt.Errorf("store: delete from history: %w", err)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(raws)) {
			if err := values.Put(historyKey(k), raws[k]); err != nil {
				return fmt.Errorf("store: write to history: %w", err)
			}
		}
		return nil
	})
}

// All lists the entries, oldest first.
func (h History) All() ([]Entry, error) {
	all, err := h.ring.b.all()
	keys := make([]uint64, 0, len(all))
	for name := range all {
		if k, ok := historyNumber([]byte(name)); ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	out := make([]Entry, len(keys))
	for i, k := range keys {
		out[i] = all[string(historyKey(k))]
	}
	return out, err
}

// load learns which entries there are; the lock is held.
func (r *ring) load() error {
	if r.loaded {
		return nil
	}
	clear(r.size)
	r.keys, r.bytes = nil, 0
	var strange []string
	err := r.b.view(func(values *bbolt.Bucket) error {
		return values.ForEach(func(name, raw []byte) error {
			k, ok := historyNumber(name)
			if !ok {
				strange = append(strange, string(name))
				return nil
			}
			r.keys = append(r.keys, k)
			r.size[k] = len(raw)
			r.bytes += len(raw)
			return nil
		})
	})
	if err == nil && len(strange) > 0 {
		err = r.b.remove(strange...)
	}
	slices.Sort(r.keys)
	r.loaded = err == nil
	return err
}

// historyKey sorts by age.
func historyKey(k uint64) []byte { return fmt.Appendf(nil, "%016x", k) }

func historyNumber(name []byte) (uint64, bool) {
	k, err := strconv.ParseUint(string(name), 16, 64)
	return k, err == nil && string(historyKey(k)) == string(name)
}
