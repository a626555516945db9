package auth

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"deckhand/cloud/model"
)

// cost is how dear one password hash is with argon2id.
type cost struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
}

// defaultCost is the least that OWASP recommends: some 40 ms of one core.
func defaultCost() cost { return cost{memory: 19 * 1024, passes: 2, lanes: 1} }

// maxMemory in KiB, maxPasses and maxIterations bound what a stored hash may
// ask for: a damaged row must not take the machine.
const (
	maxMemory     = 256 * 1024
	maxPasses     = 16
	maxIterations = 2_000_000
)

// hashPassword is "$argon2id$v=19$m=<KiB>,t=<passes>,p=<lanes>$<salt>$<hash>".
func hashPassword(password string, c cost) string {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails since Go 1.24
	sum := argon2.IDKey([]byte(password), salt, c.passes, c.memory, c.lanes, sha256.Size)
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.passes, c.lanes, encode(salt), encode(sum))
}

// checkPassword compares with a stored hash of either kind. current says that
// the hash is as a new one would be.
func checkPassword(stored, password string, c cost) (right, current bool) {
	if strings.HasPrefix(stored, "pbkdf2-sha256$") {
		return checkPBKDF2(stored, password), false
	}
	used, salt, want, err := readHash(stored)
	if err != nil {
		return false, false
	}
	got := argon2.IDKey([]byte(password), salt, used.passes, used.memory, used.lanes, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, used == c
}

// readHash takes a hash of argon2id apart.
func readHash(stored string) (c cost, salt, sum []byte, err error) {
	parts := strings.Split(stored, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, errors.New("not a hash of argon2id")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.memory, &c.passes, &c.lanes); err != nil {
		return c, nil, nil, fmt.Errorf("read the parameters of a hash: %w", err)
	}
	if c.memory == 0 || c.memory > maxMemory || c.passes == 0 || c.passes > maxPasses || c.lanes == 0 {
		return c, nil, nil, errors.New("parameters of a hash are out of bounds")
	}
	salt, err = base64.RawStdEncoding.DecodeString(parts[4])
	if err == nil {
		sum, err = base64.RawStdEncoding.DecodeString(parts[5])
	}
	if err == nil && (len(sum) < 16 || len(sum) > 64) {
		err = errors.New("a hash has the wrong length")
	}
	return c, salt, sum, err
}

// checkPBKDF2 compares with "pbkdf2-sha256$<iterations>$<salt>$<hash>", which
// clouds wrote before.
func checkPBKDF2(stored, password string) bool {
	parts := strings.Split(stored, "$")
	if len(parts) != 4 {
		return false
	}
	iterations, err := strconv.Atoi(parts[1])
	if err != nil || iterations < 1 || iterations > maxIterations {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[3])
	if err != nil || len(want) < 16 {
		return false
	}
	got, err := pbkdf2.Key(sha256.New, password, salt, iterations, len(want))
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
}

// hash is a new password's hash.
func (a *Auth) hash(ctx context.Context, password string) (hash string, err error) {
	err = a.slowly(ctx, func() { hash = hashPassword(password, a.cost) })
	return hash, err
}

// minPassword is the length in characters of the shortest password that somebody
// may choose.
const minPassword = 8

// PasswordError says why a password cannot be had.
type PasswordError struct{ Reason string }

func (e *PasswordError) Error() string { return e.Reason }

// HashPassword is a password that a user chose as it is stored. The error is a
// *PasswordError when it is too short or too long.
func (a *Auth) HashPassword(ctx context.Context, password string) (hash string, err error) {
	if utf8.RuneCountInString(password) < minPassword || len(password) > maxPassword {
		return "", &PasswordError{fmt.Sprintf("A password has at least %d characters, and at most %d bytes.", minPassword, maxPassword)}
	}
	return a.hash(ctx, password)
}

// slowly does what takes a core and memory on purpose, few at a time: guessers
// must not take the machine.
func (a *Auth) slowly(ctx context.Context, do func()) error {
	select {
	case a.checking <- struct{}{}:
		defer func() { <-a.checking }()
		do()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxPassword is the length in bytes of the longest password.
const maxPassword = 1024

// Login checks a password and returns the user. A wrong name or password
// gives ErrUnauthenticated; the tenth within two hours from the same client
// (an address) closes the name to that client for an hour: TooManyAttempts.
func (a *Auth) Login(ctx context.Context, username, password, client string) (model.User, error) {
	named, anyName := strings.ToLower(username)+"\x00"+network(client), network(client)
	now := a.db.Now()
	if wait := max(a.names.wait(named, now), a.clients.wait(anyName, now)); wait > 0 {
		return model.User{}, &TooManyAttempts{Wait: wait}
	}
	u, err := a.userNamed(ctx, username)
	if err != nil && !errors.Is(err, model.ErrNotFound) {
		return model.User{}, fmt.Errorf("log in: %w", err)
	}
	stored := u.PasswordHash
	if err != nil {
		// As much work as for a real user, so that the time does not tell
		// which names exist.
		stored = a.nobody
	}
	right, current := false, false
	if len(password) <= maxPassword {
		if err := a.slowly(ctx, func() { right, current = checkPassword(stored, password, a.cost) }); err != nil {
			return model.User{}, err
		}
	}
	if !right || err != nil {
		a.names.failed(named, now)
		a.clients.failed(anyName, now)
		return model.User{}, ErrUnauthenticated
	}
	a.names.forget(named)
	if !current {
		if err := a.rehash(ctx, &u, password); err != nil {
			return model.User{}, fmt.Errorf("log in: %w", err)
		}
	}
	return u, nil
}

// userNamed finds a user by what somebody typed.
func (a *Auth) userNamed(ctx context.Context, name string) (model.User, error) {
	if !storable(name) {
		return model.User{}, model.ErrNotFound
	}
	return a.db.UserByName(ctx, name)
}

// storable says whether a database can have such a text at all.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// rehash stores the password of a user who just gave it as hashes are today.
// Sessions go on.
func (a *Auth) rehash(ctx context.Context, u *model.User, password string) error {
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	if err := a.db.ReplacePasswordHash(ctx, u.ID, u.PasswordHash, hash); err != nil {
		return err
	}
	u.PasswordHash = hash
	return nil
}
