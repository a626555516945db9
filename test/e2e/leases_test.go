//go:build engine && linux

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"deckhand/localapi"
	"deckhand/test/system"
)

// callsAPI calls the local API with the key that a service has in its environment.
func (s *scene) callsAPI(c container.InspectResponse, method, path string, body, into any) int {
	s.Helper()
	key := ""
	for _, v := range c.Config.Env {
		if k, ok := strings.CutPrefix(v, "BALENA_SUPERVISOR_API_KEY="); ok {
			key = k
		}
	}
	b, err := json.Marshal(body)
	s.must(err)
	r, err := http.NewRequestWithContext(s.Context(), method, "http://"+s.unit.Listen+path, bytes.NewReader(b))
	s.must(err)
	r.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(r)
	s.must(err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	s.must(err)
	if into != nil && res.StatusCode < http.StatusBadRequest {
		s.must(json.Unmarshal(answer, into))
	}
	if res.StatusCode >= http.StatusBadRequest {
		s.Logf("%s %s: %d %s", method, path, res.StatusCode, answer)
	}
	return res.StatusCode
}

// A service takes a lease with its own key. The update of its app waits, everybody
// is told who it is and why, also after deckhand was killed, and goes on when the
// lease is given up.
func TestALeaseHoldsAnUpdateUp(t *testing.T) {
	s := beside(t)
	fleet := s.fleet()
	duo := system.Compose("web", "worker") + "    labels: {io.balena.features.supervisor-api: \"1\"}\n"
	s.push(fleet, duo, map[string]string{"web": "1", "worker": "1"})
	s.device(fleet)
	s.status("the first release runs", everythingDone)
	before := s.services()
	worker := before["worker"]

	var lease localapi.Lease
	want := map[string]string{"holder": "backup", "reason": "nightly copy", "for": "10m"}
	if code := s.callsAPI(worker, http.MethodPost, "/v3/locks", want, &lease); code != http.StatusCreated || lease.Service != "worker" || lease.App != fleet.Name {
		t.Fatalf("%d %+v", code, lease)
	}
	if code := s.callsAPI(before["web"], http.MethodPost, "/v3/locks", want, nil); code != http.StatusUnauthorized {
		t.Errorf("a service without a key: %d", code)
	}

	second := s.push(fleet, duo, map[string]string{"web": "2", "worker": "1"})
	s.waitsForLock("worker")
	holder := fleet.Name + "/worker: lease of backup (nightly copy)"
	s.told([]string{"plan"}, "take locks of "+fleet.Name, holder)
	s.told([]string{"status"}, holder, "lease    "+fleet.Name+"/worker: backup (nightly copy)")
	s.powerOff()
	s.boot()
	s.waitsForLock("worker")
	s.told([]string{"explain", "web"}, holder)
	s.untouched(before)

	if code := s.callsAPI(worker, http.MethodPut, "/v3/locks/"+lease.ID, map[string]string{"for": "1h"}, &lease); code != http.StatusOK || time.Until(lease.Until) < 50*time.Minute {
		t.Errorf("renewal: %d %+v", code, lease)
	}
	if code := s.callsAPI(worker, http.MethodDelete, "/v3/locks/"+lease.ID, nil, nil); code != http.StatusNoContent {
		t.Errorf("release: %d", code)
	}
	s.settles(second)
	s.same(worker, s.service("worker"))
	if got := s.mark(s.service("web")); got != "2" {
		t.Errorf("web runs mark %s", got)
	}
	s.told([]string{"history", "-n", "1000"}, "take locks of "+fleet.Name+" waits no longer", holder)
}
