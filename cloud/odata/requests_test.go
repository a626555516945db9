package odata_test

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// The requests that the clients' programs send are answered, with as many rows
// as the file says, and with the fields asked for and no others.
func TestRequestsOfClients(t *testing.T) {
	p := populate(t)
	b, err := os.ReadFile("testdata/requests.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		n++
		want, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		path = sent(path)
		a := p.Do("GET", path, p.AdminSession, "")
		if a.Status != 200 {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
			continue
		}
		if got := amount(a.Body); got != want {
			t.Errorf("%s: %s rows, want %s: %.300s", path, got, want, a.Body)
		}
		route, raw, _ := strings.Cut(strings.TrimPrefix(path, "/v7/"), "?")
		r, err := query.Parse("GET", route, raw)
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ D json.RawMessage }
		if err := json.Unmarshal([]byte(a.Body), &body); err != nil {
			t.Fatal(path, err)
		}
		if resource, _ := model.ResourceNamed(r.Resource); !r.Count && !resource.Elsewhere {
			hasShape(t, path, resource, r.Options, body.D)
		}
	}
	if n < 100 {
		t.Errorf("%d requests", n)
	}
}

// sent is a request as clients send it: what is in a query is encoded, quotes
// in a key are not.
func sent(line string) string {
	path, raw, has := strings.Cut(line, "?")
	if !has {
		return path
	}
	return path + "?" + strings.NewReplacer(" ", "%20", "'", "%27", "admin/", "admin%2F", "balena_os/", "balena_os%2F").Replace(raw)
}

// amount is the number of rows, or the number that was asked for.
func amount(body string) string {
	var rows struct{ D []json.RawMessage }
	if json.Unmarshal([]byte(body), &rows) == nil {
		return strconv.Itoa(len(rows.D))
	}
	return strings.TrimSuffix(strings.TrimPrefix(body, `{"d":`), "}")
}

// hasShape checks that rows have the members that were asked for.
func hasShape(t *testing.T, path string, resource model.Resource, o query.Options, b json.RawMessage) {
	t.Helper()
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Errorf("%s: %s: %v", path, b, err)
		return
	}
	want := slices.Clone(o.Select)
	if len(want) == 0 {
		for _, f := range resource.Fields {
			want = append(want, f.Name)
		}
	}
	for _, e := range o.Expand {
		want = append(want, e.Nav)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	for _, row := range rows {
		var got []string
		for name := range row {
			got = append(got, name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: members %v, want %v", path, got, want)
			return
		}
		for _, e := range o.Expand {
			n, _ := resource.Nav(e.Nav)
			to, _ := model.ResourceNamed(n.To)
			hasShape(t, path+" "+e.Nav, to, e.Options, row[e.Nav])
		}
		hasForms(t, path, resource, o, row)
	}
}

// hasForms checks the forms of references and dates.
func hasForms(t *testing.T, path string, resource model.Resource, o query.Options, row map[string]json.RawMessage) {
	t.Helper()
	for _, f := range resource.Fields {
		v := string(row[f.Name])
		if v == "" || v == "null" || slices.ContainsFunc(o.Expand, func(e query.Expand) bool { return e.Nav == f.Name }) {
			continue
		}
		ok := true
		switch f.Kind {
		case model.Reference:
			ok = strings.HasPrefix(v, `{"__id":`)
		case model.Date:
			ok = len(v) == len(`"2026-01-31T12:00:00.000Z"`) && strings.HasSuffix(v, `Z"`)
		case model.BigInteger:
			ok = strings.HasPrefix(v, `"`)
		case model.JSON, model.Version:
			ok = strings.HasPrefix(v, "{")
		case model.Boolean:
			ok = v == "true" || v == "false"
		case model.Location:
			ok = strings.HasPrefix(v, `"registry.test:5000/v2/`)
		case model.Integer:
			_, err := strconv.Atoi(v)
			ok = err == nil
		case model.Text:
			ok = strings.HasPrefix(v, `"`)
		}
		if !ok {
			t.Errorf("%s: %s is %s", path, f.Name, v)
		}
	}
}
