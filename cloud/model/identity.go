package model

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"time"

	"deckhand/cloud/access"
)

// User is a person who may log in.
type User struct {
	ID, Actor       int64
	Username, Email string
	// PasswordHash and JWTSecret never leave the cloud. A new JWTSecret ends
	// every session of the user.
	PasswordHash, JWTSecret string
	CreatedAt               time.Time
}

const userColumns = `id, actor, username, email, password, jwt_secret, created_at`

func scanUser(row interface{ Scan(...any) error }) (User, error) {
	var u User
	var email sql.NullString
	var created sql.NullInt64
	err := row.Scan(&u.ID, &u.Actor, &u.Username, &email, &u.PasswordHash, &u.JWTSecret, &created)
	u.Email, u.CreatedAt = email.String, fromMillis(created)
	return u, err
}

// HasUsers says whether anybody can log in yet.
func (db *DB) HasUsers(ctx context.Context) (bool, error) {
	var n int
	err := db.read.QueryRowContext(ctx, `SELECT count(*) FROM "user"`).Scan(&n)
	return n > 0, err
}

// UserByName finds a user by user name or e-mail address.
func (db *DB) UserByName(ctx context.Context, name string) (User, error) {
	u, err := scanUser(db.read.QueryRowContext(ctx,
		`SELECT `+userColumns+` FROM "user" WHERE username = ? OR email = ? ORDER BY username = ? DESC LIMIT 1`, name, name, name))
	return u, notFound(err, "user %q", name)
}

// UserByID finds a user by id.
func (db *DB) UserByID(ctx context.Context, id int64) (User, error) {
	u, err := scanUser(db.read.QueryRowContext(ctx, `SELECT `+userColumns+` FROM "user" WHERE id = ?`, id))
	return u, notFound(err, "user %d", id)
}

var handleRule = regexp.MustCompile(`^[a-z0-9_]{1,73}$`)

// NewUser describes a person who may log in.
type NewUser struct {
	Username     string
	Email        string // empty: none
	PasswordHash string
	// Organizations are the handles of those that the user becomes a member of, beside
	// its own; "" is none.
	Organizations []string
}

// CreateUser is AddUser without an e-mail address.
func (db *DB) CreateUser(ctx context.Context, username, passwordHash string, handles ...string) (User, error) {
	return db.AddUser(ctx, NewUser{Username: username, PasswordHash: passwordHash, Organizations: handles})
}

// AddUser adds a user and an organization of the same name of which the user is the only
// member, and makes it a member of others. Errors: *ConflictError when name or address
// are somebody else's, ErrNotFound for an unknown organization.
func (db *DB) AddUser(ctx context.Context, n NewUser) (User, error) {
	if err := checkUsername(n.Username); err != nil {
		return User{}, err
	}
	if n.Email != "" {
		if err := checkEmail(n.Email); err != nil {
			return User{}, err
		}
	}
	u := User{Username: n.Username, Email: n.Email, PasswordHash: n.PasswordHash, JWTSecret: randomHex(16)}
	err := db.update(ctx, func(t *txn) error {
		u.CreatedAt = t.now.Truncate(time.Millisecond)
		var err error
		if u.Actor, err = t.newActor(ctx); err != nil {
			return err
		}
		if u.ID, err = t.insertUser(ctx, u); err != nil {
			return err
		}
		by, set := itself(), Values{"username": u.Username, "actor": u.Actor, "password": PasswordHash("")}
		if u.Email != "" {
			set["email"] = u.Email
		}
		if err := t.auditUser(ctx, &write{by: by, verb: access.Create, id: u.ID, set: set}); err != nil {
			return err
		}
		org, err := t.create(ctx, by, "organization", Values{"name": u.Username, "handle": u.Username})
		if err != nil {
			return err
		}
		if err := t.joinOthers(ctx, u, n.Organizations); err != nil {
			return err
		}
		return t.join(ctx, u.ID, org)
	})
	return u, err
}

func (t *txn) insertUser(ctx context.Context, u User) (int64, error) {
	if u.Email != "" {
		taken, err := t.exists(ctx, `SELECT 1 FROM "user" WHERE email = ?`, u.Email)
		if err == nil && taken {
			err = &ConflictError{Fields: []string{"email"}}
		}
		if err != nil {
			return 0, err
		}
	}
	id, err := t.insert(ctx, `INSERT INTO "user" (created_at, actor, username, email, password, jwt_secret) VALUES (?, ?, ?, ?, ?, ?)`,
		millis(t.now), u.Actor, u.Username, text(u.Email), u.PasswordHash, u.JWTSecret)
	return id, conflictOn(err, "username")
}

