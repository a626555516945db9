//go:build engine && interop && linux

package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// called is one call of the SDK.
type called struct {
	Call    string          `json:"call"`
	Gives   json.RawMessage `json:"gives"`
	Refused json.RawMessage `json:"refused"`
}

func (c called) String() string {
	if c.Refused != nil {
		return fmt.Sprintf("%-60s refused %s", c.Call, c.Refused)
	}
	return fmt.Sprintf("%-60s %s", c.Call, c.Gives)
}

// sdk runs a story of testdata/sdk.js with more variables in its environment, and compares
// what the calls gave with the golden file.
func (o *owner) sdk(story, fleet, uuid, commit string, env ...string) {
	o.Helper()
	modules, err := filepath.Abs(peers)
	o.must(err)
	cmd := exec.CommandContext(o.Context(), filepath.Join(modules, ".bin", "node"), "testdata/sdk.js",
		story, o.seen.URL+"/", set.token, set.cloud.Password, fleet, uuid, commit)
	cmd.Env = append(append(cmd.Environ(), "NODE_PATH="+modules, "HOME="+o.dir), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var text strings.Builder
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var c called
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			o.Errorf("%s: %v", lines.Text(), err)
		}
		o.session.calls++ // nobody else uses the session now
		fmt.Fprintln(&text, c)
	}
	exchanges := o.seen.take()
	o.session.add("(the SDK, "+story+")", text.String(), exchanges)
	for _, e := range exchanges {
		if e.status >= http.StatusInternalServerError {
			o.Errorf("a request failed: %s", e)
		}
	}
	if err != nil {
		o.Errorf("%v\n%s", err, stderr.String())
	}
	o.golden("sdk-"+story+".golden", steady(text.String(), uuid, commit, o.seen.URL))
}

var (
	hex32 = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	rowID = regexp.MustCompile(`not found: \d+`)
	site  = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	date  = regexp.MustCompile(`20\d\d-\d\d-\d\dT[0-9:.]+Z`)
)

// steady puts words in place of what differs from run to run.
func steady(text, uuid, commit, address string) string {
	text = strings.NewReplacer(uuid, "UUID", commit, "COMMIT", address, "URL").Replace(text)
	text = rowID.ReplaceAllString(hex32.ReplaceAllString(text, "HEX"), "not found: ID")
	text = site.ReplaceAllString(text, "SITE")
	return date.ReplaceAllString(text, "DATE")
}

func (o *owner) golden(name, got string) {
	o.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		o.must(os.WriteFile(path, []byte(got), 0o600))
		return
	}
	want, err := os.ReadFile(path)
	o.must(err)
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		o.Errorf("%s differs (-want +got); if that is right, run with -args -update:\n%s", path, diff)
	}
}

// The SDK, on a fleet with a release and a device that is somewhere else.
func sdkStory(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("toolkit")
	commit := o.deploy(fleet, "one", map[string]string{"web": "one"})
	uuid := o.device(fleet, "5")
	o.reports(uuid, `{"os_version": "balenaOS 6.0.0", "os_variant": "dev", "supervisor_version": "17.0.0", "ip_address": "10.0.0.9",
		"mac_address": "00:11:22:33:44:55", "memory_usage": 100, "memory_total": 1000, "cpu_temp": 40}`)
	o.fleet("fetched")
	o.sdk("idle", fleet, uuid, commit, "ARCHIVE="+o.site(o.project("packed", map[string]string{"web": "fetched"})))
}

// site serves a project as code hosts do, packed with its folder, and gives the address.
func (o *owner) site(project string) string {
	o.Helper()
	packed, err := exec.CommandContext(o.Context(), "tar", "-czC", filepath.Dir(project), filepath.Base(project)).Output()
	o.must(err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/project.tar.gz" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(packed) // whoever asks sees that it is cut
	}))
	o.Cleanup(server.Close)
	return server.URL + "/project.tar.gz"
}
