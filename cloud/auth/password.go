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
	"time"

	"deckhand/cloud/model"
)

// defaultIterations is what OWASP recommends for PBKDF2 with SHA-256.
const defaultIterations = 600_000

// hashPassword is "pbkdf2-sha256$<iterations>$<salt>$<hash>".
func (a *Auth) hashPassword(password string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails since Go 1.24
	sum, err := pbkdf2.Key(sha256.New, password, salt, a.iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("pbkdf2-sha256$%d$%s$%s", a.iterations, encode(salt), encode(sum)), nil
}

func checkPassword(stored, password string) bool {
	parts := strings.Split(stored, "$")
	if len(parts) != 4 || parts[0] != "pbkdf2-sha256" {
		return false
	}
	iterations, err := strconv.Atoi(parts[1])
	if err != nil || iterations < 1 {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[3])
	if err != nil {
		return false
	}
	got, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
}

const (
	attemptWindow = 2 * time.Hour
	attemptLimit  = 10
	// clientLimit bounds what one address may try over all names.
	clientLimit  = 100
	attemptPause = time.Hour
	// maxRemembered bounds the memory that made-up user names can take.
	maxRemembered = 10_000
)

type attempts struct {
	failed       int
	since, until time.Time
}

// TooManyAttempts refuses a login for a while: answer 429.
type TooManyAttempts struct{ Wait time.Duration }

func (e *TooManyAttempts) Error() string {
	return fmt.Sprintf("too many failed logins; try again in %s", e.Wait.Round(time.Second))
}

// Login checks a password and returns the user. A wrong name or password
// gives ErrUnauthenticated; the tenth within two hours from the same client
// (an address) closes the name to that client for an hour: TooManyAttempts.
func (a *Auth) Login(ctx context.Context, username, password, client string) (model.User, error) {
	named, anyName := username+"\x00"+client, "\x00"+client
	if wait := max(a.blocked(named), a.blocked(anyName)); wait > 0 {
		return model.User{}, &TooManyAttempts{Wait: wait}
	}
	u, err := a.db.UserByName(ctx, username)
	if err != nil && !errors.Is(err, model.ErrNotFound) {
		return model.User{}, fmt.Errorf("log in: %w", err)
	}
	stored := u.PasswordHash
	if err != nil {
		// As much work as for a real user, so that the time does not tell
		// which names exist.
		stored = fmt.Sprintf("pbkdf2-sha256$%d$AAAA$AAAA", a.iterations)
	}
	// Checking is slow on purpose; guessers must not take all processors.
	select {
	case a.checking <- struct{}{}:
	case <-ctx.Done():
		return model.User{}, ctx.Err()
	}
	right := checkPassword(stored, password)
	<-a.checking
	if !right || err != nil {
		a.failed(named, attemptLimit)
		a.failed(anyName, clientLimit)
		return model.User{}, ErrUnauthenticated
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.attempts, named)
	return u, nil
}

func (a *Auth) blocked(key string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.attempts[key]; t != nil {
		return t.until.Sub(a.db.Now())
	}
	return 0
}

func (a *Auth) failed(key string, limit int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.db.Now()
	t := a.attempts[key]
	if t == nil || now.Sub(t.since) > attemptWindow {
		a.forgetOld(now)
		t = &attempts{since: now}
		a.attempts[key] = t
	}
	t.failed++
	if t.failed >= limit {
		t.until = now.Add(attemptPause)
		t.since, t.failed = t.until, 0
	}
}

func (a *Auth) forgetOld(now time.Time) {
	if len(a.attempts) < maxRemembered {
		return
	}
	for k, t := range a.attempts {
		if now.Sub(t.since) > attemptWindow || t.until.IsZero() {
			delete(a.attempts, k)
		}
	}
}
