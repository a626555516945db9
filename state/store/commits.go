package store

const commitsBucket = "commits"

// Commits remembers for each app the last release that was reached completely.
type Commits struct{ b bucket[string] }

// All lists the commits by app UUID.
func (c Commits) All() (map[string]string, error) { return c.b.all() }

// Put records that the app reached a release.
func (c Commits) Put(app, commit string) error { return c.b.put(app, commit) }

// Remove forgets an app.
func (c Commits) Remove(app string) error { return c.b.remove(app) }
