package supervisor

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/supervisor/history"
	"deckhand/test/openapi"
)

// get asks the device's API, and says in what the answer is not as in openapi.yaml.
func (b *desk) get(c *openapi.Contract, path, query, accept string) string {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, b.api.URL+path+query, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("Authorization", "Bearer "+b.s.globalKey())
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		b.Errorf("%s%s: %d %s", path, query, res.StatusCode, body)
	}
	if err := c.Check(http.MethodGet, path, res.StatusCode, res.Header.Get("Content-Type"), string(body)); err != nil {
		b.Errorf("%s%s: %v\n%s", path, query, err, body)
	}
	return string(body)
}

// answersAsDescribed asks for everything there is under /v3. The texts must be in the plan.
func (b *desk) answersAsDescribed(c *openapi.Contract, plan ...string) {
	b.Helper()
	got := b.get(c, "/v3/plan", "", "application/json")
	for _, text := range plan {
		if !strings.Contains(got, text) {
			b.Errorf("the plan says nothing of %s: %s", text, got)
		}
	}
	b.get(c, "/v3/plan", "", "text/plain")
	b.get(c, "/v3/plan", "", "text/vnd.graphviz")
	b.get(c, "/v3/status", "", "application/json")
	b.get(c, "/v3/locks", "", "application/json")
	b.get(c, "/v3/explain", "?service=web", "application/json")
	b.get(c, "/v3/history", "", "application/json")
	b.get(c, "/v3/history", "?limit=3&service=web", "application/json")
}

// What the device really says of its plans and its past is what openapi.yaml promises,
// whatever it is in the middle of.
func TestAnswersAreAsDescribed(t *testing.T) {
	c, b := openapi.Read(t, "../localapi/openapi.yaml"), newDesk(t)
	b.answersAsDescribed(c, `"steps":[]`)

	b.post("/v2/applications/1000/stop-service", `{"serviceName":"web"}`, http.StatusOK, "OK")
	b.answersAsDescribed(c, `"declined":[`)
	if got := b.get(c, "/v3/status", "", "application/json"); !strings.Contains(got, `"requests":[{"kind":"stop"`) || !strings.Contains(got, `"status":"exited"`) {
		t.Errorf("a stopped service: %s", got)
	}
	if got := b.get(c, "/v3/explain", "?service=web", "application/json"); !strings.Contains(got, `"blockers":[{"kind":"stopped"`) {
		t.Errorf("a stopped service: %s", got)
	}
	b.post("/v2/applications/1000/start-service", `{"serviceName":"web"}`, http.StatusOK, "OK")

	b.post("/v3/locks", `{"service":"web","holder":"backup","reason":"nightly copy"}`, http.StatusCreated, "backup")
	free := b.lock("job")
	b.accept("c2")
	b.until("a lock in the way", func() bool { return len(b.s.runner.Status().Plan.Waiting) > 0 })
	b.answersAsDescribed(c, `"waiting":[`, `"class":"locked"`, `"after":[`)
	free()

	b.holding(func(route string) error {
		if strings.Contains(route, "/images/create") {
			return errors.New("no space left on device")
		}
		return nil
	})
	b.accept("c3")
	b.until("a failed download", b.failing)
	b.answersAsDescribed(c, `"tries":`, "no space left")
	if h := b.get(c, "/v3/history", "", "application/json"); !strings.Contains(h, `"outcome":"failed"`) {
		t.Errorf("the past has no failure: %s", h)
	}
}

// Every field that status, explanation, plan and history can have is described, and no
// other one: most of them are there in rare moments only.
func TestEveryFieldIsDescribed(t *testing.T) {
	c := openapi.Read(t, "../localapi/openapi.yaml")
	for name, x := range map[string]any{
		"Status": View{}, "Explanation": history.Explanation{}, "History": history.Page{}, "Lease": localapi.Lease{},
		"Declined": reconcile.Declined{}, "Change": state.Change{},
	} {
		schema, _, ok := c.At("components", "schemas", name)
		if !ok {
			t.Errorf("%s is not described", name)
			continue
		}
		compareFields(t, c, name, reflect.TypeOf(x), schema)
	}
}

// compareFields says in what the fields of a type are not those of a schema.
func compareFields(t *testing.T, c *openapi.Contract, where string, x reflect.Type, schema map[string]any) {
	t.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		schema, _, _ = c.At(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	switch {
	case x.Kind() == reflect.Pointer:
		compareFields(t, c, where, x.Elem(), schema)
	case x.Kind() == reflect.Slice:
		items, _ := schema["items"].(map[string]any)
		compareFields(t, c, where+"[]", x.Elem(), items)
	case x.Kind() == reflect.Struct && x != reflect.TypeFor[time.Time]():
		described, _ := schema["properties"].(map[string]any)
		described = maps.Clone(described)
		for i := range x.NumField() {
			name, options, _ := strings.Cut(x.Field(i).Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			inner, ok := described[name].(map[string]any)
			if !ok {
				t.Errorf("%s.%s is not described", where, name)
				continue
			}
			delete(described, name)
			required, _ := schema["required"].([]any)
			if always := !strings.HasPrefix(options, "omit"); always != slices.Contains(required, any(name)) {
				t.Errorf("%s.%s: it is always there: %v, and described as the opposite", where, name, always)
			}
			compareFields(t, c, where+"."+name, x.Field(i).Type, inner)
		}
		for name := range described {
			t.Errorf("%s.%s is described, and does not exist", where, name)
		}
	}
}

// failing reports whether a step waits after it has failed.
func (b *desk) failing() bool {
	return slices.ContainsFunc(b.s.runner.Status().Plan.Waiting, func(w reconcile.Waiting) bool { return w.Tries > 0 })
}
