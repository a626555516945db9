package localapi

import (
	"strings"
	"testing"

	"deckhand/test/openapi"
)

// contract is openapi.yaml.
type contract struct{ *openapi.Contract }

func readContract(t testing.TB) *contract {
	t.Helper()
	return &contract{openapi.Read(t, "openapi.yaml")}
}

// Every route is described, and nothing else is.
func TestContractAndRoutesAgree(t *testing.T) {
	c := readContract(t)
	routes := map[string]bool{}
	for _, r := range new(api).routes() {
		routes[r.method+" "+r.path] = true
	}
	described := map[string]bool{}
	paths, _, _ := c.At("paths")
	for path, item := range paths {
		for method := range item.(map[string]any) { //nolint:forcetypeassert // a test may panic
			name := strings.ToUpper(method) + " " + strings.ToLower(path)
			if described[name] = true; !routes[name] {
				t.Errorf("%s is described, but no route", name)
			}
		}
	}
	for name := range routes {
		if !described[name] {
			t.Errorf("%s is a route, but not described in openapi.yaml", name)
		}
	}
}
