package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"deckhand/state"
)

// Each bucket holds its version and, one level down, its values, so that no key
// can be mistaken for the version.
const (
	versionKey = "version"
	valuesKey  = "values"
	asideKey   = "set-aside"
)

// buckets lists every bucket with the version this code writes. A field that is
// added, and may be missing, needs no new version. Otherwise raise the version and
// say in migrations how its values come about; a device may go back by one version
// at any time, so what is written must still be readable for the version before.
func buckets() map[string]int {
	return map[string]int{
		targetsBucket:  1,
		commitsBucket:  1,
		specsBucket:    1,
		imagesBucket:   1,
		haltedBucket:   1,
		failuresBucket: 1,
		reportsBucket:  1,
		identityBucket: 1,

		intentsBucket:   1,
		overridesBucket: 1,
		handoversBucket: 1,
		rebootsBucket:   1,
		adoptedBucket:   1,
		historyBucket:   1,
		keysBucket:      1,
		importedBucket:  1,
		pinBucket:       1,
		initialBucket:   1,
		tagsBucket:      1,
		leasesBucket:    1,
		clockBucket:     1,
		localBucket:     1,
		cursorsBucket:   1,
	}
}

// own hands each owner its bucket.
func (s *Store) own() {
	s.Targets = Targets{bucket[Target]{s, targetsBucket}}
	s.Commits = Commits{bucket[Committed]{s, commitsBucket}}
	s.Specs = newSpecs(s)
	s.Images = Images{bucket[bool]{s, imagesBucket}}
	s.Halted = Halted{bucket[bool]{s, haltedBucket}}
	s.Failures = newFailures(s)
	s.Reports = Reports{bucket[json.RawMessage]{s, reportsBucket}}
	s.Identity = Identity{bucket[string]{s, identityBucket}}
	s.Intents = Intents{bucket[state.Intent]{s, intentsBucket}}
	s.Overrides = Overrides{bucket[Override]{s, overridesBucket}}
	s.Handovers = Handovers{bucket[state.Handover]{s, handoversBucket}}
	s.Reboots = Reboots{bucket[string]{s, rebootsBucket}}
	s.Adopted = Adopted{bucket[string]{s, adoptedBucket}}
	s.History = newHistory(s)
	s.Keys = Keys{bucket[ServiceKey]{s, keysBucket}}
	s.Imports = Imports{bucket[Imported]{s, importedBucket}}
	s.Pins = Pins{bucket[Pin]{s, pinBucket}}
	s.Initial = Initial{bucket[string]{s, initialBucket}}
	s.Tags = newTags(s)
	s.Leases = Leases{bucket[Lease]{s, leasesBucket}}
	s.Clock = Clock{bucket[time.Time]{s, clockBucket}}
	s.Local = Local{bucket[localEntry]{s, localBucket}}
	s.Cursors = Cursors{bucket[Cursor]{s, cursorsBucket}}
}

// setAside moves a bucket below asideKey, in place of an earlier one.
func setAside(tx *bbolt.Tx, name string) error {
	aside, err := tx.CreateBucketIfNotExists([]byte(asideKey))
	if err != nil {
		return err
	}
	if aside.Bucket([]byte(name)) != nil {
		if err := aside.DeleteBucket([]byte(name)); err != nil {
			return err
		}
	}
	return tx.MoveBucket([]byte(name), nil, aside)
}

// bucket is one owner's table of JSON values.
type bucket[T any] struct {
	s    *Store
	name string
}

func valuesOf(tx *bbolt.Tx, name string) (*bbolt.Bucket, error) {
	if top := tx.Bucket([]byte(name)); top != nil {
		if v := top.Bucket([]byte(valuesKey)); v != nil {
			return v, nil
		}
	}
	return nil, fmt.Errorf("store: bucket %s is gone; restart deckhand", name)
}

// get reads one value; ok is false when there is none or it cannot be read.
func (b bucket[T]) get(key string) (v T, ok bool, err error) {
	var bad error
	err = b.view(func(values *bbolt.Bucket) error {
		raw := values.Get([]byte(key))
		if raw == nil {
			return nil
		}
		v, bad = decode[T](raw)
		ok = bad == nil
		return nil
	})
	if bad != nil {
		b.drop(map[string]error{key: bad})
	}
	return v, ok, err
}

// all reads every value that can be read and drops the others.
func (b bucket[T]) all() (map[string]T, error) {
	out, bad := map[string]T{}, map[string]error{}
	err := b.view(func(values *bbolt.Bucket) error {
		return values.ForEach(func(k, raw []byte) error {
			v, err := decode[T](raw)
			if err != nil {
				bad[string(k)] = err
				return nil
			}
			out[string(k)] = v
			return nil
		})
	})
	b.drop(bad)
	return out, err
}

// put writes one value.
func (b bucket[T]) put(key string, v T) error {
	return b.change(map[string]T{key: v}, nil)
}

// replace makes the bucket hold exactly these values.
func (b bucket[T]) replace(want map[string]T) error {
	return b.change(want, func(key string) bool { _, ok := want[key]; return !ok })
}

// remove deletes values; missing ones do not matter.
func (b bucket[T]) remove(keys ...string) error {
	return b.change(nil, func(key string) bool { return slices.Contains(keys, key) })
}

