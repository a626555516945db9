package store

import (
	"errors"
	"sync"
)

const tagsBucket = "tags"

// maxTags bounds how many tags are remembered.
const maxTags = 1000

// ErrTooManyTags refuses more tags than a device may have.
var ErrTooManyTags = errors.New("the device has too many tags already")

// tag is one tag of the device by name: what it is to be, and what the cloud was
// told last. Nil: nothing.
type tag struct {
	Wanted   *string `json:"wanted,omitempty"`
	Reported *string `json:"reported,omitempty"`
}

// Tags remembers the tags that programs on the device set, until the cloud has
// them, and what it has.
type Tags struct {
	b  bucket[tag]
	mu *sync.Mutex // held from reading to writing
}

func newTags(s *Store) Tags { return Tags{bucket[tag]{s, tagsBucket}, new(sync.Mutex)} }

// Want queues tags. A value that the cloud has already is not queued unless
// another one is on its way. changed says whether anything was.
func (t Tags) Want(tags map[string]string) (changed bool, err error) {
	err = t.edit(func(all map[string]tag) (map[string]tag, error) {
		put := map[string]tag{}
		for name, value := range tags {
			v := all[name]
			if v.Wanted == nil && v.Reported != nil && *v.Reported == value {
				continue
			}
			v.Wanted = &value
			put[name] = v
			all[name] = v
		}
		if len(all) > maxTags {
			return nil, ErrTooManyTags
		}
		changed = len(put) > 0
		return put, nil
	})
	return changed && err == nil, err
}

// Wanted are the tags that the cloud has not confirmed.
func (t Tags) Wanted() (map[string]string, error) {
	all, err := t.b.all()
	out := map[string]string{}
	for name, v := range all {
		if v.Wanted != nil {
			out[name] = *v.Wanted
		}
	}
	return out, err
}

// Confirm records that the cloud has these values. A wish that is another one by
// now stays.
func (t Tags) Confirm(sent map[string]string) error {
	return t.settle(sent, func(v tag, value string) tag { v.Reported = &value; return v })
}

// Drop forgets wishes, unless others took their place.
func (t Tags) Drop(tags map[string]string) error {
	return t.settle(tags, func(v tag, _ string) tag { return v })
}

// ForgetReported forgets what the cloud has: it is another cloud.
func (t Tags) ForgetReported() error {
	return t.edit(func(all map[string]tag) (map[string]tag, error) {
		for name, v := range all {
			v.Reported = nil
			all[name] = v
		}
		return all, nil
	})
}

func (t Tags) settle(tags map[string]string, then func(v tag, value string) tag) error {
	return t.edit(func(all map[string]tag) (map[string]tag, error) {
		put := map[string]tag{}
		for name, value := range tags {
			v := all[name]
			if v.Wanted != nil && *v.Wanted == value {
				v.Wanted = nil
			}
			put[name] = then(v, value)
		}
		return put, nil
	})
}

// edit writes what change makes of all tags; one that is neither wanted nor
// reported goes.
func (t Tags) edit(change func(all map[string]tag) (put map[string]tag, err error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.b.all()
	if err != nil {
		return err
	}
	put, err := change(all)
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for name, v := range put {
		if v == (tag{}) {
			gone[name] = true
			delete(put, name)
		}
	}
	return t.b.change(put, func(name string) bool { return gone[name] })
}