// joinOthers makes a user a member of the organizations with the given handles.
func (t *txn) joinOthers(ctx context.Context, u User, handles []string) error {
	for _, handle := range handles {
		if handle == "" || handle == u.Username {
			continue
		}
		var other int64
		if err := t.QueryRowContext(ctx, `SELECT id FROM organization WHERE handle = ?`, handle).Scan(&other); err != nil {
			return notFound(err, "organization %q", handle)
		}
		if err := t.join(ctx, u.ID, other); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) join(ctx context.Context, user, organization int64) error {
	_, err := t.create(ctx, itself(), "organization_membership", Values{"user": user, "is_member_of__organization": organization})
	return err
}

// auditUser notes what the cloud does with a user.
func (t *txn) auditUser(ctx context.Context, w *write) error {
	table, _ := ResourceNamed("user")
	return t.audit(ctx, table, userRules(), w)
}

// PasswordHash is a password as it is stored. As the value of a field it says that
// the password was hashed; no other value of a password is taken.
type PasswordHash string

// SetPassword stores a new password hash and ends all sessions of the user.
func (db *DB) SetPassword(ctx context.Context, user int64, passwordHash string) error {
	return db.update(ctx, func(t *txn) error {
		n, err := t.change(ctx, itself(), "user", one(user), Values{"password": PasswordHash(passwordHash)})
		if err == nil && n == 0 {
			err = fmt.Errorf("user %d: %w", user, ErrNotFound)
		}
		return err
	})
}

// ReplacePasswordHash stores another hash of the same password, unless the
// password was changed meanwhile. Sessions go on.
func (db *DB) ReplacePasswordHash(ctx context.Context, user int64, was, is string) error {
	return db.update(ctx, func(t *txn) error {
		_, err := t.ExecContext(ctx, `UPDATE "user" SET password = ? WHERE id = ? AND password = ?`, is, user, was)
		return err
	})
}

// Users are all users, by name.
func (db *DB) Users(ctx context.Context) ([]User, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT `+userColumns+` FROM "user" ORDER BY username`)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanUser)
}

// Handles are the handles of the organizations that a user is a member of.
func (db *DB) Handles(ctx context.Context, user int64) ([]string, error) {
	return column[string](db.read.QueryContext(ctx, `SELECT o.handle FROM organization o
		JOIN organization_membership m ON m.is_member_of__organization = o.id WHERE m."user" = ? ORDER BY o.handle`, user))
}

// DeleteUser removes a user with keys, sessions and memberships, and the
// organizations that nobody else is a member of and that have no fleets. An
// organization whose fleets would be left to nobody keeps the user: ErrInvalid
// says which.
func (db *DB) DeleteUser(ctx context.Context, user int64) error {
	const alone = `SELECT m.is_member_of__organization FROM organization_membership m WHERE m."user" = ? AND NOT EXISTS
		(SELECT 1 FROM organization_membership o WHERE o.is_member_of__organization = m.is_member_of__organization AND o."user" <> m."user")`
	return db.update(ctx, func(t *txn) error {
		var handle string
		err := t.QueryRowContext(ctx, `SELECT o.handle FROM organization o WHERE o.id IN (`+alone+`)
			AND EXISTS (SELECT 1 FROM application a WHERE a.organization = o.id) ORDER BY o.handle LIMIT 1`, user).Scan(&handle)
		if err == nil {
			return invalid("user", "The fleets of organization %s would be left to nobody; delete them, or make somebody else a member.", handle)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if _, err := t.remove(ctx, itself(), "organization", Selection{SQL: "t.id IN (" + alone + ")", Args: []any{user}}); err != nil {
			return err
		}
		var actor int64
		if err := t.QueryRowContext(ctx, `SELECT actor FROM "user" WHERE id = ?`, user).Scan(&actor); err != nil {
			return notFound(err, "user %d", user)
		}
		if _, err := t.remove(ctx, itself(), "user", one(user)); err != nil {
			return err
		}
		_, err = t.ExecContext(ctx, `DELETE FROM actor WHERE id = ?`, actor)
		return err
	})
}

// Credentials is the kind of topic that tells that keys or sessions of an actor
// became invalid or changed.
const Credentials TopicKind = "credentials"

// The ids of topics of kind Credentials that are not those of one actor.
const (
	anyCredentials = 0  // somebody's: changes with all others
	allCredentials = -1 // everybody's
)

// CredentialTopics together cover all that makes a credential of the actor invalid.
func CredentialTopics(actor int64) []Topic {
	return []Topic{{Credentials, actor}, {Credentials, allCredentials}}
}

// AnyCredentialTopic changes with each credential of anybody.
func AnyCredentialTopic() Topic { return Topic{Credentials, anyCredentials} }

// announceCredentials is for whatever removes or changes keys, passwords, or
// actors: users, devices, fleets. Without actors it means those of everybody.
func (t *txn) announceCredentials(actors ...int64) {
	t.announce(AnyCredentialTopic())
	for _, actor := range actors {
		t.announce(Topic{Credentials, actor})
	}
	if len(actors) == 0 {
		t.announce(Topic{Credentials, allCredentials})
	}
}

// announceIdentity tells of credentials that a change or a deletion of a row
// makes invalid, or gives to somebody with another name.
func (t *txn) announceIdentity(table Resource, w *write) {
	switch table.Name {
	case "api_key":
		t.announceCredentials(w.ref("is_of__actor"))
	case "user":
		t.announceCredentials(w.ref("actor"))
	case "device":
		if w.verb == access.Delete {
			t.announceCredentials(w.ref("actor"))
		}
	case "application":
		if w.verb == access.Delete { // with all its devices
			t.announceCredentials()
		}
	}
}

func (t *txn) newActor(ctx context.Context) (int64, error) {
	return t.insert(ctx, `INSERT INTO actor (created_at) VALUES (?)`, millis(t.now))
}

// Role is what an API key is for.
type Role string

const (
	// RoleUser keys act as their user.
	RoleUser Role = "named-user-api-key"
	// RoleDevice keys act as one device.
	RoleDevice Role = "device-api-key"
	// RoleProvisioning keys may add devices to one fleet, nothing else.
	RoleProvisioning Role = "provisioning-api-key"
)

// NewKey describes an API key to store.
type NewKey struct {
	Key               string // clear text; only its hash is stored
	Actor             int64
	Role              Role
	Name, Description string
	Expiry            time.Time // zero: never
	// By is who makes it, for the audit log.
	By access.Caller
}

// KeyOwner is whom a key belongs to: exactly one of User, Device, Fleet is set.
type KeyOwner struct {
	Role                Role
	Actor               int64
	User, Device, Fleet int64
	Name                string    // user name, device uuid or fleet slug
	Expiry              time.Time // zero: never
}

// HashKey is how an API key is stored. Keys are long and random, so one
// round of SHA-256 is enough.
func HashKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// AddKey stores an API key.
func (db *DB) AddKey(ctx context.Context, k NewKey) error {
	return db.update(ctx, func(t *txn) error { return t.addKey(ctx, k) })
}

func (t *txn) addKey(ctx context.Context, k NewKey) error {
	id, err := t.insert(ctx, `INSERT INTO api_key (created_at, key_hash, role, name, description, expiry_date, is_of__actor) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		millis(t.now), HashKey(k.Key), string(k.Role), text(k.Name), text(k.Description), millis(k.Expiry), k.Actor)
	if err != nil {
		return conflictOn(err, "key")
	}
	return t.auditKey(ctx, id, k)
}

// OwnerOfKey finds whom a key belongs to. An expired key is not found.
func (db *DB) OwnerOfKey(ctx context.Context, key string) (KeyOwner, error) {
	var o KeyOwner
	var role string
	var user, device, fleet, expiry sql.NullInt64
	err := db.read.QueryRowContext(ctx, `
		SELECT k.role, k.is_of__actor, k.expiry_date, u.id, d.id, a.id, coalesce(u.username, d.uuid, a.slug, '')
		FROM api_key k
		LEFT JOIN "user" u ON u.actor = k.is_of__actor
		LEFT JOIN device d ON d.actor = k.is_of__actor
		LEFT JOIN application a ON a.actor = k.is_of__actor
		WHERE k.key_hash = ? AND (k.expiry_date IS NULL OR k.expiry_date > ?)`,
		HashKey(key), millis(db.Now())).Scan(&role, &o.Actor, &expiry, &user, &device, &fleet, &o.Name)
	o.Role, o.User, o.Device, o.Fleet, o.Expiry = Role(role), user.Int64, device.Int64, fleet.Int64, fromMillis(expiry)
	return o, notFound(err, "key")
}
