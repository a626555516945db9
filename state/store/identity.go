package store

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

const identityBucket = "identity"

const apiKeyName = "local-api-key"

// Identity holds the secrets that the device made for itself. The device's
// identity towards the cloud is not here: it is in config.json.
type Identity struct{ b bucket[string] }

// APIKey is the key that opens the whole local API: 32 hexadecimal digits, made
// on first use.
func (i Identity) APIKey() (string, error) {
	key, ok, err := i.b.get(apiKeyName)
	if err != nil {
		return "", err
	}
	if ok && regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(key) {
		return key, nil
	}
	return i.RenewAPIKey()
}

// RenewAPIKey replaces the key; the old one no longer works.
func (i Identity) RenewAPIKey() (string, error) {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	key := hex.EncodeToString(b)
	return key, i.b.put(apiKeyName, key)
}
