package versions

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// SQL for what older versions said in a text and newer ones by a reference.
const (
	targetCommit  = `SELECT r."commit" FROM release r WHERE r.id = t.should_be_running__release`
	runningCommit = `SELECT r."commit" FROM release r WHERE r.id = t.is_running__release`
	fleetType     = `SELECT y.slug FROM device_type y WHERE y.id = t.is_for__device_type`
	deviceType    = `SELECT y.slug FROM device_type y WHERE y.id = t.is_of__device_type`
	firstMember   = `SELECT m."user" FROM organization_membership m WHERE m.is_member_of__organization = t.organization ORDER BY m.id LIMIT 1`
)

func said(name, sql string) model.Field {
	return model.Field{Name: name, Kind: model.Text, Expression: sql}
}

// v5 is what v6 changed: releases and device types became references, and variables
// lost the prefix of their name.
func v5(six Version) Version {
	v := six.next("v5")
	for name := range v.Resources {
		if isVariable(name) {
			v.of(name, func(r *model.Resource) { renamed(r, "name", "env_var_name") })
		}
	}
	for _, name := range []string{"application", "my_application"} {
		v.of(name, func(r *model.Resource) {
			lacks(r, "should_be_running__release", "is_for__device_type")
			has(r, said("commit", targetCommit))
			has(r, said("device_type", fleetType))
		})
	}
	v.of("device", func(r *model.Resource) {
		lacks(r, "is_running__release", "is_of__device_type")
		has(r, said("is_on__commit", runningCommit))
		has(r, said("device_type", deviceType))
	})
	v.writing("*", func(_ context.Context, _ Lookup, r query.Request, f Fields) error {
		if isVariable(r.Resource) {
			move(f, "env_var_name", "name")
		}
		return nil
	})
	v.writing("application", func(ctx context.Context, l Lookup, r query.Request, f Fields) error {
		return releaseByCommit(ctx, l, r, f, "commit", "should_be_running__release")
	})
	v.writing("device", func(ctx context.Context, l Lookup, r query.Request, f Fields) error {
		return releaseByCommit(ctx, l, r, f, "is_on__commit", "is_running__release")
	})
	return v
}

func isVariable(resource string) bool { return strings.HasSuffix(resource, "_variable") }

// releaseByCommit finds the release that an older client names by its commit. One
// that is not known is none, as it was then.
func releaseByCommit(ctx context.Context, l Lookup, r query.Request, f Fields, from, to string) error {
	commit, ok, err := text(f, from)
	if err != nil {
		return err
	}
	if !ok {
		move(f, from, to) // null, or not there
		return nil
	}
	owner, isID := idOf(r)
	if !isID {
		return refuse(from + " can be written to one " + r.Resource + " at a time, by its id.")
	}
	id, err := l.Release(ctx, r.Resource, owner, commit)
	if err != nil {
		return err
	}
	delete(f, from)
	f[to] = json.RawMessage("null")
	if id != 0 {
		f[to] = json.RawMessage(strconv.FormatInt(id, 10))
	}
	return nil
}

// idOf is the id by which a request names its row.
func idOf(r query.Request) (int64, bool) {
	if len(r.Key) != 1 || r.Key[0].Name != "" {
		return 0, false
	}
	id, ok := r.Key[0].Value.Value.(int64)
	return id, ok
}

// v4 is what v5 changed: applications belonged to a user.
func v4(five Version) Version {
	v := five.next("v4")
	for _, name := range []string{"application", "my_application"} {
		v.of(name, func(r *model.Resource) {
			lacks(r, "organization")
			owned(r)
		})
	}
	v.drop("organization", "organization_membership")
	v.writing("application", func(_ context.Context, _ Lookup, _ query.Request, f Fields) error {
		delete(f, "user") // it belongs to the caller's organization
		return nil
	})
	return v
}

// owned gives an application a user: the first member of its organization.
func owned(r *model.Resource) {
	has(r, model.Field{Name: "user", Kind: model.Reference, Expression: firstMember})
	r.Navs = append(r.Navs, model.Nav{Name: "user", To: "user", Local: "user", Remote: "id"})
}
