//go:build engine && interop && linux

package clients

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"deckhand/test/dockerd"
)

var commitLine = regexp.MustCompile(`Release: ([0-9a-f]{32})`)

// project writes a compose project whose services run a program that says something,
// and gives its folder. Each image exists already on the owner's engine.
func (o *owner) project(name string, services map[string]string) string {
	o.Helper()
	doc := "version: '2.1'\nservices:\n"
	for service, text := range services {
		doc += "  " + service + ":\n    build: ./" + service + "\n    labels:\n      of: " + service + "\n    environment:\n      SAYS: '" + text + "'\n"
		o.file(name+"/"+service+"/Dockerfile", "FROM "+base+"\nLABEL says='"+text+"'\nCMD [\"sh\", \"-c\", \"trap 'exit 0' TERM; while :; do echo here is "+text+"; sleep 1; done\"]\n")
	}
	o.file(name+"/balena.yml", "name: demo\ntype: sw.application\nversion: 1.2.3\n")
	return strings.TrimSuffix(o.file(name+"/docker-compose.yml", doc), "/docker-compose.yml")
}

// base is the image of the owner's engine that projects are built from.
const base = "local/base:1"

// deploy builds a project on the owner's engine and gives the commit of the release.
func (o *owner) deploy(fleet, name string, services map[string]string, flags ...string) string {
	o.Helper()
	dir := o.project(name, services)
	said := o.says(strings.Join(append([]string{"deploy", fleet, "--build", "--source", dir}, flags...), " "), "Deploy succeeded!")
	m := commitLine.FindStringSubmatch(said)
	if m == nil {
		o.Fatalf("no commit in %s", said)
	}
	return m[1]
}

// Releases come from the owner's engine, are looked at, pinned and withdrawn.
func releases(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("released")
	first := o.deploy(fleet, "one", map[string]string{"web": "one", "db": "one"}, "--release-tag", "channel", "stable", "--note", "'the first one'")
	o.says("release list "+fleet, first[:7], "success 1.2.3 true")
	o.says("release "+first, "COMMIT: "+first, "STATUS: success", "SEMVER: 1.2.3", "channel=stable")
	var whole row
	o.reads("release "+first, &whole)
	id := whole.text("id")
	if whole.text("note") != "the first one" {
		t.Errorf("the release is %v", whole)
	}
	o.says("release "+first+" --composition", "web:", "db:")
	o.says("tag list --release "+first, "channel stable")

	draft := o.deploy(fleet, "two", map[string]string{"web": "two", "db": "two"}, "--draft")
	o.says("release "+draft, "IS FINAL: false")
	o.says("fleet "+fleet, "COMMIT: "+first)
	short := draft[:7+strings.IndexFunc(draft[6:], unicode.IsLetter)] // of digits alone it would be a number
	o.says("release finalize "+short, "Release "+short+" finalized")
	o.says("fleet "+fleet, "COMMIT: "+draft)
	o.says("release "+draft, "IS FINAL: true")
	o.reads("release "+draft, &whole)
	if version := whole.text("raw_version"); version != "1.2.3+rev1" {
		t.Errorf("the second release of 1.2.3 is %s", version)
	}

	o.says("fleet pin " + fleet + " " + first)
	o.says("fleet pin "+fleet, first)
	o.says("fleet track-latest " + fleet)
	o.says("fleet "+fleet, "COMMIT: "+draft)
	o.says("release invalidate "+draft, "Release "+draft+" invalidated")
	o.says("fleet "+fleet, "COMMIT: "+first)
	o.says("release validate "+draft, "Release "+draft+" validated")
	o.says("fleet "+fleet, "COMMIT: "+draft)

	uuid := o.device(fleet, "9")
	o.says("device pin " + uuid + " " + first)
	o.says("device pin "+uuid, first)
	o.says("device track-fleet " + uuid)
	o.says("device pin "+uuid, "not")

	o.says("release-asset list "+id, "No assets found")
	// An image that exists, without a project.
	set.desk.Image(t, dockerd.Image{Tag: "local/ready:1", Changes: []string{`CMD ["sleep","1000"]`}})
	o.says("deploy "+fleet+" local/ready:1", "Deploy succeeded!")
	o.says("build "+filepath.Join(o.dir, "one")+" --fleet "+fleet, "Build succeeded!")
}

// The cloud builds what the owner sends.
func builds(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("built")
	dir := o.project("source", map[string]string{"web": "pushed"})
	o.says("push "+fleet+" --source "+dir+" --release-tag channel beta --note 'from afar'", "Release successfully created!")
	first := o.lists("release list " + fleet)[0]
	o.says("tag list --release "+first.text("commit"), "channel beta")
	if first.text("note") != "from afar" {
		t.Errorf("the release is %v", first)
	}
	o.says("push " + fleet + " --source " + dir + " --draft --nocache --detached")
	o.file("broken/Dockerfile", "FROM "+base+"\nRUN false\n")
	o.refuses("push "+fleet+" --source "+o.dir+"/broken", "Remote build failed")

	slow := o.project("slow", map[string]string{"web": "slow"})
	o.file("slow/web/Dockerfile", "FROM "+base+"\nRUN echo it begins && sleep 1000\n")
	push := o.types("push " + fleet + " --source " + slow)
	push.shows("it begins")
	push.interrupt()
	o.says("release list "+fleet, "cancelled")
}
