package odata_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"deckhand/cloud/access"
	"deckhand/cloud/model"
)

// hangsOn is how rows of what belongs to one device are found, apart from the
// table of permissions.
var hangsOn = map[string]string{
	"device":                              "t.id = ?",
	"device_tag":                          "t.device = ?",
	"device_config_variable":              "t.device = ?",
	"device_environment_variable":         "t.device = ?",
	"service_install":                     "t.device = ?",
	"image_install":                       "t.device = ?",
	"device_service_environment_variable": "t.service_install IN (SELECT i.id FROM service_install i WHERE i.device = ?)",
}

// A device sees no row of another device, and nobody sees a row that is not
// theirs, whatever navigations lead there: by expanding, and by asking in a
// filter. All ways of three navigations are tried.
func TestNoNavigationLeadsToForeignRows(t *testing.T) {
	p := populate(t)
	device := p.ids("device", "t.uuid = ?", strings.Repeat("a", 32))[0]
	a := &explorer{populated: p, t: t, credential: p.keys["a"], may: map[string]map[int64]bool{}}
	a.learn(access.Caller{Role: access.Device, ID: device}, device)
	a.explore()
	if a.seen["device"] == 0 || a.seen["image_install"] == 0 || a.requests < 500 {
		t.Errorf("%d requests saw %v", a.requests, a.seen)
	}
	if p.DB.Postgres() {
		return // plans these long questions slowly, and what is asked is the same
	}
	b := &explorer{populated: p, t: t, credential: p.BobSession, may: map[string]map[int64]bool{}}
	b.learn(caller(p.Bob), 0)
	b.explore()
	if b.seen["device"] == 0 || b.seen["user"] == 0 || b.requests < 1000 {
		t.Errorf("%d requests saw %v", b.requests, b.seen)
	}
}

// explorer follows all navigations as somebody.
type explorer struct {
	*populated
	t          *testing.T
	credential string
	may        map[string]map[int64]bool // rows that may be seen, by resource
	foreign    map[string][]int64        // the others
	seen       map[string]int
	requests   int
}

func (x *explorer) learn(c access.Caller, device int64) {
	x.foreign, x.seen = map[string][]int64{}, map[string]int{}
	for _, r := range model.Resources() {
		x.may[r.Name] = map[int64]bool{}
		if r.Elsewhere {
			continue
		}
		where, args, ok := access.Rows(c, r.Name, access.Read)
		if own, is := hangsOn[r.Name]; is && device != 0 {
			where, args, ok = own, []any{device}, true
		}
		if ok {
			for _, id := range x.ids(r.Name, where, args...) {
				x.may[r.Name][id] = true
			}
		}
		for _, id := range x.ids(r.Name, "TRUE") {
			if !x.may[r.Name][id] {
				x.foreign[r.Name] = append(x.foreign[r.Name], id)
			}
		}
	}
}

func (x *explorer) explore() {
	for _, r := range model.Resources() {
		for _, first := range r.Navs {
			to, _ := model.ResourceNamed(first.To)
			for _, second := range to.Navs {
				x.ways(r, first, second)
			}
		}
	}
}

// ways tries two navigations with all third ones.
func (x *explorer) ways(r model.Resource, first, second model.Nav) {
	x.t.Helper()
	last, _ := model.ResourceNamed(second.To)
	var expand, conditions []string
	for _, third := range last.Navs {
		expand = append(expand, third.Name+"($select=id)")
		for ids := range slices.Chunk(x.foreign[third.To], 500) {
			conditions = append(conditions, fmt.Sprintf("%s/%s/%s/any(x:x/id in (%s))", first.Name, second.Name, third.Name, numbers(ids)))
		}
	}
	inner := "$select=id"
	if len(expand) > 0 {
		inner += ";$expand=" + strings.Join(expand, ",")
	}
	x.requests++
	a := x.Do("GET", at(r.Name, "$select", "id", "$expand", fmt.Sprintf("%s($select=id;$expand=%s(%s))", first.Name, second.Name, inner)), x.credential, "")
	if a.Status == 401 { // nothing of the resource
		return
	}
	var body struct{ D []map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(a.Body), &body); err != nil || a.Status != 200 {
		x.t.Fatalf("%s/%s/%s: %d %s", r.Name, first.Name, second.Name, a.Status, a.Body)
	}
	x.check(r.Name, r, body.D)
	if len(conditions) == 0 {
		return
	}
	x.requests++
	a = x.Want(200, "GET", at(r.Name+"/$count", "$filter", strings.Join(conditions, " or ")), x.credential, "")
	if a.Body != `{"d":0}` {
		x.t.Errorf("%s has foreign rows behind %s/%s: %s of %s", r.Name, first.Name, second.Name, a.Body, conditions)
	}
}

// check finds rows that may not be seen in an answer.
func (x *explorer) check(path string, r model.Resource, rows []map[string]json.RawMessage) {
	x.t.Helper()
	for _, row := range rows {
		var id int64
		if err := json.Unmarshal(row["id"], &id); err != nil {
			x.t.Fatal(path, err)
		}
		if !x.may[r.Name][id] {
			x.t.Errorf("%s shows %s %d", path, r.Name, id)
		}
		x.seen[r.Name]++
		for name, v := range row {
			if n, ok := r.Nav(name); ok {
				to, _ := model.ResourceNamed(n.To)
				var rows []map[string]json.RawMessage
				if err := json.Unmarshal(v, &rows); err != nil {
					x.t.Fatalf("%s/%s: %s", path, name, v)
				}
				x.check(path+"/"+name, to, rows)
			}
		}
	}
}

func numbers(ids []int64) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = fmt.Sprint(id)
	}
	return strings.Join(all, ",")
}
