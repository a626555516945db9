//go:build engine && interop && linux

package clients

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"deckhand/test/dockerd"
)

// All stories of the CLI, beside each other; then what the manual says of the
// commands is compared with what was typed.
func TestCLI(t *testing.T) {
	set.desk.Image(t, dockerd.Image{Tag: base})
	t.Run("stories", func(t *testing.T) {
		for name, story := range map[string]func(*testing.T){
			"session": sessionStory, "session of a device": deviceSession, "questions": questions, "fleets": fleets, "devices": devices, "settings of devices": deviceSettings,
			"variables": variables, "variables of services": serviceVariables, "tags": tags, "releases": releases,
			"builds": builds, "assets": assets, "a device at work": deviceAtWork, "keys": keys, "config": configFiles, "refusals": refusals, "sdk": sdkStory,
		} {
			t.Run(name, story)
		}
	})
	if *transcript != "" {
		sessions.write(t, *transcript)
	}
	t.Run("manual", manual)
}

// Logging in by session and key, and out.
func sessionStory(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.refuses("whoami", "Login required")
	o.refuses("login --token nonsense", "Token authentication failed")
	o.says("login --token "+set.token, "Successfully logged in as: admin")
	o.says("whoami", "USERNAME: admin")
	o.says("settings", "apiUrl:", o.seen.URL)
	o.says("logout")
	o.refuses("fleet list", "Login required")
	o.changes("/v7/user?$filter=username%20eq%20'admin'", set.token, `{"email": "me@example.test"}`)
	o.refuses("login --credentials --email me@example.test --password wrong", "Invalid login credentials")
	o.says("login --credentials --email me@example.test --password "+set.cloud.Password, "Successfully logged in as: admin")
	o.says("whoami", "EMAIL: me@example.test")
	o.says("version", "22.5.5")
	o.says("logout")
	o.logsInByPage()
	o.says("whoami", "USERNAME: admin")
}

var (
	opened = regexp.MustCompile(`https?://\S+/login/cli/\S+`)
	button = regexp.MustCompile(`<form method="post" action="([^"]+)"`)
	given  = regexp.MustCompile(`name="token" value="([^"]+)"`)
)

