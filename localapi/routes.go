package localapi

import (
	"net/http"
	"slices"
)

// route is one row of the API. To add a route, add a row to the list of its
// topic, its function, and its path in openapi.yaml; the golden route table then
// asks for a look.
type route struct {
	method string
	path   string // lower case, no slash at the end; {name} matches one part, see matches
	key    bool   // a key is needed (while the device asks for keys)
	limit  int64  // bytes of the body; 0: it is not read
	serve  func(w http.ResponseWriter, r *http.Request, body []byte)
}

const (
	bodyLimit = 10_000_000 // as balena's clients expect
	planLimit = 16 << 20   // a target document

	intentLimit = 64 << 10 // a wish beside the target
)

// routes are those of the device API, by topic.
func (a *api) routes() []route {
	return slices.Concat(
		a.openRoutes(),
		a.deviceRoutes(),
		a.hostRoutes(),
		a.actionRoutes(),
		a.stateRoutes(),
		a.tagRoutes(),
		a.localRoutes(),
		a.logRoutes(),
		a.v3Routes(),
	)
}

// routes are those of deckhand's own socket. Its file mode is the only guard.
func (c *control) routes() []route {
	return []route{
		{"GET", "/v3/status", false, 0, c.status},
		{"GET", "/v3/plan", false, 0, c.plan},
		{"POST", "/v3/plan", false, planLimit, c.planFor},
		{"GET", "/v3/snapshot", false, 0, c.snapshot},
		{"GET", "/v3/explain", false, 0, c.explain},
		{"POST", "/v3/intents", false, intentLimit, c.request},
	}
}
