package access_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/cloud/odata"
)

// sample is how a row of a resource is made for an owner: "1" is the row that
// exists, others are tries to make one more.
type sample struct {
	resource string
	of       string // organization, fleet or device
	values   func(ids ids, n string) model.Values
}

// ids are those of an owner's rows, and of what the owner belongs to. What has a
// 2 behind its name is spare: a pair with it does not exist yet.
type ids map[string]int64

func (i ids) other(resource, n string) int64 {
	if id, ok := i[resource+" 2"]; ok && n != "1" {
		return id
	}
	return i[resource]
}

// under is rows below a parent; # stands for n.
func under(parent, field string, rest model.Values) func(ids, string) model.Values {
	return func(i ids, n string) model.Values {
		v := model.Values{field: i[parent]}
		for name, value := range rest {
			if s, ok := value.(string); ok {
				value = strings.ReplaceAll(s, "#", n)
			}
			v[name] = value
		}
		return v
	}
}

func began() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

// samples are in the order in which rows are made: what belongs to something
// comes after it.
func samples() []sample {
	variable := model.Values{"name": "V#", "value": "1"}
	config := model.Values{"name": "BALENA_HOST_CONFIG_#", "value": "1"}
	label := model.Values{"label_name": "label#", "value": "1"}
	tag := model.Values{"tag_key": "key#", "value": "1"}
	return []sample{
		{"organization", "organization", func(_ ids, n string) model.Values { return model.Values{"name": "org" + n, "handle": "org" + n} }},
		{"organization_membership", "organization", func(i ids, _ string) model.Values {
			return model.Values{"user": i["carol"], "is_member_of__organization": i["organization"]}
		}},
		{"user__has__public_key", "organization", under("user", "user", model.Values{"title": "key#", "public_key": "ssh-ed25519 AAAA#"})},
		{"application", "organization", under("organization", "organization", model.Values{"app_name": "fleet-#", "is_for__device_type": int64(1)})},
		{"application_config_variable", "fleet", under("application", "application", config)},
		{"application_environment_variable", "fleet", under("application", "application", variable)},
		{"application_profile", "fleet", func(i ids, n string) model.Values {
			return model.Values{"application": i["application"], "on__application": i["application"], "activates__profile_name": "profile" + n}
		}},
		{"application_tag", "fleet", under("application", "application", tag)},
		{"build_environment_variable", "fleet", under("application", "application", variable)},
		{"service", "fleet", under("application", "application", model.Values{"service_name": "service#"})},
		{"service_environment_variable", "fleet", under("service", "service", variable)},
		{"service_label", "fleet", under("service", "service", label)},
		{"release", "fleet", func(i ids, n string) model.Values {
			return model.Values{"belongs_to__application": i["application"], "commit": fmt.Sprintf("%x", n), "composition": json.RawMessage(`{"services":{}}`),
				"status": "success", "source": "cloud", "start_timestamp": began(), "semver": "1.0.0"}
		}},
		{"release_asset", "fleet", under("release", "release", model.Values{"asset_key": "asset#"})},
		{"release_tag", "fleet", under("release", "release", tag)},
		{"image", "fleet", under("service", "is_a_build_of__service", model.Values{"status": "running", "start_timestamp": began()})},
		{"image__is_part_of__release", "fleet", func(i ids, n string) model.Values {
			return model.Values{"is_part_of__release": i["release"], "image": i.other("image", n)}
		}},
		{"image_environment_variable", "fleet", under("image__is_part_of__release", "release_image", variable)},
		{"image_label", "fleet", under("image__is_part_of__release", "release_image", label)},
		{"image_profile", "fleet", under("image__is_part_of__release", "release_image", model.Values{"profile_name": "profile#"})},
		{"device", "fleet", under("application", "belongs_to__application", model.Values{"is_of__device_type": int64(1)})},
		{"device_config_variable", "device", under("device", "device", config)},
		{"device_environment_variable", "device", under("device", "device", variable)},
		{"device_tag", "device", under("device", "device", tag)},
		{"service_install", "device", func(i ids, n string) model.Values {
			return model.Values{"device": i["device"], "installs__service": i.other("service", n)}
		}},
		{"device_service_environment_variable", "device", under("service_install", "service_install", variable)},
		{"image_install", "device", func(i ids, n string) model.Values {
			return model.Values{"device": i["device"], "installs__image": i.other("image", n), "is_provided_by__release": i["release"],
				"install_date": began(), "status": "Running"}
		}},
	}
}

