package store

const rebootsBucket = "reboots"

// Reboots remembers in which boot of the device a reboot was required for a
// service: when the device runs another one, it has happened.
type Reboots struct{ b bucket[string] }

// All lists the IDs of the boots by OfService.
func (r Reboots) All() (map[string]string, error) { return r.b.all() }

// Put records the boot.
func (r Reboots) Put(key, bootID string) error { return r.b.put(key, bootID) }

// Remove forgets services.
func (r Reboots) Remove(keys ...string) error { return r.b.remove(keys...) }
