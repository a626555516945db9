package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
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
	// PasswordIterations is the cost of a password hash; the recommended
	// number when 0. Tests set it low.
	PasswordIterations int
}

// Auth authenticates requests and signs tokens.
type Auth struct {
	db         *model.DB
	issuer     string
	service    string
	iterations int
	sessionKey []byte
	registry   *ecdsa.PrivateKey
	files      registryFiles
	kid        string

	mu       sync.Mutex
	attempts map[string]*attempts

	checking chan struct{} // a place for each password that is being checked
}

// New reads or makes the signing keys.
func New(cfg Config) (*Auth, error) {
	a := &Auth{db: cfg.DB, issuer: cfg.Issuer, service: cfg.Service, iterations: cfg.PasswordIterations, attempts: map[string]*attempts{}, checking: make(chan struct{}, 2)}
	if a.issuer == "" {
		a.issuer = "deckhand-cloud"
	}
	if a.service == "" {
		a.service = "deckhand-registry"
	}
	if a.iterations == 0 {
		a.iterations = defaultIterations
	}
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
	}
	return c
}

// ErrUnauthenticated says that no credential was given or that it is not
// valid: answer 401. Any other error of Authenticate is a failure of the cloud.
var ErrUnauthenticated = errors.New("no valid credential")

// Authenticate finds the caller of a request by its Authorization header
// (Bearer session or key, Basic with the key as password) or its apikey
// query parameter. Without a valid credential the actor has kind None and
// the error is ErrUnauthenticated.
func (a *Auth) Authenticate(r *http.Request) (Actor, error) {
	return a.Identify(r.Context(), credential(r))
}

// Identify finds the caller by a session or an API key.
func (a *Auth) Identify(ctx context.Context, secret string) (Actor, error) {
	if secret == "" || len(secret) > 4096 {
		return Actor{}, ErrUnauthenticated
	}
	if strings.Count(secret, ".") == 2 {
		return a.session(ctx, secret)
	}
	o, err := a.db.OwnerOfKey(ctx, secret)
	if errors.Is(err, model.ErrNotFound) {
		return Actor{}, ErrUnauthenticated
	}
	if err != nil {
		return Actor{}, fmt.Errorf("look up key: %w", err)
	}
	actor := Actor{Name: o.Name, ActorID: o.Actor, Key: true}
	switch {
	case o.Role == model.RoleUser && o.User != 0:
		actor.Kind, actor.ID = User, o.User
	case o.Role == model.RoleDevice && o.Device != 0:
		actor.Kind, actor.ID = Device, o.Device
	case o.Role == model.RoleProvisioning && o.Fleet != 0:
		actor.Kind, actor.ID = Fleet, o.Fleet
	default:
		return Actor{}, ErrUnauthenticated
	}
	return actor, nil
}

// credential is the session or key of a request, "" when there is none.
func credential(r *http.Request) string {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch strings.ToLower(scheme) {
	case "bearer":
		return strings.TrimSpace(value)
	case "basic":
		_, password, _ := r.BasicAuth()
		return password
	}
	return r.URL.Query().Get("apikey")
}

// sessionLife is how long a login lasts.
const sessionLife = 7 * 24 * time.Hour

type sessionClaims struct {
	ID       int64  `json:"id"`
	Secret   string `json:"jwt_secret"`
	AuthTime int64  `json:"authTime"` // milliseconds since 1970
	Username string `json:"username"`
	jwt.RegisteredClaims
}

// NewSession is a session of the user as a signed token, good for seven days
// or until the user's password changes.
func (a *Auth) NewSession(u model.User) (string, error) {
	now := a.db.Now()
	claims := sessionClaims{ID: u.ID, Secret: u.JWTSecret, AuthTime: now.UnixMilli(), Username: u.Username,
		RegisteredClaims: jwt.RegisteredClaims{IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(sessionLife))}}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(a.sessionKey)
	if err != nil {
		return "", fmt.Errorf("sign session: %w", err)
	}
	return token, nil
}

func (a *Auth) session(ctx context.Context, token string) (Actor, error) {
	var claims sessionClaims
	_, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return a.sessionKey, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(a.db.Now))
	if err != nil {
		return Actor{}, ErrUnauthenticated
	}
	u, err := a.db.UserByID(ctx, claims.ID)
	if errors.Is(err, model.ErrNotFound) {
		return Actor{}, ErrUnauthenticated
	}
	if err != nil {
		return Actor{}, fmt.Errorf("look up session: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(u.JWTSecret), []byte(claims.Secret)) != 1 {
		return Actor{}, ErrUnauthenticated
	}
	return Actor{Kind: User, ID: u.ID, Name: u.Username, ActorID: u.Actor}, nil
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
	hash, err := a.hashPassword(password)
	if err != nil {
		return "", "", err
	}
	if _, err := a.db.CreateUser(ctx, "admin", hash); err != nil {
		return "", "", fmt.Errorf("create the first user: %w", err)
	}
	return "admin", password, nil
}

// ResetPassword gives a user a new random password, ends the user's sessions,
// and returns the password.
func (a *Auth) ResetPassword(ctx context.Context, username string) (string, error) {
	u, err := a.db.UserByName(ctx, username)
	if err != nil {
		return "", err
	}
	password := NewSecret(20)
	hash, err := a.hashPassword(password)
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