// world is two organizations with a secret and a public fleet each; in each
// fleet are a release and two devices, A and B. Of every resource there is a row
// for every owner: "home", "home.secret", "home.secret.A" …
type world struct {
	*cloudtest.World
	rows    []row
	owners  map[string]ids
	callers map[string]caller
}

type row struct {
	resource, owner string
	id              int64
}

// caller is somebody who asks, by a credential.
type caller struct {
	credential string
	access.Caller
}

func newWorld(t *testing.T) *world {
	w := &world{World: cloudtest.New(t, nil), owners: map[string]ids{}, callers: map[string]caller{}}
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	// Not guarded: so many tries in so short a time would be too many.
	server := httptest.NewServer(w.Mux)
	t.Cleanup(server.Close)
	w.URL = server.URL
	carol, err := w.DB.CreateUser(t.Context(), "carol", "x")
	w.must(err)
	w.organization("home", w.Admin, carol)
	w.organization("away", w.Bob, carol)
	w.call("guest", "")
	w.call("admin", w.AdminSession)
	w.call("bob", w.BobSession)
	w.Key(w.Admin.Actor, model.RoleUser)
	w.Key(w.Bob.Actor, model.RoleUser)
	w.keyOf("home", w.Admin.Actor)
	w.call("admin-key", w.Key(w.Admin.Actor, model.RoleUser)) // another one: it is to last
	w.keyOf("away", w.Bob.Actor)
	fleet := w.field("application", w.owners["home.secret"]["application"], "actor")
	w.call("vpn", cloudtest.VPNKey)
	w.call("provisioning", w.Key(fleet, model.RoleProvisioning))
	w.keyOf("home.secret", fleet)
	for _, owner := range slices.Sorted(maps.Keys(w.owners)) {
		if strings.Count(owner, ".") == 2 {
			w.keyOf(owner, w.field("device", w.owners[owner]["device"], "actor"))
		}
	}
	return w
}

func (w *world) must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// keyOf notes the API key of an actor.
func (w *world) keyOf(owner string, actor int64) {
	w.T.Helper()
	w.add("api_key", owner, w.find("api_key", "t.is_of__actor = ?", actor))
}

// call remembers a caller as the cloud knows it.
func (w *world) call(name, credential string) {
	w.T.Helper()
	actor, err := w.Auth.Identify(w.T.Context(), credential)
	if err != nil && name != "guest" {
		w.T.Fatal(name, err)
	}
	w.callers[name] = caller{credential, actor.Caller()}
}

func (w *world) organization(name string, user, carol model.User) {
	w.T.Helper()
	org := w.find("organization", "t.handle = ?", user.Username)
	i := ids{"organization": org, "user": user.ID, "carol": carol.ID}
	w.owners[name] = i
	w.add("organization", name, org)
	w.add("organization_membership", name, w.find("organization_membership", "t.is_member_of__organization = ?", org))
	w.add("user", name, user.ID)
	w.fill(name, "organization", user)
	for _, kind := range []string{"secret", "public"} {
		w.fleet(name+"."+kind, kind == "public", user, i)
	}
}

func (w *world) fleet(name string, public bool, user model.User, org ids) {
	w.T.Helper()
	f := w.Fleet(user, strings.ReplaceAll(name, ".", "-"))
	if public {
		_, err := w.DB.Update(w.T.Context(), person(user), "application", model.Selection{SQL: "t.id = ?", Args: []any{f.ID}}, model.Values{"is_public": true})
		w.must(err)
	}
	i := maps.Clone(org)
	i["application"] = f.ID
	w.owners[name] = i
	w.add("application", name, f.ID)
	w.fill(name, "fleet", user)
	for _, letter := range []string{"A", "B"} {
		w.device(name+"."+letter, f, user, i)
	}
	for _, s := range samples() { // spare ones, for more pairs
		if s.resource == "service" || s.resource == "image" {
			i[s.resource+" 2"] = w.create(user, s, i, "2")
			for _, letter := range []string{"A", "B"} {
				w.owners[name+"."+letter][s.resource+" 2"] = i[s.resource+" 2"]
			}
		}
	}
}

