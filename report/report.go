// Package report tells the cloud what the device looks like: Build makes the
// report from what is wanted, found and being done, Diff leaves the part that
// the cloud does not know yet, Run sends it, not too often, until it is
// acknowledged.
package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"deckhand/reconcile"
	"deckhand/state"
)

// Report is the state report of one device. Only acknowledged reports count as
// known to the cloud.
type Report struct {
	UUID   string
	Device Device
}

// Device is what is reported about the device. The JSON names are the cloud's;
// a field that is empty is not sent, because the cloud refuses a whole report
// for one null it does not expect.
type Device struct {
	APIPort           int    `json:"api_port,omitempty"`
	APISecret         string `json:"api_secret,omitempty"`
	OSVersion         string `json:"os_version,omitempty"`
	OSVariant         string `json:"os_variant,omitempty"`
	SupervisorVersion string `json:"supervisor_version,omitempty"`
	MACAddress        string `json:"mac_address,omitempty"`
	IPAddress         string `json:"ip_address,omitempty"`

	Status               string `json:"status"`                // always idle
	ProvisioningProgress *int   `json:"provisioning_progress"` // always null
	ProvisioningState    string `json:"provisioning_state"`    // always empty

	IsUndervolted bool `json:"is_undervolted"`
	*Metrics           // nil: nothing is said about them

	// Apps by UUID. Nil: nothing is said about apps. An empty map says that
	// the device has none, and the cloud forgets their state.
	Apps map[string]App `json:"apps,omitzero"`
}

// App is one app of the target.
type App struct {
	ReleaseUUID string             `json:"release_uuid,omitempty"` // the last release reached completely
	Releases    map[string]Release `json:"releases"`               // by commit
	Waiting     []Wait             `json:"waiting,omitempty"`      // clouds that do not know it ignore it

	target string // the wanted release; it is not reported
}

// Wait is what holds an app back: a pause after a failure, or an update lock.
type Wait struct {
	Step   string      `json:"step"`
	Class  state.Class `json:"class"`
	Text   string      `json:"text"`             // at most 300 characters
	Holder string      `json:"holder,omitempty"` // of the lock: container and owner of the file
	Since  time.Time   `json:"since,omitzero"`   // the lock is held
	Tries  int         `json:"tries,omitempty"`  // failures in a row
	Until  time.Time   `json:"until,omitzero"`   // the next try; zero: when the lock is given up
}

// idle is the only status that a device has: the cloud derives what it does from
// its apps.
const idle = "Idle"

// longestText keeps an engine's long answer from filling the report.
const longestText = 300

// Release is one release of which something is on the device or wanted.
type Release struct {
	UpdateStatus UpdateStatus       `json:"update_status"`
	Services     map[string]Service `json:"services"` // by name
}

// Service is one service of a release.
type Service struct {
	Image    string `json:"image"`
	Status   Status `json:"status"`
	Progress *int   `json:"download_progress,omitempty"` // percent, while downloading
}

// Facts are what a report says about the device itself.
type Facts struct {
	UUID              string
	SupervisorVersion string
	OSVersion         string // os-release PRETTY_NAME
	OSVariant         string // dev or prod
	MACAddress        string // see Addresses
	IPAddress         string // see Addresses
	APIPort           int    // of the local API
	APISecret         string // its global key
}

// Running is a step that is being done now.
type Running struct {
	Step        reconcile.Step
	Done, Total int64 // bytes of a download; Total 0: not known yet
}

// Input is everything a report is made of.
type Input struct {
	Facts   Facts
	Target  state.Target // Apps nil: no target was ever accepted
	World   state.World
	Running []Running
	Waiting map[string][]Wait // by app UUID

	Undervolted bool // the power supply is too weak, or was since the device started
}

