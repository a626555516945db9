package auth

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"
)

// OldHash is a password hash as clouds wrote it before argon2id.
func OldHash(t testing.TB, password string, iterations int) string {
	t.Helper()
	salt := []byte("sixteen bytes of")
	sum, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("pbkdf2-sha256$%d$%s$%s", iterations, encode(salt), encode(sum))
}

// CheckPassword compares a password with a stored hash.
func CheckPassword(stored, password string) bool {
	right, _ := checkPassword(stored, password, cost{memory: 64, passes: 1, lanes: 1})
	return right
}