// logsInByPage is "login --web", and what the person does on the page that it opens.
func (o *owner) logsInByPage() {
	o.Helper()
	c := o.types("login --web")
	c.shows("/login/cli/")
	page := opened.FindString(c.log.String())
	cloud, err := url.Parse(page)
	o.must(err)
	jar, err := cookiejar.New(nil)
	o.must(err)
	browser := &http.Client{Jar: jar}
	send := func(address string, fields url.Values) string {
		o.Helper()
		req, err := http.NewRequestWithContext(o.Context(), http.MethodPost, address, strings.NewReader(fields.Encode()))
		o.must(err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := browser.Do(req)
		o.must(err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		o.must(err)
		if resp.StatusCode != http.StatusOK {
			o.Fatalf("%s is answered %s: %s", address, resp.Status, text)
		}
		return string(text)
	}
	found := func(rule *regexp.Regexp, text string) string {
		o.Helper()
		m := rule.FindStringSubmatch(text)
		if m == nil {
			o.Fatalf("no %s in %s", rule, text)
		}
		return m[1]
	}
	callback, err := url.PathUnescape(strings.TrimPrefix(cloud.Path, "/login/cli/"))
	o.must(err)
	asked := send(cloud.ResolveReference(&url.URL{Path: "/login"}).String(),
		url.Values{"username": {"admin"}, "password": {set.cloud.Password}, "callback": {callback}})
	agreed := send(cloud.Scheme+"://"+cloud.Host+found(button, asked), nil)
	if said := send(found(button, agreed), url.Values{"token": {found(given, agreed)}}); !strings.Contains(said, "login was successful") {
		o.Errorf("the CLI answers %s", said)
	}
	c.end(c.ends() == 0, "it failed", []string{"Successfully logged in as: admin"})
}

// A device's own key opens what the device may see: itself.
func deviceSession(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("selfish")
	uuid, other := o.device(fleet, "1"), o.device(fleet, "2")
	device := newOwner(t)
	device.says("login --token " + o.deviceKey(uuid))
	device.says("whoami", "DEVICE: "+uuid)
	if list := device.lists("device list"); len(list) != 1 || list[0].text("uuid") != uuid {
		t.Errorf("the device sees %v", list)
	}
	device.refuses("device "+other, "Device not found")
	device.refuses("device rename "+other+" taken", "Device not found: "+other)
}

// The life of a fleet without devices.
func fleets(t *testing.T) {
	o := loggedIn(t)
	o.says("organization list", "NAME HANDLE", "admin admin")
	o.says("device-type list --all", "raspberrypi4-64", "aarch64 Raspberry Pi 4")
	o.says("device-type list", "SLUG ALIASES ARCH NAME")
	o.says("fleet create first --type generic-amd64 --organization admin", `Fleet created: slug "admin/first", device type "generic-amd64"`)
	fleet := "admin/first"
	o.says("fleet list", "first admin/first generic-amd64 0 0")
	o.says("fleet "+fleet, "== first", "DEVICE TYPE: generic-amd64", "SLUG: admin/first")
	o.says("fleet first", "SLUG: admin/first")
	o.says("fleet rename " + fleet + " second")
	o.says("fleet admin/second", "== second")
	o.refuses("fleet admin/first", "Application not found: admin/first")
	o.says("support enable --fleet admin/second --duration 3d", "Access has been granted for 3d")
	o.says("support disable --fleet admin/second")
	o.refuses("os versions generic-amd64", "No balenaOS versions found")
	o.says("fleet rm admin/second --yes")
	o.refuses("fleet admin/second", "Application not found: admin/second")
	o.says("block create brick --type generic-amd64 --organization admin", `Block created: slug "admin/brick", device type "generic-amd64"`)
	o.says("app create toolbox --type generic-amd64 --organization admin", `App created: slug "admin/toolbox", device type "generic-amd64"`)
}

// Devices as they are seen, named, moved and removed.
func devices(t *testing.T) {
	o := loggedIn(t)
	fleet, other := o.fleet("homes"), o.fleet("away")
	uuid := strings.Repeat("a", 32)
	o.says("device register "+fleet+" --uuid "+uuid, "Registering to "+fleet+": "+uuid)
	short := uuid[:7]
	o.says("device rename " + short + " kitchen")
	o.says("device note 'next to the door' --device " + short)
	o.says("device "+short, "== KITCHEN", "DEVICE TYPE: generic-amd64", "IS ONLINE: false", "FLEET: "+fleet, "UUID: "+uuid, "NOTE: next to the door")
	o.says("device list --fleet "+fleet, short+" kitchen generic-amd64 "+fleet)
	if all := o.lists("device list"); o.with(all, "uuid", uuid).text("device_name") != "kitchen" {
		t.Errorf("all devices: %v", all)
	}
	var whole row
	o.reads("device "+uuid, &whole)
	if whole.text("device_name") != "kitchen" || whole.text("fleet") != fleet {
		t.Errorf("the device is %v", whole)
	}
	o.says("device move " + short + " --fleet " + other)
	o.says("device "+uuid, "FLEET: "+other)
	o.says("device rm " + uuid + " --yes")
	o.refuses("device "+uuid, "Device not found: "+uuid)
	o.says("device list --fleet " + fleet)
}

// What is set on a device for the cloud and the supervisor.
func deviceSettings(t *testing.T) {
	o := loggedIn(t)
	uuid := o.device(o.fleet("settled"), "b")
	o.says("device public-url "+uuid+" --status", "false")
	o.says("device public-url " + uuid + " --enable")
	o.says("device public-url "+uuid+" --status", "true")
	o.says("device public-url "+uuid, uuid)
	o.says("device public-url " + uuid + " --disable")
	o.says("device public-url "+uuid+" --status", "false")

	o.reports(uuid, `{"os_version": "balenaOS 6.0.0", "os_variant": "dev", "supervisor_version": "17.0.0"}`)
	o.says("device "+uuid, "OS VERSION: balenaOS 6.0.0", "SUPERVISOR VERSION: 17.0.0", "IS ONLINE: true")
	o.says("device local-mode "+uuid+" --status", "false")
	o.says("device local-mode "+uuid+" --enable", "is now ENABLED")
	o.says("device local-mode "+uuid, "is ENABLED")
	o.says("device local-mode "+uuid+" --disable", "is now DISABLED")
	o.says("device deactivate " + uuid + " --yes")
}

// reports sends what a device says of itself.
func (o *owner) reports(uuid, report string) {
	o.Helper()
	o.changes("/device/v3/state", o.deviceKey(uuid), `{"`+uuid+`": `+report+`}`)
}

// deviceKey is a new key of a device.
func (o *owner) deviceKey(uuid string) string {
	o.Helper()
	device, err := set.cloud.Client.Device(o.Context(), uuid)
	o.must(err)
	key, err := set.cloud.Client.DeviceKey(o.Context(), device.ID)
	o.must(err)
	return key
}

// changes is a PATCH that no command makes.
func (o *owner) changes(path, credential, body string) {
	o.Helper()
	req, err := http.NewRequestWithContext(o.Context(), http.MethodPatch, set.cloud.URL+path, strings.NewReader(body))
	o.must(err)
	req.Header.Set("Authorization", "Bearer "+credential)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	o.must(err)
	o.must(resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		o.Fatalf("PATCH %s is answered %s", path, resp.Status)
	}
}

// The public key of somebody.
func publicKey() string {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	wire := append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), key...)
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(wire) + " me@desk"
}

