package store

const commitsBucket = "commits"

// Committed is a release that was reached completely.
type Committed struct {
	Commit string   `json:"commit"`
	Images []string `json:"images,omitempty"` // its references: they stay until the next release is reached
}

// Commits remembers, by app UUID, the release that was last reached completely.
type Commits struct{ b bucket[Committed] }

// All lists the releases by app UUID.
func (c Commits) All() (map[string]Committed, error) { return c.b.all() }

// Put records the release of an app.
func (c Commits) Put(app string, release Committed) error { return c.b.put(app, release) }

// Remove forgets the release of an app.
func (c Commits) Remove(app string) error { return c.b.remove(app) }

func (c Committed) sameAs(earlier Committed) bool { return c.Commit == earlier.Commit }
