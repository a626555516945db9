package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"deckhand/cloud/access"
	"deckhand/cloud/model"
)

// Config is what Auth needs.
type Config struct {
	DB *model.DB
	// KeyDir is the folder of the signing keys; it and they are made when missing.
	KeyDir string
	// Issuer is the iss claim of registry tokens; "deckhand-cloud" when empty.
	Issuer string
	// Service is the aud claim of registry tokens; "deckhand-registry" when empty.
	Service string
	// PasswordMemory is how much memory in KiB a password hash takes, and so
	// how long; the recommended 19 MiB when 0. Tests set it low.
	PasswordMemory uint32
	// BuilderSecret is the password with which builders outside of this process
	// get tokens for every image; none when empty, else at least 32 characters.
	BuilderSecret string
	// VPNKey is the key of VPN servers, which tell who is connected; none when
	// empty, else at least 32 characters.
	VPNKey string
	// Limits are how often clients may do things; generous ones when zero.
	Limits Limits
	// TrustedProxies are addresses of proxies: what they say in X-Forwarded-For
	// is who the client is.
	TrustedProxies []netip.Prefix
}

// Auth authenticates requests and signs tokens.
type Auth struct {
	db         *model.DB
	issuer     string
	service    string
	cost       cost
	nobody     string // a password hash that no password has
	builder    []byte // SHA-256 of the builder's secret; empty: there is none
	vpn        []byte // the same of the VPN servers' key
	sessionKey []byte
	registry   *ecdsa.PrivateKey
	files      registryFiles
	kid        string

	cache          *cache
	limits         Limits
	proxies        []netip.Prefix
	writes, wrong  buckets       // by actor; by address, credentials that are not valid
	names, clients attempts      // failed logins
	checking       chan struct{} // a place for each password that is being checked
}

// minServiceSecret is the fewest characters of a secret that the operator chooses.
const minServiceSecret = 32

// serviceSecret is what is kept of a secret that the operator chose for a service.
func serviceSecret(secret, whose string) ([]byte, error) {
	if secret == "" {
		return nil, nil
	}
	if len(secret) < minServiceSecret {
		return nil, fmt.Errorf("read the secret of %s: it has fewer than %d characters; take a longer one", whose, minServiceSecret)
	}
	sum := sha256.Sum256([]byte(secret))
	return sum[:], nil
}

// isService says whether a credential is the one that is kept.
func isService(kept []byte, secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	return len(kept) > 0 && subtle.ConstantTimeCompare(sum[:], kept) == 1
}

// isBuilder says whether a credential is the builder's secret.
func (a *Auth) isBuilder(secret string) bool { return isService(a.builder, secret) }

// New reads or makes the signing keys.
func New(cfg Config) (*Auth, error) {
	a := &Auth{db: cfg.DB, issuer: cfg.Issuer, service: cfg.Service, cost: defaultCost(), checking: make(chan struct{}, 2),
		cache: newCache(cfg.DB.Changes()), limits: cfg.Limits.orDefault(), proxies: cfg.TrustedProxies,
		names:   attempts{limit: 10, window: 2 * time.Hour, pause: time.Hour},
		clients: attempts{limit: 100, window: 2 * time.Hour, pause: time.Hour},
	}
	if a.issuer == "" {
		a.issuer = "deckhand-cloud"
	}
	if a.service == "" {
		a.service = "deckhand-registry"
	}
	var err error
	if a.builder, err = serviceSecret(cfg.BuilderSecret, "builders"); err != nil {
		return nil, err
	}
	if a.vpn, err = serviceSecret(cfg.VPNKey, "VPN servers"); err != nil {
		return nil, err
	}
	if cfg.PasswordMemory != 0 {
		a.cost.memory = cfg.PasswordMemory
	}
	a.nobody = hashPassword(NewSecret(20), a.cost)
	if err := a.loadKeys(cfg.KeyDir); err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	return a, nil
}

// Kind is what sort of caller an Actor is.
type Kind int

const (
	// None: no credential, or one that is not valid.
	None Kind = iota
	// User: a person, by session or key.
	User
	// Device: a device, by its own key.
	Device
	// Fleet: a provisioning key, which may only add devices to its fleet.
	Fleet
	// VPN: a VPN server.
	VPN
)