// Keys of the API, and keys for SSH.
func keys(t *testing.T) {
	o := loggedIn(t)
	said := o.says("api-key generate robot never", "Registered api key 'robot'")
	key := ""
	for _, word := range strings.Fields(said) {
		if len(word) == 32 && !strings.ContainsAny(word, ".:/'") {
			key = word
		}
	}
	robot := newOwner(t)
	robot.says("login --token "+key, "Successfully logged in as: admin")
	robot.says("fleet create robots --type generic-amd64 --organization admin", "Fleet created")
	id := ""
	for _, line := range strings.Split(o.says("api-key list", "robot"), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "robot" {
			id = f[0]
		}
	}
	o.says("api-key revoke " + id)
	robot.refuses("whoami", "Login required")

	o.says("ssh-key add desk " + o.file("key.pub", publicKey()))
	said = o.says("ssh-key list", "desk")
	for _, line := range strings.Split(said, "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "desk" {
			id = f[0]
		}
	}
	o.says("ssh-key "+id, publicKey())
	o.says("ssh-key rm " + id + " --yes")
	if said := o.types("ssh-key list"); said.ends() < 0 || strings.Contains(said.log.String(), "desk") {
		t.Errorf("the key is still there: %s", said.log)
	}
}

// config.json for new devices of a fleet, and for one that is registered.
func configFiles(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("pristine")
	uuid := o.device(fleet, "c")
	read := func(line string) row {
		path := filepath.Join(o.dir, "config.json")
		o.says(line + " --version 6.0.0 --appUpdatePollInterval 15 --output " + path)
		content, err := os.ReadFile(path)
		o.must(err)
		var r row
		o.must(json.Unmarshal(content, &r))
		return r
	}
	any := read("config generate --fleet " + fleet + " --network wifi --wifiSsid home --wifiKey secret --dev")
	for field, want := range map[string]string{
		"deviceType": "generic-amd64", "apiEndpoint": set.cloud.URL, "appUpdatePollInterval": "900000", "developmentMode": "true",
		"wifiSsid": "home", "wifiKey": "secret",
	} {
		if got := any.text(field); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	if any["apiKey"] == nil || any["uuid"] != nil {
		t.Errorf("a new device of the fleet gets %v", any)
	}
	one := read("config generate --device " + uuid + " --network ethernet --generate-device-api-key")
	if one.text("uuid") != uuid || one["deviceApiKey"] == nil || one["apiKey"] != nil {
		t.Errorf("the device gets %v", one)
	}
}

// Who gives no answers on the command line is asked what the cloud wants to know.
func questions(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("curious")
	c := o.converses("config generate --fleet " + fleet + " --version 6.0.0")
	c.answers("Network Connection", "\x1b[B\r") // the second one
	c.answers("Wifi SSID", "home\r")
	c.answers("Wifi Passphrase", "secret\r")
	c.answers("Check for updates every X minutes", "\r")
	c.end(c.ends() == 0, "it failed", []string{"appUpdatePollInterval: 600000", "wifiSsid: home", "wifiKey: secret", "apiKey: "})
}

// Mistakes are answered as such.
func refusals(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("strict")
	o.refuses("fleet create strict --type generic-amd64 --organization admin", "already exists")
	o.refuses("fleet create toasted --type toaster --organization admin", "Device type slug not recognized")
	o.refuses("fleet create 'a b c d' --type generic-amd64 --organization admin", "may only contain")
	o.refuses("fleet admin/nowhere", "Application not found: admin/nowhere")
	o.refuses("device 1234567", "Device not found: 1234567")
	o.refuses("release 1234567", "Release not found: 1234567")
	o.refuses("env set 1ST x --fleet "+fleet, "Environment variable names can only contain alphanumeric characters and underscores.")
	o.refuses("env set USER x --fleet "+fleet, "reserved")
	o.refuses("tag set 'two words' x --fleet "+fleet, "Tag keys cannot contain whitespace.")
}
