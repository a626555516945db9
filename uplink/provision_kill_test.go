package uplink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deckhand/config"
)

// What may happen at a boundary: a request to the cloud, or a write to a disk.
type fate int

const (
	fine       fate = iota
	killBefore      // the process dies, and nothing happens
	killAfter       // it happens, and the process dies before it knows
	refusedNow      // nothing happens, and the process is told so
	lost            // it happens, and the process is told that it failed
	garbled         // it happens, and the answer makes no sense; for a write: lost
)

func (f fate) String() string {
	return [...]string{"fine", "killed before", "killed after", "refused", "answer lost", "answer garbled"}[f]
}

// trouble says which boundaries are not fine, by their number since the device
// was first switched on.
type trouble map[int]fate

// machine is a device with its disks, and the cloud. It survives its processes.
type machine struct {
	office *office
	disk   diskFile // config.json
	pin    string   // commit; empty: none
	told   string

	trouble trouble
	passed  int      // boundaries
	alive   bool     // the process
	kill    func()   // ends its context
	story   []string // of boundaries
}

var errGone = errors.New("the process is dead")

// at passes a boundary.
func (m *machine) at(what string, happens func() error) error {
	if !m.alive {
		return errGone
	}
	m.passed++
	f := m.trouble[m.passed]
	m.story = append(m.story, fmt.Sprintf("%d %s: %v", m.passed, what, f))
	switch f {
	case killBefore, refusedNow:
		if f == killBefore {
			m.die()
		}
		return errors.New("refused")
	case killAfter:
		defer m.die()
	case fine, lost, garbled:
	}
	if err := happens(); err != nil {
		return err
	}
	if f != fine {
		return errLost{f}
	}
	return nil
}

type errLost struct{ how fate }

func (e errLost) Error() string { return e.how.String() }

func (m *machine) die() {
	m.alive = false
	m.kill()
}

// RoundTrip is the network.
func (m *machine) RoundTrip(r *http.Request) (*http.Response, error) {
	var w *httptest.ResponseRecorder
	err := m.at(r.Method+" "+r.URL.Path, func() error {
		w = httptest.NewRecorder()
		m.office.ServeHTTP(w, r)
		return nil
	})
	if l, ok := errors.AsType[errLost](err); ok && l.how == garbled {
		w.Body = bytes.NewBufferString("<html>")
		err = nil
	}
	if err != nil {
		if m.trouble[m.passed] == refusedNow && m.alive {
			w := httptest.NewRecorder()
			w.WriteHeader(http.StatusServiceUnavailable)
			return w.Result(), nil
		}
		return nil, err
	}
	return w.Result(), nil
}

func (m *machine) Pin() (int64, string, bool, error) { return fleetID, m.pin, m.pin != "", nil }

func (m *machine) DropPin() error {
	return m.at("forget the pin", func() error { m.pin = ""; return nil })
}

func (m *machine) Told() (string, error) { return m.told, nil }

func (m *machine) KeepTold(place string) error {
	return m.at("remember what was told", func() error { m.told = place; return nil })
}

// diskFile is config.json on a disk.
type diskFile interface {
	// open reads it as a new process does.
	open() IdentityFile
	values() config.Values
}

// paperFile is one in memory: the real one waits for the disk at each write.
type paperFile struct{ v config.Values }

func (p *paperFile) open() IdentityFile    { return &paperView{p, p.v} }
func (p *paperFile) values() config.Values { return p.v }

type paperView struct {
	*paperFile
	seen config.Values
}

func (p *paperView) Values() config.Values { return p.seen }

func (p *paperView) Update(change func(*config.Values)) error {
	change(&p.v)
	p.seen = p.v
	return nil
}

// realFile is a real one.
type realFile struct {
	t    *testing.T
	path string
}

func (r realFile) open() IdentityFile {
	f, err := config.Load(r.path)
	must(r.t, err)
	return f
}

func (r realFile) values() config.Values { return r.open().Values() }

// watchedFile is config.json as a process writes it.
type watchedFile struct {
	IdentityFile
	m *machine
}

func (w watchedFile) Update(change func(*config.Values)) error {
	return w.m.at("write config.json", func() error { return w.IdentityFile.Update(change) })
}

// run is one life of the device's process; true: it got to the end.
func (m *machine) run(ctx context.Context) bool {
	ctx, m.kill = context.WithCancel(ctx)
	defer m.kill()
	m.alive = true
	file := watchedFile{m.disk.open(), m}
	if Provision(ctx, ProvisionConfig{File: file, Transport: m, DeviceType: "generic-amd64"}) != nil {
		return false
	}
	v := file.Values()
	client, err := New(Config{Endpoint: v.APIEndpoint, UUID: v.UUID, Key: func() string { return v.DeviceAPIKey }, Transport: m})
	if err != nil {
		return false
	}
	return Introduce(ctx, IntroduceConfig{
		Client: client, File: file, Memory: m,
		Settings: func() map[string]string {
			return map[string]string{"SUPERVISOR_LOG_CONTROL": "false", "SUPERVISOR_DELTA": "1"}
		},
	}) == nil
}