// change writes values and deletes those that gone names, in one transaction.
func (b bucket[T]) change(put map[string]T, gone func(key string) bool) error {
	e, err := b.edit(put, gone)
	if err != nil {
		return err
	}
	return b.s.apply(e)
}

// edit is what a bucket's values change by.
type edit struct {
	bucket string
	put    map[string][]byte
	remove []string
}

// edit compares with what is stored and keeps what differs: flash wears out.
func (b bucket[T]) edit(put map[string]T, gone func(key string) bool) (edit, error) {
	e := edit{bucket: b.name, put: map[string][]byte{}}
	for k, v := range put {
		raw, err := encode(v)
		if err != nil {
			return e, fmt.Errorf("store: encode %s %q: %w", b.name, k, err)
		}
		if k == "" {
			return e, fmt.Errorf("store: a value of %s has no key", b.name)
		}
		e.put[k] = raw
	}
	err := b.view(func(values *bbolt.Bucket) error {
		for k, v := range put {
			switch raw, same := over(values.Get([]byte(k)), v, e.put[k]); {
			case same:
				delete(e.put, k)
			default:
				e.put[k] = raw
			}
		}
		if gone == nil {
			return nil
		}
		return values.ForEach(func(k, _ []byte) error {
			if _, stays := put[string(k)]; !stays && gone(string(k)) {
				e.remove = append(e.remove, string(k))
			}
			return nil
		})
	})
	return e, err
}

// apply makes all edits in one transaction, and none if there is nothing to do.
func (s *Store) apply(edits ...edit) error {
	edits = slices.DeleteFunc(edits, func(e edit) bool { return len(e.put)+len(e.remove) == 0 })
	if len(edits) == 0 {
		return nil
	}
	return s.write(func() error {
		return s.run(s.db.Update, func(tx *bbolt.Tx) error {
			for _, e := range edits {
				if err := e.in(tx); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (e edit) in(tx *bbolt.Tx) error {
	values, err := valuesOf(tx, e.bucket)
	if err != nil {
		return err
	}
	for _, k := range e.remove {
		if err := values.Delete([]byte(k)); err != nil {
			return fmt.Errorf("store: delete from %s: %w", e.bucket, err)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(e.put)) {
		if err := values.Put([]byte(k), e.put[k]); err != nil {
			return fmt.Errorf("store: write to %s: %w", e.bucket, err)
		}
	}
	return nil
}

// drop deletes values that cannot be read, and says so. In a bucket that a newer
// deckhand wrote they may be of a form that only it knows, and stay.
func (b bucket[T]) drop(bad map[string]error) {
	var doomed []string
	for _, k := range slices.Sorted(maps.Keys(bad)) {
		if b.s.newer[b.name] && errors.Is(bad[k], errForm) {
			if _, told := b.s.told.LoadOrStore(b.name+"/"+k, true); !told {
				b.s.report(fmt.Errorf("store: %s %q is left for a newer deckhand: %w", b.name, k, bad[k]))
			}
			continue
		}
		b.s.report(fmt.Errorf("store: %s %q was dropped: %w", b.name, k, bad[k]))
		doomed = append(doomed, k)
	}
	if len(doomed) == 0 {
		return
	}
	if err := b.remove(doomed...); err != nil {
		b.s.report(err)
	}
}

func (b bucket[T]) view(do func(*bbolt.Bucket) error) error {
	return b.s.run(b.s.db.View, b.within(do))
}

func (b bucket[T]) update(do func(*bbolt.Bucket) error) error {
	return b.s.write(func() error { return b.s.run(b.s.db.Update, b.within(do)) })
}

func (b bucket[T]) within(do func(*bbolt.Bucket) error) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		values, err := valuesOf(tx, b.name)
		if err != nil {
			return err
		}
		return do(values)
	}
}

func (s *Store) run(begin func(func(*bbolt.Tx) error) error, do func(*bbolt.Tx) error) error {
	if err := guard(func() error { return begin(do) }); err != nil {
		return disk(fmt.Errorf("store %s: %w", s.path, err))
	}
	return nil
}

// disk adds to an error of the disk what helps against it.
func disk(err error) error {
	switch {
	case isAny(err, syscall.ENOSPC, syscall.EDQUOT):
		return state.Classify(state.ClassSpace, err)
	case isAny(err, syscall.EROFS, syscall.EIO):
		return state.Classify(state.ClassSpace, fmt.Errorf("%w; nothing can be written: check the disk and its file system, then restart the device", err))
	}
	return err
}

// isAny reports whether err is one of these; of some, bbolt passes on only the text.
func isAny(err error, of ...syscall.Errno) bool {
	return err != nil && slices.ContainsFunc(of, func(e syscall.Errno) bool {
		return errors.Is(err, e) || strings.Contains(err.Error(), e.Error())
	})
}

// A value on disk is its checksum in eight hexadecimal digits, a space, and
// JSON: a flipped bit inside a text would otherwise go unnoticed.
func encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%08x ", checksum(raw)), raw...), nil
}

func decode[T any](raw []byte) (v T, err error) {
	sum, body, ok := bytes.Cut(raw, []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", checksum(body)) {
		return v, errors.New("its checksum is wrong")
	}
	// A value of another version of this program may not fit the type.
	if err := json.Unmarshal(body, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("%w: %w", errForm, err)
	}
	return v, nil
}

// errForm says that a value is as it was written, and not as we know it.
var errForm = errors.New("it cannot be decoded")

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