func (w *world) device(name string, f model.Fleet, user model.User, fleet ids) {
	w.T.Helper()
	d, key := w.Device(f, fmt.Sprintf("%x", len(w.owners)))
	i := maps.Clone(fleet)
	i["device"] = d.ID
	w.owners[name] = i
	w.add("device", name, d.ID)
	w.fill(name, "device", user)
	w.call(name, key)
}

// fill makes the rows of an owner that do not exist yet.
func (w *world) fill(name, kind string, user model.User) {
	w.T.Helper()
	i := w.owners[name]
	for _, s := range samples() {
		made := s.resource == "organization" || s.resource == "organization_membership" || s.resource == "application" || s.resource == "device"
		if s.of == kind && !made {
			i[s.resource] = w.create(user, s, i, "1")
			w.add(s.resource, name, i[s.resource])
		}
	}
}

// create makes a row, or finds the one that the cloud made by itself.
func (w *world) create(user model.User, s sample, i ids, n string) int64 {
	w.T.Helper()
	id, err := w.DB.Create(w.T.Context(), person(user), s.resource, s.values(i, n))
	if errors.Is(err, model.ErrConflict) && s.resource == "service_install" {
		return w.find(s.resource, "t.device = ? AND t.installs__service = ?", i["device"], i["service"])
	}
	if err != nil {
		w.T.Fatalf("create %s: %v", s.resource, err)
	}
	return id
}

func (w *world) add(resource, owner string, id int64) {
	w.rows = append(w.rows, row{resource, owner, id})
}

func person(u model.User) access.Caller {
	return access.Caller{Role: access.User, ID: u.ID, Actor: u.Actor, Name: u.Username}
}

func (w *world) find(resource, condition string, args ...any) int64 {
	w.T.Helper()
	return w.number(resource, "id", condition, args...)
}

// field is a number in a row.
func (w *world) field(resource string, id int64, name string) int64 {
	w.T.Helper()
	return w.number(resource, name, "t.id = ?", id)
}

func (w *world) number(resource, name, condition string, args ...any) int64 {
	w.T.Helper()
	r, _ := model.ResourceNamed(resource)
	f, ok := r.Field(name)
	if !ok {
		w.T.Fatalf("%s has no %s", resource, name)
	}
	rows, err := w.DB.Rows(w.T.Context(), r, []model.Field{f}, "WHERE "+condition+" ORDER BY t.id", args...)
	w.must(err)
	if len(rows) == 0 {
		return 0
	}
	n, _ := rows[0][0].(int64)
	return n
}

// of are the rows of a resource, sorted by owner.
func (w *world) of(resource string) []row {
	var some []row
	for _, r := range w.rows {
		if r.resource == resource {
			some = append(some, r)
		}
	}
	slices.SortFunc(some, func(a, b row) int { return strings.Compare(a.owner, b.owner) })
	return some
}

// summary is some of all owners in few words: "all", "-", "home.*" for all that
// begin so, or their names.
func summary(owners, all []string) string {
	switch {
	case len(owners) == 0:
		return "-"
	case len(owners) == len(all):
		return "all"
	}
	var words []string
	for _, prefix := range []string{"away.", "home."} {
		begins := func(owner string) bool { return strings.HasPrefix(owner+".", prefix) }
		some, whole := keep(owners, begins), keep(all, begins)
		if len(some) > 1 && len(some) == len(whole) {
			some = []string{prefix + "*"}
		}
		words = append(words, some...)
	}
	return strings.Join(words, " ")
}

func keep(names []string, which func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !which(name) })
}

// ownersOf are the owners of the rows of a resource.
func (w *world) ownersOf(resource string) []string {
	var owners []string
	for _, r := range w.of(resource) {
		owners = append(owners, r.owner)
	}
	return owners
}

// reads asks for all rows over HTTP, and for each row by its id: both must agree.
func (w *world) reads(c caller, resource string) string {
	w.T.Helper()
	a := w.Do("GET", "/v7/"+resource+"?$select=id", c.credential, "")
	if a.Status == 401 {
		return "401"
	}
	seen := w.idsOf(a)
	var owners []string
	for _, r := range w.of(resource) {
		one := w.idsOf(w.Do("GET", fmt.Sprintf("/v7/%s(%d)?$select=id", resource, r.id), c.credential, ""))
		if len(one) == 1 != seen[r.id] {
			w.T.Errorf("%s of %s: in the list %v, by its id %v", resource, r.owner, seen[r.id], one)
		}
		if seen[r.id] {
			owners = append(owners, r.owner)
		}
	}
	if len(w.of(resource)) == 0 { // a catalogue
		return map[bool]string{true: "all", false: "there are none"}[len(seen) > 0]
	}
	return summary(owners, w.ownersOf(resource))
}

