package model_test

import (
	"errors"
	"strings"
	"testing"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// An e-mail address is one person's, and names it like the user name.
func TestUsersHaveAddresses(t *testing.T) {
	w := cloudtest.New(t, nil)
	ctx := t.Context()
	eve, err := w.DB.AddUser(ctx, model.NewUser{Username: "eve", Email: "eve@example.test", PasswordHash: "x", Organizations: []string{"bob"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eve", "eve@example.test"} {
		if u, err := w.DB.UserByName(ctx, name); err != nil || u.ID != eve.ID || u.Email != "eve@example.test" {
			t.Errorf("%s is %+v, %v", name, u, err)
		}
	}
	_, err = w.DB.AddUser(ctx, model.NewUser{Username: "mallory", Email: "eve@example.test", PasswordHash: "x"})
	if !errors.Is(err, model.ErrConflict) || !strings.Contains(err.Error(), `"email"`) {
		t.Errorf("the same address again: %v", err)
	}
	if _, err := w.DB.UserByName(ctx, "mallory"); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("she is there all the same: %v", err)
	}
}

// What is no address is refused, however it gets there.
func TestAddressesOfUsersAreChecked(t *testing.T) {
	w := cloudtest.New(t, nil)
	ctx := t.Context()
	eve, err := w.DB.CreateUser(ctx, "eve", "x")
	if err != nil {
		t.Fatal(err)
	}
	by := access.Caller{Role: access.User, ID: eve.ID, Actor: eve.Actor, Name: "eve"}
	me := model.Selection{SQL: "t.id = ?", Args: []any{eve.ID}}
	for address, valid := range map[string]bool{
		"e@example.test": true, "eve+cloud@example.test": true, "ève@example.test": true,
		"eve": false, "e@b": false, "Eve <e@example.test>": false, "a@example.test, b@example.test": false, "e@example.test\n": false,
		strings.Repeat("e", 250) + "@x.test": false,
	} {
		nobody, err := w.DB.AddUser(ctx, model.NewUser{Username: "nobody", Email: address, PasswordHash: "x"})
		if err == nil && w.DB.DeleteUser(ctx, nobody.ID) != nil {
			t.Fatal("the user stays")
		}
		_, changed := w.DB.Update(ctx, by, "user", me, model.Values{"email": address})
		if (err == nil) != valid || (changed == nil) != valid {
			t.Errorf("%q: %v when a user is made, %v when it is changed", address, err, changed)
		}
	}
	if _, err := w.DB.Update(ctx, by, "user", me, model.Values{"email": nil}); err != nil {
		t.Errorf("an address is taken away: %v", err)
	}
}
