package model

import (
	"context"
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"unicode/utf8"

	"deckhand/cloud/access"
)

func keyRules() rules {
	return rules{
		required: "is_of__actor",
		fixed:    "is_of__actor",
		lengths:  map[string][2]int{"name": {0, 255}, "description": {0, 1000}},
	}
}

func userRules() rules {
	return rules{
		required: "username",
		server:   "actor",
		unseen:   "password",
		secret:   "password",
		lengths:  map[string][2]int{"username": {1, 73}, "email": {5, 254}},
		update: func(_ context.Context, _ *txn, w *write) error {
			if w.changes("username") {
				if err := checkUsername(w.text("username")); err != nil {
					return err
				}
			}
			if w.changes("email") && w.text("email") != "" {
				return checkEmail(w.text("email"))
			}
			return nil
		},
		after: each(func(ctx context.Context, t *txn, w *write) error {
			if w.verb != access.Update || !w.changes("username", "password") {
				return nil
			}
			// Another secret ends all sessions of the user.
			_, err := t.ExecContext(ctx, `UPDATE "user" SET jwt_secret = ? WHERE id = ?`, randomHex(16), w.id)
			return err
		}),
	}
}

func checkUsername(name string) error {
	if !handleRule.MatchString(name) || name == "root" {
		return invalid("username", "A user name is 1 to 73 lower-case letters, digits or underscores, and not root.")
	}
	return nil
}

// checkEmail wants one address without a name. It has an @, so no user name is one.
func checkEmail(email string) error {
	at, err := mail.ParseAddress(email)
	if n := utf8.RuneCountInString(email); err != nil || at.Address != email || n < 5 || n > 254 {
		return invalid("email", "An e-mail address is like me@example.com, with 5 to 254 characters.")
	}
	return nil
}

func publicKeyRules() rules {
	return rules{
		required: "user title public_key",
		fixed:    "user",
		lengths:  map[string][2]int{"title": {1, 120}, "public_key": {1, 2850}},
	}
}

func organizationRules() rules {
	return rules{
		required: "name handle",
		lengths:  map[string][2]int{"name": {1, 220}, "handle": {1, 220}},
		create: func(ctx context.Context, t *txn, w *write) error {
			if w.is("handle") == nil {
				handle, err := t.freeHandle(ctx, w.text("name"))
				if err != nil {
					return err
				}
				w.set["handle"] = handle
			}
			return checkHandle(w.text("handle"))
		},
		update: func(_ context.Context, _ *txn, w *write) error { return checkHandle(w.text("handle")) },
		remove: emptyOrganization,
		after:  each(afterOrganization),
	}
}

var badHandle = regexp.MustCompile(`\W`)

func checkHandle(handle string) error {
	switch {
	case badHandle.MatchString(handle):
		return invalid("handle", "Handles can only contain alphanumeric characters and underscores")
	case strings.ToLower(handle) != handle:
		return invalid("handle", "Handles must be lowercase")
	}
	return nil
}

// freeHandle makes a handle of an organization's name: "My Org" → my_org, or
// my_org_2 when there is one.
func (t *txn) freeHandle(ctx context.Context, name string) (string, error) {
	base := strings.Trim(badHandle.ReplaceAllString(strings.ToLower(name), "_"), "_")
	if base == "" {
		base = "organization"
	}
	handle := base
	for n := 2; ; n++ {
		taken, err := t.exists(ctx, `SELECT 1 FROM organization WHERE handle = ?`, handle)
		if err != nil || !taken {
			return handle, err
		}
		handle = fmt.Sprintf("%s_%d", base, n)
	}
}

func emptyOrganization(ctx context.Context, t *txn, w *write) error {
	has, err := t.exists(ctx, `SELECT 1 FROM application WHERE organization = ?`, w.id)
	if err == nil && has {
		err = &ReferenceError{By: "application"}
	}
	return err
}

func afterOrganization(ctx context.Context, t *txn, w *write) error {
	switch {
	case w.verb == access.Create && (w.by.Role == access.User || w.by.Role == access.UserKey):
		_, err := t.create(ctx, writer{Caller: w.by.Caller, cloud: true}, "organization_membership", Values{"user": w.by.ID, "is_member_of__organization": w.id})
		return err
	case w.verb == access.Update && w.changes("handle"):
		_, err := t.ExecContext(ctx, `UPDATE application SET slug = lower(CAST(? AS TEXT) || '/' || app_name) WHERE organization = ?`, w.text("handle"), w.id)
		return err
	}
	return nil
}

func membershipRules() rules {
	return rules{
		required: "user is_member_of__organization",
		fixed:    "user is_member_of__organization",
		remove: func(ctx context.Context, t *txn, w *write) error {
			others, err := t.exists(ctx, `SELECT 1 FROM organization_membership WHERE is_member_of__organization = ? AND id <> ?`, w.ref("is_member_of__organization"), w.id)
			if err == nil && !others {
				err = invalid("user", "The last member of an organization cannot leave it.")
			}
			return err
		},
	}
}