// Build makes the report. Only apps of the target are in it: the cloud refuses
// a report with apps that the device may not see.
func Build(in Input) Report {
	d := Device{
		APIPort: in.Facts.APIPort, APISecret: in.Facts.APISecret, OSVersion: in.Facts.OSVersion, OSVariant: in.Facts.OSVariant,
		SupervisorVersion: in.Facts.SupervisorVersion, MACAddress: in.Facts.MACAddress, IPAddress: in.Facts.IPAddress,
		Status: idle, IsUndervolted: in.Undervolted,
	}
	if in.Target.Apps != nil {
		d.Apps = map[string]App{}
	}
	rows := Rows(in)
	for uuid, want := range in.Target.Apps {
		a := buildApp(want, in.World.Apps[uuid], rows)
		a.Waiting = waits(in.Waiting[uuid])
		d.Apps[uuid] = a
	}
	return Report{UUID: in.Facts.UUID, Device: d}
}

// waits shortens texts and leaves fractions of seconds out: they are noise.
func waits(all []Wait) []Wait {
	out := slices.Clone(all)
	for i, w := range out {
		if r := []rune(w.Text); len(r) > longestText {
			out[i].Text = string(r[:longestText-1]) + "…"
		}
		out[i].Since, out[i].Until = w.Since.UTC().Truncate(time.Second), w.Until.UTC().Truncate(time.Second)
	}
	return out
}

func buildApp(want state.App, now state.AppNow, rows []Row) App {
	a := App{ReleaseUUID: now.Commit, Releases: map[string]Release{}, target: want.Commit}
	if want.Commit != "" {
		a.Releases[want.Commit] = Release{Services: map[string]Service{}}
	}
	pending := map[string]bool{} // releases with a service that still has to start
	for _, r := range rows {
		// A container of an unknown release or image means nothing to the cloud.
		if r.AppUUID != want.UUID || r.Commit == "" || r.Image == "" || r.Superseded {
			continue
		}
		if want.Rejected != "" && r.Commit == want.Commit {
			continue
		}
		release, ok := a.Releases[r.Commit]
		if !ok {
			release = Release{Services: map[string]Service{}}
		}
		release.Services[r.Service] = Service{Image: r.Image, Status: r.Status, Progress: r.Progress}
		a.Releases[r.Commit] = release
		pending[r.Commit] = pending[r.Commit] || r.Pending
	}
	for commit, release := range a.Releases {
		release.UpdateStatus = updateStatus(release.Services, pending[commit])
		if want.Rejected != "" && commit == want.Commit {
			release.UpdateStatus = Rejected
		}
		a.Releases[commit] = release
	}
	return a
}

// MarshalJSON writes the document that the cloud gets: the device by UUID.
func (r Report) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]Device{r.UUID: r.Device})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Report) UnmarshalJSON(b []byte) error {
	var doc map[string]Device
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	if len(doc) != 1 {
		return fmt.Errorf("a report is about one device, this one about %d", len(doc))
	}
	for uuid, device := range doc {
		*r = Report{UUID: uuid, Device: device}
	}
	return nil
}

// Diff is the patch that tells the cloud what changed since the last report:
// whole top-level fields, all apps when anything in them changed. empty means
// that nothing has to be sent.
func Diff(last, now Report) (patch []byte, empty bool, err error) {
	changed, err := changes(last, now)
	if err != nil || len(changed) == 0 {
		return nil, err == nil, err
	}
	patch, err = encode(now.UUID, changed)
	return patch, false, err
}

// changes are the fields that differ, by name.
func changes(last, now Report) (map[string]json.RawMessage, error) {
	was, err := fields(last.Device)
	if err != nil {
		return nil, err
	}
	is, err := fields(now.Device)
	if err != nil {
		return nil, err
	}
	if last.UUID != now.UUID {
		was = nil
	}
	maps.DeleteFunc(is, func(name string, value json.RawMessage) bool {
		old, ok := was[name]
		return ok && bytes.Equal(old, value)
	})
	return is, nil
}

func encode(uuid string, changed map[string]json.RawMessage) ([]byte, error) {
	patch, err := json.Marshal(map[string]map[string]json.RawMessage{uuid: changed})
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	return patch, nil
}

func fields(d Device) (map[string]json.RawMessage, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	var out map[string]json.RawMessage
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	return out, nil
}
