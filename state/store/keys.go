package store

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

const keysBucket = "keys"

// ServiceKey is the key with which a service calls the supervisor.
type ServiceKey struct {
	AppID   int64  `json:"appId"`
	Service string `json:"service"`
	Key     string `json:"key"` // 32 hexadecimal digits
}

// Keys remembers the keys of services, so that a container's key opens the API
// for as long as the container lives.
type Keys struct{ b bucket[ServiceKey] }

// Ensure gives the key of a service and makes one when it has none.
func (k Keys) Ensure(appID int64, service string) (string, error) {
	name := serviceKeyName(appID, service)
	have, ok, err := k.b.get(name)
	if err != nil || (ok && have.Key != "") {
		return have.Key, err
	}
	return k.Renew(appID, service)
}

// Renew gives a service a new key; the old one no longer works.
func (k Keys) Renew(appID int64, service string) (string, error) {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	x := ServiceKey{AppID: appID, Service: service, Key: hex.EncodeToString(b)}
	return x.Key, k.b.put(serviceKeyName(appID, service), x)
}

// Learn gives a service the key that its container has from another supervisor. A
// key that the service has already stays.
func (k Keys) Learn(appID int64, service, key string) error {
	name := serviceKeyName(appID, service)
	if have, ok, err := k.b.get(name); err != nil || (ok && have.Key != "") {
		return err
	}
	return k.b.put(name, ServiceKey{AppID: appID, Service: service, Key: key})
}

// All lists the keys; the map's own keys mean nothing.
func (k Keys) All() (map[string]ServiceKey, error) { return k.b.all() }

// Prune forgets the keys of services that keep refuses.
func (k Keys) Prune(keep func(appID int64, service string) bool) error {
	all, err := k.b.all()
	if err != nil {
		return err
	}
	return k.b.change(nil, func(name string) bool {
		have, known := all[name]
		return known && !keep(have.AppID, have.Service)
	})
}

func serviceKeyName(appID int64, service string) string { return fmt.Sprintf("%d/%s", appID, service) }