// Actor is the caller of a request.
type Actor struct {
	Kind Kind
	ID   int64  // of the user, device or fleet
	Name string // user name, device uuid or fleet slug
	// ActorID is the id in the actor table.
	ActorID int64
	// Key says that an API key was used and not a session: some routes want one.
	Key bool

	authTime time.Time // when the password was given, of a session
}

// Is says whether the actor is of that kind with that id.
func (a Actor) Is(kind Kind, id int64) bool { return a.Kind == kind && a.ID == id }

// Caller is the actor as the permissions see it.
func (a Actor) Caller() access.Caller {
	c := access.Caller{Role: access.Guest, ID: a.ID, Actor: a.ActorID, Name: a.Name}
	switch a.Kind {
	case None:
	case User:
		c.Role = access.User
		if a.Key {
			c.Role = access.UserKey
		}
	case Device:
		c.Role = access.Device
	case Fleet:
		c.Role = access.Provisioning
	case VPN:
		c.Role = access.VPN
	}
	return c
}

// ErrUnauthenticated says that no credential was given or that it is not
// valid: answer 401. Any other error of Authenticate is a failure of the cloud.
var ErrUnauthenticated = errors.New("no valid credential")

// Identify finds the caller by a session, an API key or the key of VPN servers. Errors: ErrUnauthenticated;
// *TooManyAttempts when the request's address sent too many that are not valid.
func (a *Auth) Identify(ctx context.Context, secret string) (Actor, error) {
	if secret == "" || len(secret) > maxCredential {
		return Actor{}, a.invalid(ctx, secret)
	}
	if isService(a.vpn, secret) {
		return Actor{Kind: VPN, Name: "vpn", Key: true}, nil
	}
	sum, now := digest(sha256.Sum256([]byte(secret))), a.db.Now()
	actor, stale, ok := a.cache.find(sum, now)
	if ok {
		return actor, nil
	}
	// Who was known goes on, whatever others at the same address send.
	if !stale {
		if err := a.mayTry(ctx); err != nil {
			return Actor{}, err
		}
	}
	before := a.cache.changed()
	actor, until, err := a.lookUp(ctx, secret)
	if errors.Is(err, ErrUnauthenticated) {
		a.cache.forget(sum)
		return Actor{}, a.invalid(ctx, secret)
	}
	if err != nil {
		return Actor{}, err
	}
	if end := now.Add(cacheLife); until.IsZero() || until.After(end) {
		until = end
	}
	a.cache.remember(sum, actor, until, before)
	return actor, nil
}

// lookUp finds the caller in the database; until is when the credential
// expires, zero: never.
func (a *Auth) lookUp(ctx context.Context, secret string) (actor Actor, until time.Time, err error) {
	if strings.Count(secret, ".") == 2 {
		return a.session(ctx, secret)
	}
	o, err := a.db.OwnerOfKey(ctx, secret)
	if errors.Is(err, model.ErrNotFound) {
		return Actor{}, until, ErrUnauthenticated
	}
	if err != nil {
		return Actor{}, until, fmt.Errorf("look up key: %w", err)
	}
	actor = Actor{Name: o.Name, ActorID: o.Actor, Key: true}
	switch {
	case o.Role == model.RoleUser && o.User != 0:
		actor.Kind, actor.ID = User, o.User
	case o.Role == model.RoleDevice && o.Device != 0:
		actor.Kind, actor.ID = Device, o.Device
	case o.Role == model.RoleProvisioning && o.Fleet != 0:
		actor.Kind, actor.ID = Fleet, o.Fleet
	default:
		return Actor{}, until, ErrUnauthenticated
	}
	return actor, o.Expiry, nil
}

// sessionLife is how long a login lasts.
const sessionLife = 7 * 24 * time.Hour

// sudoAge is for how long after the password was given a session may make keys
// that act as the user.
const sudoAge = 20 * time.Minute

type sessionClaims struct {
	ID       int64  `json:"id"`
	Secret   string `json:"jwt_secret"`
	AuthTime int64  `json:"authTime"` // milliseconds since 1970
	jwt.RegisteredClaims
}

// NewSession is a session of a user who just gave the password, as a signed
// token: good for seven days or until the password changes.
func (a *Auth) NewSession(u model.User) (string, error) { return a.sign(u, a.db.Now()) }

