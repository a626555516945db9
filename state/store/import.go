package store

import (
	"slices"
	"time"

	"deckhand/state"
)

const importedBucket = "imported"

// Imported says where the memory of an earlier supervisor was taken over from.
type Imported struct {
	From string    `json:"from"` // its database
	At   time.Time `json:"at"`
}

// Imports remembers that there was an import.
type Imports struct{ b bucket[Imported] }

// Last is the last import; ok is false when there was none.
func (i Imports) Last() (last Imported, ok bool, err error) { return i.b.get("last") }

// Import is the memory of an earlier supervisor. What is empty stays as it is.
type Import struct {
	Imported
	APIKey       string // opens the whole local API
	Keys         []ServiceKey
	Commits      map[string]Committed // by app UUID
	Images       []string             // canonical references that it fetched
	Target       *Target
	Specs        map[string]state.Spec // of the target's services, by hash
	TagsWanted   map[string]string     // not confirmed by the cloud
	TagsReported map[string]string     // that the cloud has
	Pin          *Pin
	Initial      string // see Initial
	Override     *Override
}

// Import writes all of it in one transaction, or nothing.
func (s *Store) Import(i Import) error {
	edits := []func() (edit, error){
		func() (edit, error) { return s.Imports.b.edit(map[string]Imported{"last": i.Imported}, nil) },
		func() (edit, error) { return s.Identity.b.edit(single(apiKeyName, i.APIKey, i.APIKey != ""), nil) },
		func() (edit, error) { return s.Keys.b.edit(i.keys(), nil) },
		func() (edit, error) { return s.Commits.b.edit(i.Commits, nil) },
		func() (edit, error) { return s.Images.b.edit(set(i.Images), nil) },
		func() (edit, error) { return s.Specs.b.edit(i.Specs, nil) },
		func() (edit, error) { return s.Tags.b.edit(i.tags(), nil) },
		func() (edit, error) { return s.Initial.b.edit(single("told", i.Initial, i.Initial != ""), nil) },
	}
	if i.Target != nil {
		edits = append(edits, func() (edit, error) { return s.Targets.b.edit(map[string]Target{"last": *i.Target}, nil) })
	}
	if i.Pin != nil {
		edits = append(edits, func() (edit, error) { return s.Pins.b.edit(map[string]Pin{"wanted": *i.Pin}, nil) })
	}
	if i.Override != nil {
		edits = append(edits, func() (edit, error) { return s.Overrides.b.edit(map[string]Override{everyApp: *i.Override}, nil) })
	}
	var all []edit
	for _, make := range edits {
		e, err := make()
		if err != nil {
			return err
		}
		all = append(all, e)
	}
	return s.apply(all...)
}

func (i Import) keys() map[string]ServiceKey {
	out := map[string]ServiceKey{}
	for _, k := range i.Keys {
		out[serviceKeyName(k.AppID, k.Service)] = k
	}
	return out
}

func (i Import) tags() map[string]tag {
	out := map[string]tag{}
	for name, value := range i.TagsReported {
		out[name] = tag{Reported: &value}
	}
	for name, value := range i.TagsWanted {
		v := out[name]
		if v.Reported == nil || *v.Reported != value {
			v.Wanted = &value
		}
		out[name] = v
	}
	return out
}

func single(key, value string, there bool) map[string]string {
	if !there {
		return nil
	}
	return map[string]string{key: value}
}

func set(names []string) map[string]bool {
	out := map[string]bool{}
	for _, n := range slices.Compact(slices.Sorted(slices.Values(names))) {
		out[n] = true
	}
	return out
}
