//go:build engine && linux

package e2e

import (
	"net"
	"strings"
	"testing"

	"deckhand/test/system"
)

// A program in a container calls the supervisor at the address and with the key
// in its environment: it sees its app, restarts a service and waits for that, is
// told about a lock, and may not touch another app.
func TestAServiceCallsTheSupervisor(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	// The device's network is shut out; its containers are not.
	s.post("application_config_variable", map[string]any{"application": fleet.ID, "name": "BALENA_HOST_FIREWALL_MODE", "value": "on"})
	first := s.push(fleet, system.Compose("web", "worker")+"    labels: {io.balena.features.supervisor-api: \"1\"}\n", map[string]string{"web": "1", "worker": "1"})
	values, err := s.cloud.Registered(s.Context(), fleet)
	s.must(err)
	s.deviceWith(values)
	_, port, err := net.SplitHostPort(s.unit.Listen)
	s.must(err)
	s.unit.Listen = net.JoinHostPort("0.0.0.0", port)
	s.boot()
	s.settles(first)
	before := s.services()

	const app = "v2/applications/$BALENA_APP_ID/"
	call := func(key, path, data string) string {
		t.Helper()
		command := "wget -O - --header \"Authorization: Bearer " + key + "\""
		if data != "" {
			command += " --post-data '" + data + "'"
		}
		command += " \"$BALENA_SUPERVISOR_ADDRESS/" + path + "\""
		out := s.exec(s.service("worker").ID, "sh", "-c", command+" 2>&1 || true")
		t.Logf("$ %s\n%s", command, out)
		return out
	}
	const key = "$BALENA_SUPERVISOR_API_KEY"
	says := func(out string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(out, p) {
				t.Errorf("no %q in %s", p, out)
			}
		}
	}
	says(call(key, "v2/state/status", ""), `"appState":"applied"`, `"serviceName":"web"`, first.commit)
	says(call(key, app+"restart-service", "serviceName=web"), "OK")
	s.replaced(before["web"], s.service("web"))
	s.same(before["worker"], s.service("worker"))

	s.exec(s.service("web").ID, "sh", "-c", "set -C; : >/tmp/balena/updates.lock")
	locked := s.service("web")
	says(call(key, app+"restart-service", "serviceName=web"), "423")
	s.same(locked, s.service("web"))
	says(call(key, app+"restart-service", "serviceName=web&force=1"), "OK")
	s.replaced(locked, s.service("web"))

	says(call("wrong", "v2/state/status", ""), "401")
	says(call(key, "v2/applications/999999/restart", "force=1"), "401")
}