// live starts the process again until it gets to the end.
func (m *machine) live(ctx context.Context) error {
	for range 6 {
		if m.run(ctx) {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.New("no end is reached")
}

const (
	fleetID   = 7
	releaseID = 70
	fleetKey  = "prov"
	commit70  = "c70"
)

// office is the cloud's side: who is registered, and what became of them.
type office struct {
	devices    map[string]*registered // by UUID
	exchanges  bool                   // a provisioning key may give a device its key
	violations []string
}

type registered struct {
	id        int64
	key       string
	pinned    int64
	name      string
	variables map[string]string
	asked     bool // for its target
}

func (o *office) wrong(format string, args ...any) {
	o.violations = append(o.violations, fmt.Sprintf(format, args...))
}

func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	var body map[string]any
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(b, &body)
	}
	status, answer := o.answer(r, key, body)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

func (o *office) answer(r *http.Request, key string, body map[string]any) (int, string) {
	if r.URL.Path == "/device/register" {
		return o.register(key, body)
	}
	if strings.HasPrefix(r.URL.Path, "/api-key/device/") {
		return o.exchange(r.URL.Path, key, body)
	}
	if r.URL.Path == "/v7/device" {
		uuid := strings.Trim(strings.TrimPrefix(r.URL.Query().Get("$filter"), "uuid eq "), "'")
		if d := o.devices[uuid]; d != nil && (d.key == key || key == fleetKey && o.exchanges) {
			return 200, fmt.Sprintf(`{"d":[{"id":%d}]}`, d.id)
		}
		return 200, `{"d":[]}`
	}
	for uuid, d := range o.devices {
		if d.key == key {
			return d.answer(o, uuid, r, body)
		}
	}
	o.wrong("%s %s with a key that nobody has", r.Method, r.URL.Path)
	return 401, ""
}

func (o *office) register(key string, body map[string]any) (int, string) {
	uuid, _ := body["uuid"].(string)
	own, _ := body["api_key"].(string)
	if key != fleetKey || uuid == "" || own == "" || body["application"] != float64(fleetID) {
		o.wrong("registration %v with key %s", body, key)
		return 401, ""
	}
	if o.devices[uuid] != nil {
		return 409, `"uuid" must be unique.`
	}
	d := &registered{id: 100 + int64(len(o.devices)), key: own, variables: map[string]string{"RESIN_SUPERVISOR_DELTA": "0"}}
	o.devices[uuid] = d
	return 201, fmt.Sprintf(`{"id":%d,"uuid":%q,"api_key":%q}`, d.id, uuid, own)
}

func (o *office) exchange(path, key string, body map[string]any) (int, string) {
	for _, d := range o.devices {
		if path == fmt.Sprintf("/api-key/device/%d/device-key", d.id) && key == fleetKey && o.exchanges {
			d.key, _ = body["apiKey"].(string)
			return 200, fmt.Sprintf("%q", d.key)
		}
	}
	return 401, ""
}

func (d *registered) answer(o *office, uuid string, r *http.Request, body map[string]any) (int, string) {
	switch r.Method + " " + r.URL.Path {
	case "GET /v7/release":
		if f := r.URL.Query().Get("$filter"); f != "belongs_to__application eq 7 and commit eq 'c70' and status eq 'success'" {
			o.wrong("looked for release %s", f)
		}
		return 200, fmt.Sprintf(`{"d":[{"id":%d}]}`, releaseID)
	case fmt.Sprintf("PATCH /v7/device(%d)", d.id):
		if n, ok := body["is_pinned_on__release"].(float64); ok {
			d.pinned = int64(n)
		}
		if name, ok := body["device_name"].(string); ok {
			d.name = name
		}
		return 200, "OK"
	case "GET /device/v3/" + uuid + "/state":
		if d.pinned == 0 {
			o.wrong("asked for the target before it was pinned")
		}
		d.asked = true
		config, _ := json.Marshal(d.variables)
		return 200, fmt.Sprintf(`{%q:{"config":%s,"apps":{}}}`, uuid, config)
	case "POST /v7/device_config_variable":
		name, _ := body["name"].(string)
		if _, taken := d.variables[name]; taken {
			return 409, ""
		}
		d.variables[name], _ = body["value"].(string)
		return 201, "{}"
	}
	o.wrong("%s %s", r.Method, r.URL.Path)
	return 404, ""
}

// beginning is how a device may come out of its box.
type beginning struct {
	values  func(*config.Values)
	devices map[string]*registered
	// strangers are devices in the cloud that are not this one.
	strangers int
	exchanges bool
	renewed   bool // its UUID is somebody else's
}

func beginnings() map[string]beginning {
	known := func(v *config.Values) { v.UUID, v.DeviceAPIKey = testUUID, "own" }
	theirs := func(key string) map[string]*registered {
		return map[string]*registered{testUUID: {id: 5, key: key, variables: map[string]string{"BALENA_SUPERVISOR_DELTA": "1"}}}
	}
	return map[string]beginning{
		"new":                                {values: func(*config.Values) {}},
		"registered by hand":                 {values: known, devices: theirs("own")},
		"registered by hand under other key": {values: known, devices: theirs("other"), exchanges: true},
		"its number was lost":                {values: func(v *config.Values) { known(v); v.RegisteredAt = 12345 }, devices: theirs("own")},
		"its provisioning key was left": {
			values: func(v *config.Values) { known(v); v.RegisteredAt, v.DeviceID = 12345, 5 }, devices: theirs("own"),
		},
		"its UUID is somebody else's": {values: known, devices: theirs("other"), strangers: 1, renewed: true},
	}
}

func (b beginning) machine() *machine {
	o := &office{devices: map[string]*registered{}, exchanges: b.exchanges}
	for uuid, d := range b.devices {
		fresh := *d
		fresh.variables = maps.Clone(d.variables)
		o.devices[uuid] = &fresh
	}
	v := config.Values{
		APIEndpoint: "https://cloud.test", APIKey: fleetKey, ApplicationID: fleetID, DeviceName: "porch",
		BootstrapRetryDelay: 30 * time.Second, PollInterval: 15 * time.Minute,
	}
	b.values(&v)
	return &machine{office: o, disk: &paperFile{v}, pin: commit70}
}

// check says what is wrong with the end.
func (b beginning) check(m *machine, started time.Time) (problems []string) {
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	v := m.disk.values()
	if n := len(m.office.devices); n != 1+b.strangers {
		say("%d devices in the cloud, want %d", n, 1+b.strangers)
	}
	d := m.office.devices[v.UUID]
	if d == nil || d.key != v.DeviceAPIKey || d.id != v.DeviceID {
		say("the cloud does not know it as config.json says")
		return problems
	}
	if (v.UUID == testUUID) == b.renewed && b.devices != nil {
		say("its UUID is %s", v.UUID)
	}
	if v.APIKey != "" {
		say("the provisioning key is still there")
	}
	if v.RegisteredAt != 12345 && (v.RegisteredAt < started.UnixMilli() || v.RegisteredAt > started.Add(24*time.Hour).UnixMilli()) {
		say("registered at %d, want milliseconds", v.RegisteredAt)
	}
	if d.pinned != releaseID || m.pin != "" {
		say("pinned to %d, wish left %q", d.pinned, m.pin)
	}
	want := map[string]string{"RESIN_SUPERVISOR_LOG_CONTROL": "false"}
	for _, from := range []string{"RESIN_SUPERVISOR_DELTA", "BALENA_SUPERVISOR_DELTA"} {
		if value, had := d.variables[from]; had {
			want[from] = value // it had a value and keeps it
		}
	}
	if !maps.Equal(d.variables, want) || d.name != "porch" || m.told != v.APIEndpoint+" "+v.UUID {
		say("variables %v, name %q, told %q", d.variables, d.name, m.told)
	}
	return append(problems, m.office.violations...)
}

// play lets a device come to life under trouble. It returns the boundaries it
// passed.
func (b beginning) play(t *testing.T, m *machine, trouble trouble) int {
	t.Helper()
	m.trouble = trouble
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Hour)
		defer cancel()
		var problems []string
		if err := m.live(ctx); err != nil {
			problems = append(problems, err.Error())
		}
		if problems = append(problems, b.check(m, started)...); len(problems) > 0 {
			t.Fatalf("%s\n%s", strings.Join(problems, "\n"), strings.Join(m.story, "\n"))
		}
	})
	return m.passed
}

