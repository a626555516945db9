package supervisor

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"deckhand/reconcile"
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

// failing reports whether a step waits after it has failed.
func (b *desk) failing() bool {
	return slices.ContainsFunc(b.s.runner.Status().Plan.Waiting, func(w reconcile.Waiting) bool { return w.Tries > 0 })
}