// AnotherSession is one more session of a person who has one: good for seven days, and
// for what needs a fresh password no longer than the first.
func (a *Auth) AnotherSession(ctx context.Context, actor Actor) (string, error) {
	if actor.Kind != User || actor.Key {
		return "", ErrUnauthenticated
	}
	u, err := a.db.UserByID(ctx, actor.ID)
	if err != nil {
		return "", fmt.Errorf("look up user: %w", err)
	}
	return a.sign(u, actor.authTime)
}

// sign makes a token that starts now, for a password that was given then.
func (a *Auth) sign(u model.User, then time.Time) (string, error) {
	now := a.db.Now()
	claims := sessionClaims{ID: u.ID, Secret: u.JWTSecret, AuthTime: then.UnixMilli(),
		RegisteredClaims: jwt.RegisteredClaims{IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(sessionLife))}}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(a.sessionKey)
	if err != nil {
		return "", fmt.Errorf("sign session: %w", err)
	}
	return token, nil
}

func (a *Auth) session(ctx context.Context, token string) (actor Actor, until time.Time, err error) {
	var claims sessionClaims
	if _, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return a.sessionKey, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(a.db.Now)); err != nil {
		return Actor{}, until, ErrUnauthenticated
	}
	u, err := a.db.UserByID(ctx, claims.ID)
	if errors.Is(err, model.ErrNotFound) {
		return Actor{}, until, ErrUnauthenticated
	}
	if err != nil {
		return Actor{}, until, fmt.Errorf("look up session: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(u.JWTSecret), []byte(claims.Secret)) != 1 {
		return Actor{}, until, ErrUnauthenticated
	}
	return Actor{Kind: User, ID: u.ID, Name: u.Username, ActorID: u.Actor, authTime: time.UnixMilli(claims.AuthTime)}, claims.ExpiresAt.Time, nil
}

// FirstLogin makes the owner of a new cloud and returns the password, which
// is stored nowhere in clear text: show it once. It returns "" when somebody
// can log in already.
func (a *Auth) FirstLogin(ctx context.Context) (username, password string, err error) {
	has, err := a.db.HasUsers(ctx)
	if err != nil || has {
		return "", "", err
	}
	password = NewSecret(20)
	hash, err := a.hash(ctx, password)
	if err != nil {
		return "", "", err
	}
	if _, err := a.db.CreateUser(ctx, "admin", hash); errors.Is(err, model.ErrConflict) {
		return "", "", nil // another server on this database was first, and showed it
	} else if err != nil {
		if has, _ := a.db.HasUsers(ctx); has {
			return "", "", nil // another server on the same database was first, and shows it
		}
		return "", "", fmt.Errorf("create the first user: %w", err)
	}
	return "admin", password, nil
}

// AddUser makes a user with an organization of the same name and a random password,
// which it returns. The user's PasswordHash is made here.
func (a *Auth) AddUser(ctx context.Context, u model.NewUser) (password string, err error) {
	password = NewSecret(20)
	if u.PasswordHash, err = a.hash(ctx, password); err != nil {
		return "", err
	}
	_, err = a.db.AddUser(ctx, u)
	return password, err
}

// ResetPassword gives a user a new random password, ends the user's sessions,
// and returns the password.
func (a *Auth) ResetPassword(ctx context.Context, username string) (string, error) {
	u, err := a.db.UserByName(ctx, username)
	if err != nil {
		return "", err
	}
	password := NewSecret(20)
	hash, err := a.hash(ctx, password)
	if err != nil {
		return "", err
	}
	return password, a.db.SetPassword(ctx, u.ID, hash)
}

// NewKey makes an API key for an actor and returns it; the key is not stored
// in clear text.
func (a *Auth) NewKey(ctx context.Context, k model.NewKey) (string, error) {
	if k.Key == "" {
		k.Key = NewSecret(32)
	}
	return k.Key, a.db.AddKey(ctx, k)
}

// NewSecret is n random letters and digits.
func NewSecret(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, n)
	for i := range b {
		// crypto/rand never fails since Go 1.24.
		k, _ := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		b[i] = letters[k.Int64()]
	}
	return string(b)
}