func (w *world) idsOf(a cloudtest.Answer) map[int64]bool {
	w.T.Helper()
	var got struct {
		D []struct{ ID int64 }
	}
	if err := json.Unmarshal([]byte(a.Body), &got); a.Status != 200 || err != nil {
		w.T.Fatalf("%d %s: %v", a.Status, a.Body, err)
	}
	seen := map[int64]bool{}
	for _, r := range got.D {
		seen[r.ID] = true
	}
	return seen
}

// creates tries to make one more row for each owner.
func (w *world) creates(c caller, resource, n string) string {
	w.T.Helper()
	var owners, all []string
	for _, s := range samples() {
		for _, owner := range slices.Sorted(maps.Keys(w.owners)) {
			if s.resource != resource || s.of != [...]string{"organization", "fleet", "device"}[strings.Count(owner, ".")] {
				continue
			}
			all = append(all, owner)
			body, err := json.Marshal(s.values(w.owners[owner], n+strings.ReplaceAll(owner, ".", "")))
			w.must(err)
			switch a := w.Do("POST", "/v7/"+resource, c.credential, string(body)); a.Status {
			case 201:
				owners = append(owners, owner)
			case 401:
			default:
				w.T.Errorf("create %s for %s: %d %s", resource, owner, a.Status, a.Body)
			}
		}
	}
	return summary(owners, all)
}

// updates writes a field of each row; which one matters little. A resource
// without one that can change is asked for the right.
func (w *world) updates(c caller, resource string) string {
	w.T.Helper()
	fields := []string{"value", "note", "title", "description", "dockerfile", "status", "app_name", "service_name", "email", "name"}
	r, _ := model.ResourceNamed(resource)
	name := ""
	for _, f := range fields {
		if _, ok := r.Field(f); ok && name == "" {
			name = f
		}
	}
	var owners []string
	for _, r := range w.of(resource) {
		if w.updated(c, r, name) {
			owners = append(owners, r.owner)
		}
	}
	return summary(owners, w.ownersOf(resource))
}

func (w *world) updated(c caller, r row, field string) bool {
	w.T.Helper()
	path := fmt.Sprintf("/v7/%s(%d)", r.resource, r.id)
	if field == "" {
		return w.Do("POST", path+"/canAccess", c.credential, `{"action":"update"}`).Status == 200
	}
	value := fmt.Sprintf("changed_%d", r.id)
	switch field {
	case "status":
		value = "Stopped"
	case "email":
		value += "@example.test"
	}
	a := w.Do("PATCH", path, c.credential, fmt.Sprintf(`{%q:%q}`, field, value))
	changed := w.find(r.resource, `t.id = ? AND t."`+field+`" = ?`, r.id, value) != 0
	if a.Status != 200 && a.Status != 401 {
		w.T.Errorf("update %s of %s: %d %s", r.resource, r.owner, a.Status, a.Body)
	}
	return changed
}

// actions are what clients ask for with canAccess beside reading and writing.
func actions() []string { return []string{"supervisor-proxy-write", "tunnel-22222", "write-log"} }

// acts asks with which rows the caller may do something else than read or write.
func (w *world) acts(c caller, resource, action string) string {
	w.T.Helper()
	var owners []string
	for _, r := range w.of(resource) {
		a := w.Do("POST", fmt.Sprintf("/v7/%s(%d)/canAccess", resource, r.id), c.credential, fmt.Sprintf(`{"action":%q}`, action))
		switch {
		case a.Status == 200 && a.Body == fmt.Sprintf(`{"d":[{"id":%d}]}`, r.id):
			owners = append(owners, r.owner)
		case a.Status != 401:
			w.T.Errorf("%s with %s of %s: %d %s", action, resource, r.owner, a.Status, a.Body)
		}
	}
	return summary(owners, w.ownersOf(resource))
}