// Whatever happens at any one boundary and at any other after it, a device ends
// as the one device it is, with nothing left to say.
func TestEveryTroubleWhileADeviceArrives(t *testing.T) {
	fates := []fate{killBefore, killAfter, refusedNow, lost, garbled}
	all := beginnings()
	total := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b, stories := all[name], 1
		for first := range b.play(t, b.machine(), nil) {
			for _, one := range fates {
				passed := b.play(t, b.machine(), trouble{first + 1: one})
				stories++
				for second := first + 2; second <= passed; second++ {
					for _, two := range fates {
						b.play(t, b.machine(), trouble{first + 1: one, second: two})
						stories++
					}
				}
			}
		}
		t.Logf("%-36s %5d stories", name, stories)
		total += stories
	}
	t.Logf("%d stories, every one with one device at its end", total)
	if total < 5000 {
		t.Errorf("only %d stories: boundaries are missing", total)
	}
}

// The same with each single trouble on a real config.json.
func TestEveryTroubleWithARealFile(t *testing.T) {
	all := beginnings()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b := all[name]
		n := b.play(t, b.machine(), nil)
		for at := 1; at <= n; at++ {
			for _, f := range []fate{killBefore, killAfter, refusedNow, lost} {
				m := b.machine()
				path := filepath.Join(t.TempDir(), "config.json")
				must(t, os.WriteFile(path, []byte("{}"), 0o600))
				file, err := config.Load(path)
				must(t, err)
				v := m.disk.values()
				must(t, file.Update(func(to *config.Values) { *to = v }))
				m.disk = realFile{t, path}
				b.play(t, m, trouble{at: f})
			}
		}
	}
}
