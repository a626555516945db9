package store

import "slices"

const cursorsBucket = "cursors"

// Cursor is how far the log of a container was read and is safe: sent, or on the
// disk. See package logs.
type Cursor struct {
	Run   int64 `json:"run,omitempty"` // when the container's run began, nanoseconds since 1970
	At    int64 `json:"at"`            // time of the last line, likewise
	Count int   `json:"n"`             // lines with that very time
	Pos   int64 `json:"pos"`           // its position
}

// Cursors remembers how far the logs of containers were read, by the engine's ID of
// the container.
type Cursors struct{ b bucket[Cursor] }

// All lists the cursors.
func (c Cursors) All() (map[string]Cursor, error) { return c.b.all() }

// Save writes cursors and forgets those of containers that are gone, in one write.
func (c Cursors) Save(moved map[string]Cursor, gone []string) error {
	return c.b.change(moved, func(key string) bool { return slices.Contains(gone, key) })
}
