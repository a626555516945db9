package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

const uuid = "0123456789abcdef0123456789abcdef"

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(path, []byte(content), 0o640))
	return path
}

func load(t *testing.T, content string) *File {
	t.Helper()
	f, err := Load(write(t, content))
	must(t, err)
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestDefaults(t *testing.T) {
	want := Values{
		ListenPort: 48484, PollInterval: 15 * time.Minute, BootstrapRetryDelay: 30 * time.Second,
		APITimeout: 15 * time.Minute, DeltaEndpoint: "https://delta.balena-cloud.com",
	}
	for _, content := range []string{`{}`, "\xef\xbb\xbf{}", `{"listenPort":null,"developmentMode":null,"apiKey":null}`} {
		if diff := cmp.Diff(want, load(t, content).Values()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", content, diff)
		}
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	got := load(t, `{"apiEndpoint":"https://api.example.com/","uuid":"`+uuid+`","deviceApiKey":"dk","apiKey":"pk",
		"applicationId":"42","deviceId":7,"registered_at":1700000000000,"deviceType":"raspberrypi4-64","initialDeviceName":"hall",
		"listenPort":"80","appUpdatePollInterval":60000,"bootstrapRetryDelay":"1000ms","apiTimeout":5e3,
		"deltaEndpoint":"http://d","logsEndpoint":"https://l/","hostname":"pi","developmentMode":"ON","persistentLogging":1}`).Values()
	want := Values{
		APIEndpoint: "https://api.example.com", UUID: uuid, DeviceAPIKey: "dk", APIKey: "pk",
		ApplicationID: 42, DeviceID: 7, RegisteredAt: 1700000000000, DeviceType: "raspberrypi4-64", DeviceName: "hall",
		ListenPort: 80, PollInterval: time.Minute, BootstrapRetryDelay: time.Second, APITimeout: 5 * time.Second,
		DeltaEndpoint: "http://d", LogsEndpoint: "https://l", Hostname: "pi", DevelopmentMode: true, PersistentLogging: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !got.Managed() || !got.Provisioned() || got.CloudKey() != "pk" {
		t.Errorf("managed %v, provisioned %v, key %q", got.Managed(), got.Provisioned(), got.CloudKey())
	}
}

func TestBooleans(t *testing.T) {
	for raw, want := range map[string]bool{`1`: true, `true`: true, `"true"`: true, `"On"`: true, `"1"`: true, `0`: false, `false`: false, `"OFF"`: false, `"0"`: false, `null`: false} {
		if got := load(t, `{"developmentMode":`+raw+`}`).Values().DevelopmentMode; got != want {
			t.Errorf("%s is read as %v", raw, got)
		}
	}
}

func TestBadFiles(t *testing.T) {
	cases := map[string]struct{ content, reason string }{
		"empty":            {"", "the file is empty"},
		"blank":            {" \n ", "the file is empty"},
		"cut":              {"{\n  \"uuid\": \"01", "ends in the middle (line 2"},
		"cut after object": {`{"a":1`, "ends in the middle"},
		"not JSON":         {"uuid = 5", "not JSON (line 1, column 1)"},
		"trailing junk":    {`{"a":1} x`, "not JSON (line 1, column 9)"},
		"two objects":      {`{}{}`, "not JSON"},
		"array":            {`[1,2]`, "must hold a JSON object"},
		"text":             {`"hello"`, "must hold a JSON object"},
		"null":             {`null`, "must hold a JSON object"},
		"binary":           {"\x00\x01\x02", "not JSON"},
		"too large":        {`{"a":"` + strings.Repeat("x", maxSize) + `"}`, "larger than 1048576 bytes"},
		"deep":             {strings.Repeat(`{"a":`, 15000) + "1" + strings.Repeat("}", 15000), "depth"},

		"endpoint number":   {`{"apiEndpoint":5}`, "apiEndpoint: 5 is no text"},
		"endpoint no host":  {`{"apiEndpoint":"example.com"}`, "apiEndpoint: \"example.com\" is no address"},
		"endpoint file":     {`{"apiEndpoint":"file:///etc/passwd"}`, "is no address"},
		"endpoint user":     {`{"apiEndpoint":"https://a:b@c"}`, "no user"},
		"uuid path":         {`{"uuid":"../../etc"}`, "uuid: \"../../etc\" is not 32 or 62"},
		"uuid upper":        {`{"uuid":"` + strings.ToUpper(uuid) + `"}`, "lower-case"},
		"uuid object":       {`{"uuid":{"a":1}}`, `uuid: {"a":1} is no text`},
		"port":              {`{"listenPort":70000}`, "listenPort: 70000 is no port"},
		"port huge":         {`{"listenPort":1e15}`, "no port"},
		"port zero":         {`{"listenPort":0}`, "0 is no port"},
		"port float":        {`{"listenPort":80.5}`, "not a whole number"},
		"port text":         {`{"listenPort":"http"}`, `listenPort: "http" is not a number`},
		"poll zero":         {`{"appUpdatePollInterval":0}`, "appUpdatePollInterval: 0s is too short"},
		"poll negative":     {`{"appUpdatePollInterval":-1}`, "not between 0 and a year"},
		"poll absurd":       {`{"appUpdatePollInterval":1e300}`, "not between 0 and a year"},
		"fleet negative":    {`{"applicationId":-3}`, "applicationId: -3 is negative"},
		"bool word":         {`{"developmentMode":"yes"}`, `developmentMode: "yes" is neither true nor false`},
		"bool array":        {`{"persistentLogging":[]}`, "persistentLogging: [] is neither"},
		"hostname newline":  {`{"hostname":"a\nb"}`, "hostname: the text must be one line"},
		"device name long":  {`{"initialDeviceName":"` + strings.Repeat("n", 256) + `"}`, "at most 255 bytes"},
		"key header splits": {`{"deviceApiKey":"a\r\nX: secret"}`, "deviceApiKey: the key must be"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.content)
			_, err := Load(path)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("error %q, want the file and %q", err, c.reason)
			}
			if state.ClassOf(err) != state.ClassInvalid {
				t.Errorf("class %s, want invalid", state.ClassOf(err))
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q shows a secret", err)
			}
			if len(err.Error()) > 700 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestAllWrongKeysAreListed(t *testing.T) {
	_, err := Load(write(t, `{"listenPort":0,"uuid":"x","hostname":"ok"}`))
	if err == nil || !strings.Contains(err.Error(), "listenPort") || !strings.Contains(err.Error(), "uuid") || strings.Contains(err.Error(), "hostname") {
		t.Errorf("error %v", err)
	}
}

func TestPathsThatAreNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, reason := range map[string]string{dir: "not a regular file", filepath.Join(dir, "none"): "no such file", "/dev/zero": "not a regular file"} {
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: error %v, want %q", path, err, reason)
		}
	}
}

func TestUpdateKeepsWhatItDoesNotKnow(t *testing.T) {
	path := write(t, `{"os":{"network":{"x": 1.50,  "y":"é\u00e9"}},
  "apiKey":"pk","wifi":[1,  2], "uuid":"`+uuid+`" , "big":12345678901234567890, "listenPort":"48485"}`)
	f, err := Load(path)
	must(t, err)
	must(t, f.Update(func(v *Values) { v.APIKey, v.DeviceID, v.RegisteredAt = "", 5, 1700000000000 }))
	got, err := os.ReadFile(path)
	must(t, err)
	want := `{
  "os": {"network":{"x": 1.50,  "y":"é\u00e9"}},
  "wifi": [1,  2],
  "uuid": "` + uuid + `",
  "big": 12345678901234567890,
  "listenPort": "48485",
  "deviceId": 5,
  "registered_at": 1700000000000
}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want it kept", info.Mode())
	}
	if f.Values().ListenPort != 48485 || f.Values().APIKey != "" {
		t.Errorf("values %+v", f.Values())
	}
}

func TestUpdateSeesEditsByOthers(t *testing.T) {
	path := write(t, `{"hostname":"old"}`)
	f, err := Load(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(`{"hostname":"edited","new":true}`), 0o600))
	must(t, f.Update(func(v *Values) { v.DeviceID = 3 }))
	if f.Values().Hostname != "edited" {
		t.Error("the edit is not seen")
	}
	b, err := os.ReadFile(path)
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal(b, &m))
	if diff := cmp.Diff(map[string]any{"hostname": "edited", "new": true, "deviceId": 3.0}, m); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUpdateOfADamagedFileChangesNothing(t *testing.T) {
	path := write(t, `{"hostname":"a"}`)
	f, err := Load(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(`{"hostname":`), 0o600))
	if err := f.Update(func(v *Values) { v.DeviceID = 3 }); err == nil {
		t.Error("no error")
	}
	if b, _ := os.ReadFile(path); string(b) != `{"hostname":` {
		t.Errorf("the file was changed to %s", b)
	}
	if f.Values().Hostname != "a" {
		t.Error("the last good values are lost")
	}
}

func TestUpdateRefusesWrongValues(t *testing.T) {
	path := write(t, `{}`)
	f, err := Load(path)
	must(t, err)
	if err := f.Update(func(v *Values) { v.UUID = "no" }); err == nil {
		t.Error("no error")
	}
	if b, _ := os.ReadFile(path); string(b) != `{}` {
		t.Errorf("the file was changed to %s", b)
	}
}

func TestUpdateLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real.json")
	must(t, os.WriteFile(real, []byte(`{}`), 0o600))
	link := filepath.Join(dir, "config.json")
	must(t, os.Symlink(real, link))
	// What a crash in the middle of an earlier write left.
	must(t, os.WriteFile(real+".deckhand-new", []byte(`{"half`), 0o600))
	f, err := Load(link)
	must(t, err)
	must(t, f.Update(func(v *Values) { v.DeviceID = 3 }))
	info, err := os.Lstat(link)
	must(t, err)
	if info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) != 2 {
		t.Errorf("files left behind: %v", files)
	}
}

func TestUpdatesFromManySides(t *testing.T) {
	path := write(t, `{"n":0}`)
	f, err := Load(path)
	must(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				_ = f.Update(func(v *Values) { v.DeviceID++ })
				_ = f.Values()
			}
		})
	}
	wg.Wait()
	again, err := Load(path)
	must(t, err)
	if again.Values().DeviceID != 40 {
		t.Errorf("%d updates survived, want 40", again.Values().DeviceID)
	}
}

func TestEnsureIdentity(t *testing.T) {
	managed := load(t, `{"apiEndpoint":"https://api"}`)
	v, err := managed.EnsureIdentity()
	must(t, err)
	if len(v.UUID) != 32 || len(v.DeviceAPIKey) != 32 || v.UUID == v.DeviceAPIKey {
		t.Errorf("identity %+v", v)
	}
	again, err := Load(managed.Path())
	must(t, err)
	v2, err := again.EnsureIdentity()
	must(t, err)
	if v2 != v {
		t.Error("the identity changed over a restart")
	}

	unmanaged := load(t, `{}`)
	v, err = unmanaged.EnsureIdentity()
	must(t, err)
	if len(v.UUID) != 32 || v.DeviceAPIKey != "" {
		t.Errorf("unmanaged identity %+v, want a UUID and no key", v)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"uuid":"` + uuid + `","listenPort":"12abc","os":{"a":[1,2]}}`))
	f.Add([]byte(`{"a":1,"a":2,"":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := parse(b)
		if err != nil {
			return
		}
		if _, err := doc.values("config.json"); err != nil {
			return
		}
		again, err := parse(doc.encode())
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if a, b := fmt.Sprint(doc), fmt.Sprint(again); a != b {
			t.Fatalf("a rewrite changes %s to %s", a, b)
		}
	})
}
