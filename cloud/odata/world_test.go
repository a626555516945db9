package odata_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/cloud/odata"
)

// populated is a cloud with some rows of every resource: fleets of two users who
// share nothing, and of a third who is a member of both organizations.
type populated struct {
	*cloudtest.World
	carol  model.User
	fleets []model.Fleet // kitchen and cellar are the admin's, attic and a public one bob's
	// keys of devices by their letter: a, b, c of the kitchen, d of the cellar, e
	// and f of the attic
	keys map[string]string
}

func populate(t testing.TB) *populated {
	t.Helper()
	w := cloudtest.New(t, nil)
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	p := &populated{World: w, keys: map[string]string{}}
	p.carol = must(w.DB.CreateUser(t.Context(), "carol", "x", "admin", "bob"))(t)
	for i, owner := range []model.User{w.Admin, w.Admin, w.Bob, w.Bob} {
		p.fleets = append(p.fleets, w.Fleet(owner, []string{"kitchen", "cellar", "attic", "showroom"}[i]))
	}
	p.change("application", p.fleets[3].ID, model.Values{"is_public": true})
	for i, letter := range []string{"a", "b", "c", "d", "e", "f"} {
		_, key := w.Device(p.fleets[[]int{0, 0, 0, 1, 2, 2}[i]], letter)
		p.keys[letter] = key
	}
	for i, f := range p.fleets {
		p.fill(f, i)
	}
	p.devices()
	return p
}

// must is a value without its error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func caller(u model.User) access.Caller {
	return access.Caller{Role: access.User, ID: u.ID, Actor: u.Actor, Name: u.Username}
}

// add makes a row as carol, who may write everything here.
func (p *populated) add(resource string, v model.Values) int64 {
	p.T.Helper()
	id, err := p.DB.Create(p.T.Context(), caller(p.carol), resource, v)
	if err != nil {
		p.T.Fatalf("%s %v: %v", resource, v, err)
	}
	return id
}

func (p *populated) change(resource string, id int64, v model.Values) {
	p.T.Helper()
	n, err := p.DB.Update(p.T.Context(), caller(p.carol), resource, model.Selection{SQL: "t.id = ?", Args: []any{id}}, v)
	if err != nil || n != 1 {
		p.T.Fatalf("%s %d %v: %d %v", resource, id, v, n, err)
	}
}

// ids are those of a resource's rows that hold a condition.
func (p *populated) ids(resource, condition string, args ...any) []int64 {
	p.T.Helper()
	r, _ := model.ResourceNamed(resource)
	id, _ := r.Field("id")
	rows, err := p.DB.Rows(context.Background(), r, []model.Field{id}, "WHERE "+condition+" ORDER BY t.id", args...)
	if err != nil {
		p.T.Fatal(err)
	}
	var all []int64
	for _, row := range rows {
		n, _ := row[0].(int64)
		all = append(all, n)
	}
	return all
}

// fill gives a fleet releases, and what hangs on a fleet and on releases.
func (p *populated) fill(f model.Fleet, i int) {
	p.T.Helper()
	for n := range 3 {
		r, _ := p.Release(f, fmt.Sprintf("%d%db%d", i, i, n), composition)
		p.add("release_tag", model.Values{"release": r.ID, "tag_key": "k" + string(rune('a'+n)), "value": fmt.Sprint("it's ", n)})
		if n == 1 {
			p.change("release", r.ID, model.Values{"is_invalidated": true, "invalidation_reason": "100% bad_"})
		}
	}
	p.Building(f, fmt.Sprint(i, "c"), composition)
	for name, value := range map[string]string{"A": "x", "B": "Ä%_\\", "C": ""} {
		p.add("application_environment_variable", model.Values{"application": f.ID, "name": name, "value": value})
		p.add("application_config_variable", model.Values{"application": f.ID, "name": "BALENA_" + name, "value": value})
		p.add("application_tag", model.Values{"application": f.ID, "tag_key": name, "value": value})
	}
	p.add("build_environment_variable", model.Values{"application": f.ID, "name": "B", "value": "x"})
	for _, service := range p.ids("service", "t.application = ?", f.ID) {
		p.add("service_environment_variable", model.Values{"service": service, "name": "S", "value": "y"})
		p.add("service_label", model.Values{"service": service, "label_name": "l", "value": fmt.Sprint(service)})
	}
	part := p.ids("image__is_part_of__release", "t.is_part_of__release IN (SELECT r.id FROM release r WHERE r.belongs_to__application = ?)", f.ID)[0]
	p.add("image_profile", model.Values{"release_image": part, "profile_name": "debug"})
}

// devices makes the devices differ, and hangs things on them.
func (p *populated) devices() {
	p.T.Helper()
	for i, id := range p.ids("device", "TRUE") {
		for n := range i % 3 {
			p.add("device_tag", model.Values{"device": id, "tag_key": fmt.Sprint("t", n), "value": fmt.Sprint("v", i)})
			p.add("device_environment_variable", model.Values{"device": id, "name": fmt.Sprint("N", n), "value": "z"})
			p.add("device_config_variable", model.Values{"device": id, "name": fmt.Sprint("BALENA_N", n), "value": "1"})
		}
		for n, install := range p.ids("service_install", "t.device = ?", id) {
			p.add("device_service_environment_variable", model.Values{"service_install": install, "name": "D", "value": fmt.Sprint(n)})
		}
		released := p.ids("release", "t.belongs_to__application = (SELECT d.belongs_to__application FROM device d WHERE d.id = ?) AND t.status = 'success'", id)
		for n, image := range p.ids("image", "t.id IN (SELECT p.image FROM image__is_part_of__release p WHERE p.is_part_of__release = ?)", released[0]) {
			install := model.Values{"device": id, "installs__image": image, "is_provided_by__release": released[0], "status": "Downloading", "install_date": time.UnixMilli(1_700_000_000_123)}
			if n == 0 {
				install["download_progress"] = int64(10 * i)
			}
			p.add("image_install", install)
		}
		if i%2 == 0 {
			p.change("device", id, model.Values{"note": "it's 100%", "is_pinned_on__release": released[0], "memory_usage": int64(7 - i), "status": "Downloading"})
		}
		if i%3 == 0 {
			if err := p.DB.SetHeartbeat(p.T.Context(), id, "online", time.UnixMilli(1_750_000_000_000)); err != nil {
				p.T.Fatal(err)
			}
		}
	}
	p.add("user__has__public_key", model.Values{"user": p.carol.ID, "title": "laptop", "public_key": "ssh-ed25519 AAAA"})
}

func TestEveryResourceHasRows(t *testing.T) {
	p := populate(t)
	empty := map[string]bool{ // nobody writes these here
		"actor": true, "application_profile": true, "device_family": true, "device_manufacturer": true, "release_asset": true, "service_instance": true,
	}
	for _, r := range model.Resources() {
		if n := len(rowsOf(p, r)); !r.Elsewhere && !empty[r.Name] && n == 0 {
			t.Errorf("%s has no rows: the other tests say nothing about it", r.Name)
		}
	}
}

func rowsOf(p *populated, r model.Resource) []int64 {
	if r.Elsewhere {
		return nil
	}
	return p.ids(r.Name, "TRUE")
}
