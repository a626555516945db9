package auth

import (
	"crypto/sha256"
	"sync"
	"time"

	"deckhand/cloud/model"
)

// cacheLife is how long a credential is believed without a look at the
// database, when nothing says that it changed.
const cacheLife = 5 * time.Minute

// cacheSize is how many credentials each of the two halves of the cache holds:
// some 30 MB when both are full.
const cacheSize = 1 << 16

// cache knows whose credentials are: devices show theirs thousands of times a
// second. It holds hashes of them only. When its young half is full it becomes
// the old one, which is then forgotten: what is in use is soon young again.
type cache struct {
	changes *model.Feed

	mu         sync.Mutex
	young, old map[digest]known
}

type digest [sha256.Size]byte

type known struct {
	actor   Actor
	until   time.Time // not believed from then on
	version uint64    // of the actor's credentials
}

func newCache(changes *model.Feed) *cache {
	return &cache{changes: changes, young: map[digest]known{}}
}

// find returns whose credential it is. stale says that it was known but must be
// looked up again.
func (c *cache) find(d digest, now time.Time) (actor Actor, stale, ok bool) {
	c.mu.Lock()
	k, found := c.young[d]
	if !found {
		if k, found = c.old[d]; found {
			c.put(d, k)
		}
	}
	c.mu.Unlock()
	if !found {
		return Actor{}, false, false
	}
	if !now.Before(k.until) || c.version(k.actor.ActorID) != k.version {
		return Actor{}, true, false
	}
	return k.actor, false, true
}

// version grows when a credential of the actor changes, in any process.
func (c *cache) version(actor int64) uint64 {
	return c.changes.Version(model.CredentialTopics(actor)...)
}

// changed grows when any credential of anybody changes.
func (c *cache) changed() uint64 {
	return c.changes.Version(model.AnyCredentialTopic())
}

// remember keeps whose credential it is, unless credentials changed since
// before it was looked up.
func (c *cache) remember(d digest, actor Actor, until time.Time, before uint64) {
	k := known{actor: actor, until: until, version: c.version(actor.ActorID)}
	if c.changed() != before {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(d, k)
}

// put needs the lock.
func (c *cache) put(d digest, k known) {
	if len(c.young) >= cacheSize {
		c.old, c.young = c.young, make(map[digest]known, cacheSize/4)
	}
	c.young[d] = k
}

// forget drops a credential that turned out not to be valid.
func (c *cache) forget(d digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, d)
	delete(c.old, d)
}
