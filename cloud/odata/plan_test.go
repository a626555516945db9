package odata

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// What clients filter by is found by an index: no table that grows with the
// fleets is read from one end to the other.
func TestFiltersUseIndexes(t *testing.T) {
	w := cloudtest.New(t, nil)
	if w.DB.Postgres() {
		return // decides by the size of tables, and these are small
	}
	device, _ := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	user := access.Caller{Role: access.User, ID: w.Admin.ID, Actor: w.Admin.Actor}
	machine := access.Caller{Role: access.Device, ID: device.ID}
	for _, c := range []access.Caller{user, machine} {
		for _, request := range []string{
			"device(1)", "device(uuid='aa')", "device?$filter=uuid eq 'aa'", "device?$filter=uuid in ('aa','bb')", "device?$filter=id in (1,2)",
			"device?$filter=startswith(uuid,'aaaaaaa')", "device?$filter=startswith(uuid,'a') and is_online eq true&$orderby=device_name asc",
			"device?$filter=belongs_to__application eq 1&$orderby=device_name asc", "device?$orderby=device_name asc",
			"application?$filter=slug eq 'a/b' or uuid eq 'a/b'", "application?$filter=app_name eq 'b'",
			"application?$filter=is_directly_accessible_by__user/any(dau:1 eq 1) and (slug eq 'a/b' or uuid eq 'a/b')",
			"release?$filter=commit eq 'c' and belongs_to__application eq 1 and status eq 'success'&$top=1",
			"release?$filter=startswith(commit,'c')", "release?$filter=raw_version eq '1.2.3' and belongs_to__application eq 1", "release?$filter=raw_version eq '1.2.3'",
			"release?$filter=belongs_to__application eq 1&$orderby=created_at desc",
			"service(application=1,service_name='web')", "service_install?$filter=device eq 1 and installs__service eq 2",
			"image?$filter=is_stored_at__image_location eq 'r/v2/x'", "image(is_stored_at__image_location='r/v2/x')",
			"device_tag?$filter=device eq 1", "application_tag?$filter=application eq 1", "release_tag?$filter=release eq 1", "image_install?$filter=device eq 1",
			"device_environment_variable?$filter=device eq 1 and name eq 'A'", "device_type_alias?$filter=is_referenced_by__alias eq 'x'",
			"device_service_environment_variable?$filter=service_install eq 1", "release_asset(release=1,asset_key='k')",
		} {
			if plan := planned(t, w.DB, c, request); grown.MatchString(plan) {
				t.Errorf("%s, %s:\n%s", c.Role, request, plan)
			}
		}
	}
	if plan := planned(t, w.DB, user, "device?$filter=startswith(uuid,'aaaaaaa')"); !strings.Contains(plan, "(uuid>? AND uuid<?)") {
		t.Error("no range of an index:", plan)
	}
	if plan := planned(t, w.DB, user, "release?$filter=startswith(commit,'aaaaaaa')"); !strings.Contains(plan, "commit>? AND commit<?") {
		t.Error("no range of an index:", plan)
	}
}

// grown finds in a plan that the rows asked for, or devices, releases, parts and
// installs on the way, are all read.
var grown = regexp.MustCompile(`SCAN (t\d*|d|r|p|i)\b`)

// planned is how the database would answer a request.
func planned(t *testing.T, db *model.DB, c access.Caller, text string) string {
	t.Helper()
	path, raw, _ := strings.Cut(text, "?")
	r, err := query.Parse("GET", path, raw)
	if err != nil {
		t.Fatal(err)
	}
	o := &OData{db: db}
	rd := &reader{compiler: o.compiler(c, model.ByName()), from: db, budget: model.NewBudget()}
	resource, err := rd.find(r)
	if err != nil {
		t.Fatal(err)
	}
	where, _, err := rd.selection(r, access.Read)
	if err != nil {
		t.Fatal(err)
	}
	s, err := rd.shape(row{resource, "t"}, r.Options)
	if err != nil {
		t.Fatal(err)
	}
	q, _, err := rd.root(s, fragment{where.SQL, where.Args}, r.Options)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := db.Read(t.Context(), model.Query{SQL: "EXPLAIN QUERY PLAN " + q.sql, Args: q.args,
		Kinds: []model.FieldKind{model.Integer, model.Integer, model.Integer, model.Text}}, model.NewBudget())
	if err != nil {
		t.Fatal(err)
	}
	var plan strings.Builder
	for _, step := range steps {
		fmt.Fprintln(&plan, step[3])
	}
	return plan.String()
}

