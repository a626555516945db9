package store

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const leasesBucket = "leases"

// Lease is an update lock that was taken over the local API. It holds until its
// time is over, its containers are gone or the device restarts.
type Lease struct {
	ID         string    `json:"id"`
	App        string    `json:"app"` // UUID
	AppID      int64     `json:"appId"`
	Service    string    `json:"service"`
	Holder     string    `json:"holder"` // who has it, in its own words
	Reason     string    `json:"reason,omitempty"`
	Containers []string  `json:"containers"`     // it ends with the last of them
	Boot       string    `json:"boot,omitempty"` // the run of the kernel that it was taken in
	Since      time.Time `json:"since"`
	Until      time.Time `json:"until"`

	BrokenBy string    `json:"brokenBy,omitempty"` // the permission under which an update broke it
	BrokenAt time.Time `json:"brokenAt,omitzero"`
}

// Leases remembers update locks that were taken over the local API.
type Leases struct{ b bucket[Lease] }

// All lists the leases, oldest first.
func (l Leases) All() ([]Lease, error) {
	all, err := l.b.all()
	return slices.SortedFunc(maps.Values(all), func(a, b Lease) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	}), err
}

// Change writes leases and forgets others, all of it or nothing.
func (l Leases) Change(put []Lease, forget ...string) error {
	values := map[string]Lease{}
	for _, x := range put {
		values[x.ID] = x
	}
	return l.b.change(values, func(id string) bool { return slices.Contains(forget, id) })
}