// deletes removes each row that it can, the last made first. What only a rule
// refuses that all obey, it might delete.
func (w *world) deletes(c caller) map[string]string {
	w.T.Helper()
	gone := map[string][]string{}
	for _, r := range slices.Backward(w.rows) {
		a := w.Do("DELETE", fmt.Sprintf("/v7/%s(%d)", r.resource, r.id), c.credential, "")
		there := w.find(r.resource, "t.id = ?", r.id) != 0
		if a.Status != 200 && a.Status != 401 && a.Status != 404 && (a.Status != 400 && a.Status != 409 || !there) {
			w.T.Errorf("delete %s of %s: %d %s", r.resource, r.owner, a.Status, a.Body)
		}
		if !there || a.Status == 400 || a.Status == 409 {
			gone[r.resource] = append(gone[r.resource], r.owner)
		}
	}
	words := map[string]string{}
	for resource, owners := range gone {
		slices.Sort(owners)
		words[resource] = summary(owners, w.ownersOf(resource))
	}
	return words
}

// matrix is what one caller can do, as a table.
func (w *world) matrix(name string) string {
	w.T.Helper()
	c := w.callers[name]
	type line struct {
		read, create, update string
		acts                 []string
	}
	lines := map[string]line{}
	for _, resource := range access.Resources() {
		l := line{read: w.reads(c, resource)}
		for _, action := range actions() {
			l.acts = append(l.acts, w.acts(c, resource, action))
		}
		lines[resource] = l
	}
	// Backward: a new release makes the service installs that are tried.
	for _, resource := range slices.Backward(access.Resources()) {
		l := lines[resource]
		l.update, l.create = w.updates(c, resource), w.creates(c, resource, "n")
		lines[resource] = l
	}
	deleted := w.deletes(c)
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%-36s%s\n", name, "resource", "read | create | update | delete | operate | tunnel | log")
	for _, resource := range access.Resources() {
		l := lines[resource]
		deletes := deleted[resource]
		if deletes == "" {
			deletes = "-"
		}
		fmt.Fprintf(&b, "%-36s%s\n", resource, strings.Join(append([]string{l.read, l.create, l.update, deletes}, l.acts...), " | "))
	}
	return b.String() + "\n"
}

const head = `# Who can do what with whose rows

Found by trying, over HTTP. Two organizations, home (admin) and away (bob), have a secret and
a public fleet each, every fleet the devices A and B. "-" is nothing, "all" the
rows of all owners, "home.*" all of home's, 401 a refusal. Rows of releases and
images are the fleet's. Devices are registered with provisioning keys at
/device/register, and VPN servers tell of connections, which is not tried here.

`

func TestMatrix(t *testing.T) {
	callers := []string{"guest", "admin", "admin-key", "bob", "provisioning", "vpn", "home.secret.A", "home.public.B", "away.secret.A"}
	parts := make([]string, len(callers))
	for i, name := range callers {
		parts[i] = newWorld(t).matrix(name)
		if strings.Count(name, ".") == 2 {
			checkOthers(t, name, parts[i])
		}
	}
	got := head + strings.Join(parts, "")
	const page = "testdata/matrix.txt"
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("somebody can do more or less than %s says (-page +now):\n%s", page, diff)
	}
}

// A credential that is not valid counts as none.
func TestAWrongKeyIsAGuest(t *testing.T) {
	w := newWorld(t)
	for _, resource := range access.Resources() {
		path := "/v7/" + resource + "?$select=id"
		guest, wrong := w.Do("GET", path, "", ""), w.Do("GET", path, "no-such-key-anywhere", "")
		if guest.Status != wrong.Status || guest.Body != wrong.Body {
			t.Errorf("%s: a guest gets %d %s, a wrong key %d %s", resource, guest.Status, guest.Body, wrong.Status, wrong.Body)
		}
	}
}

// checkOthers: whatever the page says, a device sees and changes no other.
func checkOthers(t *testing.T, name, part string) {
	t.Helper()
	for line := range strings.Lines(part) {
		for word := range strings.FieldsSeq(line) {
			if strings.Count(word, ".") == 2 && word != name {
				t.Errorf("device %s reaches %s: %s", name, word, line)
			}
		}
		if strings.HasPrefix(line, "device") && !strings.HasPrefix(line, "device_type") && strings.Contains(line, " all") {
			t.Errorf("device %s reaches all: %s", name, line)
		}
	}
}