// counting counts the queries that go to the database.
type counting struct {
	model.Reader
	queries int
}

func (c *counting) Read(ctx context.Context, q model.Query, b *model.Budget) ([][]any, error) {
	c.queries++
	return c.Reader.Read(ctx, q, b)
}

// An expansion is one query, however many rows there are.
func TestExpansionsAreOneQueryEach(t *testing.T) {
	w := cloudtest.New(t, nil)
	fleet := w.Fleet(w.Admin, "kitchen")
	w.Release(fleet, "abc", `{"services":{"web":{},"db":{}}}`)
	for _, digit := range []string{"a", "b", "c", "d", "e"} {
		w.Device(fleet, digit)
	}
	r, err := query.Parse("GET", "device", "$expand=belongs_to__application($expand=owns__release($top=1;$expand=release_image($expand=image))),service_install/$count,device_tag")
	if err != nil {
		t.Fatal(err)
	}
	o := &OData{db: w.DB}
	from := &counting{Reader: w.DB}
	rd := &reader{compiler: o.compiler(access.Caller{Role: access.User, ID: w.Admin.ID}, model.ByName()), from: from, budget: model.NewBudget()}
	resource, _ := model.ResourceNamed("device")
	rows, err := rd.roots(t.Context(), row{resource, "t"}, always, r.Options)
	if err != nil || len(rows) != 5 || from.queries != 7 {
		t.Errorf("%d rows in %d queries, want 5 in 7: %v", len(rows), from.queries, err)
	}
}

// A request that would fill the memory is refused with advice.
func TestTooMuchIsRefused(t *testing.T) {
	w := cloudtest.New(t, nil)
	fleet := w.Fleet(w.Admin, "kitchen")
	w.Device(fleet, "a")
	w.Device(fleet, "b")
	r, err := query.Parse("GET", "device", "$expand=belongs_to__application")
	if err != nil {
		t.Fatal(err)
	}
	o := &OData{db: w.DB}
	resource, _ := model.ResourceNamed("device")
	for name, c := range map[string]struct {
		budget model.Budget
		want   string
	}{
		"rows":  {model.Budget{Rows: 2, Bytes: 1 << 20}, "more than 200000 rows; narrow it with $filter"},
		"bytes": {model.Budget{Rows: 10, Bytes: 3000}, "more than 64 MiB; narrow it with $filter"},
	} {
		rd := &reader{compiler: o.compiler(access.Caller{Role: access.User, ID: w.Admin.ID}, model.ByName()), from: w.DB, budget: &c.budget}
		if _, err := rd.roots(t.Context(), row{resource, "t"}, always, r.Options); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Descriptors refer to what is there.
func TestDescriptorsAreWhole(t *testing.T) {
	w := cloudtest.New(t, nil)
	for _, r := range model.Resources() {
		if named := slices.Contains(access.Resources(), r.Name); !named && !r.Elsewhere && r.Name != "actor" {
			t.Errorf("%s is not in the table of permissions", r.Name)
		}
		seen := map[string]bool{}
		for _, n := range r.Navs {
			if seen[n.Name] {
				t.Errorf("%s has %s twice", r.Name, n.Name)
			}
			seen[n.Name] = true
			if err := canFollow(t, w.DB, r, n); err != nil {
				t.Errorf("%s/%s: %v", r.Name, n.Name, err)
			}
		}
		for _, f := range slices.Concat(r.Keys...) {
			if _, ok := r.Field(f); !ok {
				t.Errorf("%s has a key with %s, which it has not", r.Name, f)
			}
		}
	}
}

// canFollow asks the database for what is behind a navigation.
func canFollow(t *testing.T, db *model.DB, r model.Resource, n model.Nav) error {
	c := (&OData{db: db}).compiler(access.Caller{Role: access.User, ID: 1}, model.ByName())
	j, err := c.follow(row{r, "t"}, n)
	if err != nil || r.Elsewhere {
		return err
	}
	from, where := sources([]join{j}, always)
	q := sqlf(`SELECT count(*) FROM "`+r.Name+`" t, %s WHERE %s`, from, where)
	_, err = db.Read(t.Context(), model.Query{SQL: q.sql, Args: q.args, Kinds: []model.FieldKind{model.Integer}}, model.NewBudget())
	return err
}
