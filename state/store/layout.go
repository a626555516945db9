package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.etcd.io/bbolt"
)

// A bucket says beside its version which code may read it, and which code wrote
// into it last.
const (
	sinceKey  = "readable-since"
	writerKey = "writer"
)

// layout is what one version of this program reads and writes.
type layout struct {
	versions   map[string]int // of each bucket
	migrations []migration
}

// migration brings the values of a bucket from the version before to this one.
type migration struct {
	bucket string
	to     int
	// value converts one value. It may meet values that have the new form
	// already, or the new form with changes by the version before, and must be
	// right for all of them. An error leaves the value as it is.
	value func(key string, old json.RawMessage) (json.RawMessage, error)
}

// migrations lists how the versions of buckets came about. An entry may go when
// nobody updates from its version any more.
func migrations() []migration { return nil }

// readableSince is the oldest code that can read what a version writes: that of
// the version before, by rule, so that every update can be taken back.
func readableSince(version int) int { return max(1, version-1) }

// stamp is what a bucket says about itself.
type stamp struct {
	version, since, writer int
}

// readStamp reads a bucket's stamp; ok is false when it makes no sense.
func readStamp(b *bbolt.Bucket) (st stamp, ok bool) {
	var err error
	if st.version, err = strconv.Atoi(string(b.Get([]byte(versionKey)))); err != nil {
		return st, false
	}
	st.since, st.writer = st.version, st.version // from before there were such things
	for key, to := range map[string]*int{sinceKey: &st.since, writerKey: &st.writer} {
		if raw := b.Get([]byte(key)); raw != nil {
			if *to, err = strconv.Atoi(string(raw)); err != nil {
				return st, false
			}
		}
	}
	return st, st.since <= st.version && st.writer <= st.version
}

func (st stamp) write(b *bbolt.Bucket) error {
	return errors.Join(
		b.Put([]byte(versionKey), []byte(strconv.Itoa(st.version))),
		b.Put([]byte(sinceKey), []byte(strconv.Itoa(st.since))),
		b.Put([]byte(writerKey), []byte(strconv.Itoa(st.writer))),
	)
}

// fit is what has to be done so that this code can use a bucket.
type fit int

const (
	fits     fit = iota // nothing
	missing             // create it
	old                 // convert its values
	tooNew              // read it, and note that we wrote into it
	unusable            // set it aside
)

// examine says what a bucket needs.
func (s *Store) examine(tx *bbolt.Tx, name string) (stamp, fit) {
	b := tx.Bucket([]byte(name))
	if b == nil {
		return stamp{}, missing
	}
	want := s.layout.versions[name]
	st, ok := readStamp(b)
	switch {
	case !ok || b.Bucket([]byte(valuesKey)) == nil || st.since > want:
		return st, unusable
	case st.version > want && st.writer > want:
		return st, tooNew
	case st.version > want:
		return st, fits
	case st.version < want || st.writer < want:
		return st, old
	}
	return st, fits
}

// prepare makes every bucket usable, in one transaction and only where one is
// not: a store that is in order opens on a full disk.
func (s *Store) prepare() error {
	var todo []string
	err := s.db.View(func(tx *bbolt.Tx) error {
		s.newer = map[string]bool{}
		for _, name := range slices.Sorted(maps.Keys(s.layout.versions)) {
			st, f := s.examine(tx, name)
			if f != fits {
				todo = append(todo, name)
			}
			s.newer[name] = f != unusable && st.version > s.layout.versions[name]
		}
		return nil
	})
	if err != nil || len(todo) == 0 {
		return err
	}
	return s.write(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range todo {
				if err := s.mend(tx, name); err != nil {
					return fmt.Errorf("prepare bucket %s: %w", name, err)
				}
			}
			return nil
		})
	})
}

func (s *Store) mend(tx *bbolt.Tx, name string) error {
	want := s.layout.versions[name]
	st, f := s.examine(tx, name)
	switch f {
	case tooNew:
		s.report(fmt.Errorf("store: the %s are of version %d; this deckhand reads what it knows of them and keeps the rest", name, st.version))
		st.writer = want
		return st.write(tx.Bucket([]byte(name)))
	case old:
		s.migrate(tx, name, min(st.version, st.writer))
		return stamp{want, readableSince(want), want}.write(tx.Bucket([]byte(name)))
	case unusable:
		s.report(fmt.Errorf("store: the %s are of version %q and this deckhand writes %d; they are set aside",
			name, tx.Bucket([]byte(name)).Get([]byte(versionKey)), want))
		if err := setAside(tx, name); err != nil {
			return fmt.Errorf("set it aside: %w", err)
		}
	case missing, fits:
	}
	b, err := tx.CreateBucket([]byte(name))
	if err != nil {
		return err
	}
	if _, err := b.CreateBucket([]byte(valuesKey)); err != nil {
		return err
	}
	return stamp{want, readableSince(want), want}.write(b)
}

// migrate brings the values of a bucket from a version to ours. What cannot be
// converted stays; its owner drops it if he cannot read it.
func (s *Store) migrate(tx *bbolt.Tx, name string, from int) {
	values := tx.Bucket([]byte(name)).Bucket([]byte(valuesKey))
	for version := from + 1; version <= s.layout.versions[name]; version++ {
		for _, m := range s.layout.migrations {
			if m.bucket == name && m.to == version {
				s.convert(values, m)
			}
		}
	}
}

func (s *Store) convert(values *bbolt.Bucket, m migration) {
	changed := map[string][]byte{}
	bad := map[string]error{}
	_ = values.ForEach(func(k, raw []byte) error {
		if raw == nil {
			return nil
		}
		now, err := m.apply(string(k), raw)
		if err != nil {
			bad[string(k)] = err
		} else if string(now) != string(raw) {
			changed[string(k)] = now
		}
		return nil
	})
	for _, k := range slices.Sorted(maps.Keys(changed)) {
		if err := values.Put([]byte(k), changed[k]); err != nil {
			bad[k] = err
		}
	}
	for _, k := range slices.Sorted(maps.Keys(bad)) {
		s.report(fmt.Errorf("store: %s %q cannot be brought to version %d: %w", m.bucket, k, m.to, bad[k]))
	}
}

func (m migration) apply(key string, raw []byte) (now []byte, err error) {
	body, err := decode[json.RawMessage](raw)
	if err != nil {
		return nil, err
	}
	if err := guard(func() error { body, err = m.value(key, body); return err }); err != nil {
		return nil, err
	}
	return encode(body)
}
