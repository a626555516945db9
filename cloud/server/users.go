package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// Users is the people of a cloud that is not running. Close it.
type Users struct {
	db   *model.DB
	auth *auth.Auth
}

// OpenUsers opens the users of the cloud in dataDir, or of the cloud whose
// PostgreSQL database has the given URL.
func OpenUsers(ctx context.Context, dataDir, database string) (*Users, error) {
	cfg, err := existing(dataDir, database)
	if err != nil {
		return nil, fmt.Errorf("open users: %w", err)
	}
	db, err := model.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	identity, err := auth.New(auth.Config{DB: db, KeyDir: filepath.Join(dataDir, "keys")})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Users{db: db, auth: identity}, nil
}

// Close lets go of the cloud.
func (u *Users) Close() error { return u.db.Close() }

// Person is a user and the handles of the organizations that it is a member of.
type Person struct {
	Name, Email   string
	Organizations []string
}

// List is all users, by name.
func (u *Users) List(ctx context.Context) ([]Person, error) {
	users, err := u.db.Users(ctx)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	people := make([]Person, len(users))
	for i, user := range users {
		handles, err := u.db.Handles(ctx, user.ID)
		if err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		people[i] = Person{user.Username, user.Email, handles}
	}
	return people, nil
}

// Add makes a user with an organization of the same name, a member of another
// one as well when that is given, and returns the password, which is stored
// nowhere in clear text. Who has an e-mail address may log in with it.
func (u *Users) Add(ctx context.Context, name, email, organization string) (password string, err error) {
	password, err = u.auth.AddUser(ctx, model.NewUser{Username: name, Email: email, Organizations: []string{organization}})
	if err != nil {
		return "", fmt.Errorf("add user %s: %w", name, err)
	}
	return password, nil
}

// ResetPassword gives a user a new password, ends its sessions, and returns the
// password.
func (u *Users) ResetPassword(ctx context.Context, name string) (password string, err error) {
	return u.auth.ResetPassword(ctx, name)
}

// Delete removes a user with its keys.
func (u *Users) Delete(ctx context.Context, name string) error {
	user, err := u.db.UserByName(ctx, name)
	if err == nil {
		err = u.db.DeleteUser(ctx, user.ID)
	}
	if err != nil {
		return fmt.Errorf("delete user %s: %w", name, err)
	}
	return nil
}
