package device

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// maybe is a field that may be absent, null or a value.
type maybe[T any] struct {
	said  bool
	value *T // nil: null
}

// UnmarshalJSON is called only for fields that are there.
func (m *maybe[T]) UnmarshalJSON(b []byte) error {
	m.said = true
	if string(b) == "null" {
		return nil
	}
	m.value = new(T)
	return json.Unmarshal(b, m.value)
}

// deviceReport is what a device says about itself. Unknown keys are ignored.
type deviceReport struct {
	Status               maybe[string]  `json:"status"`
	OSVersion            maybe[string]  `json:"os_version"`
	OSVariant            maybe[string]  `json:"os_variant"`
	SupervisorVersion    maybe[string]  `json:"supervisor_version"`
	ProvisioningProgress maybe[float64] `json:"provisioning_progress"`
	ProvisioningState    maybe[string]  `json:"provisioning_state"`
	IPAddress            maybe[string]  `json:"ip_address"`
	MACAddress           maybe[string]  `json:"mac_address"`
	APIPort              maybe[float64] `json:"api_port"`
	APISecret            maybe[string]  `json:"api_secret"`
	CPUID                maybe[string]  `json:"cpu_id"`
	IsUndervolted        maybe[bool]    `json:"is_undervolted"`

	MemoryUsage        maybe[float64] `json:"memory_usage"`
	MemoryTotal        maybe[float64] `json:"memory_total"`
	StorageUsage       maybe[float64] `json:"storage_usage"`
	StorageTotal       maybe[float64] `json:"storage_total"`
	StorageBlockDevice maybe[string]  `json:"storage_block_device"`
	CPUUsage           maybe[float64] `json:"cpu_usage"`
	CPUTemp            maybe[float64] `json:"cpu_temp"`

	Apps map[string]appReport `json:"apps"`
}

type appReport struct {
	ReleaseUUID string                   `json:"release_uuid"`
	Releases    map[string]releaseReport `json:"releases"`
}

type releaseReport struct {
	UpdateStatus string                   `json:"update_status"`
	Services     map[string]serviceReport `json:"services"`
}

type serviceReport struct {
	Image            string   `json:"image"`
	Status           string   `json:"status"`
	DownloadProgress *float64 `json:"download_progress"`
}

// patchState stores reports. Each key of the body is a device's uuid.
func (d *Device) patchState(w http.ResponseWriter, r *http.Request) {
	reports, ok := d.reported(w, r)
	if !ok {
		return
	}
	for _, device := range reports.devices {
		var sent deviceReport
		if err := answer.Unmarshal(reports.raw[device.UUID], &sent); err != nil {
			answer.BadBody(w, err) // it names the field
			return
		}
		report, err := sent.report()
		if err != nil {
			answer.JSON(w, http.StatusBadRequest, device.UUID+": "+err.Error())
			return
		}
		if !d.store(w, r, reports.actor, device, report) {
			return
		}
	}
	answer.Empty(w, http.StatusOK)
}

// reports are a body with a document for each of some devices.
type reports struct {
	actor   auth.Actor
	devices []model.Device
	raw     map[string]json.RawMessage // by uuid
}

// reported reads them; ok is false when the request is answered.
func (d *Device) reported(w http.ResponseWriter, r *http.Request) (all reports, ok bool) {
	if all.actor, ok = d.reportingKey(w, r); !ok {
		return all, false
	}
	if !decodeReports(w, r, &all.raw) {
		return all, false
	}
	all.devices, ok = d.reporters(w, r, all.actor, all.raw)
	return all, ok
}

// reportingKey finds who reports: devices, and their owners by key. ok is false
// when the request is answered.
func (d *Device) reportingKey(w http.ResponseWriter, r *http.Request) (auth.Actor, bool) {
	actor, err := d.auth.Authenticate(r)
	switch {
	case errors.Is(err, auth.ErrUnauthenticated):
		answer.Empty(w, http.StatusUnauthorized)
	case err != nil:
		answer.Failure(w, r, err)
	case !actor.Key:
		answer.KeyRequired(w)
	case actor.Kind != auth.Device && actor.Kind != auth.User:
		answer.Empty(w, http.StatusUnauthorized)
	default:
		return actor, true
	}
	return actor, false
}

// decodeReports reads a body with a document for each device. Anything but an object
// speaks of no device that the caller may report.
func decodeReports(w http.ResponseWriter, r *http.Request, raw *map[string]json.RawMessage) bool {
	body, err := answer.ReadBody(r)
	if err == nil && json.Valid(body) && !isObject(body) {
		answer.Empty(w, http.StatusUnauthorized)
		return false
	}
	if err == nil {
		err = answer.Unmarshal(body, raw)
	}
	if err != nil {
		answer.BadBody(w, err)
	}
	return err == nil
}

func isObject(raw []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) }

// reporters are the devices named by a report; ok is false when the request
// is answered: one device that may not be reported refuses the whole.
func (d *Device) reporters(w http.ResponseWriter, r *http.Request, actor auth.Actor, raw map[string]json.RawMessage) ([]model.Device, bool) {
	var devices []model.Device
	for _, uuid := range slices.Sorted(maps.Keys(raw)) {
		if !isObject(raw[uuid]) {
			continue
		}
		device, err := d.find(r.Context(), uuid)
		may := false
		if err == nil && device != nil {
			may, err = d.may(r.Context(), actor, access.Update, *device)
		}
		if !answer.Allow(w, r, may, err) {
			return nil, false
		}
		devices = append(devices, *device)
	}
	if len(devices) == 0 {
		answer.Empty(w, http.StatusUnauthorized)
		return nil, false
	}
	return devices, true
}

// store stores the report of one device; false: the request is answered.
func (d *Device) store(w http.ResponseWriter, r *http.Request, actor auth.Actor, device model.Device, report model.Report) bool {
	if actor.Kind == auth.Device {
		d.presence.enter(device.ID, 0, false)
		defer d.presence.leave(device.ID)
		report.Values = append(report.Values, model.Value{Column: "public_address", Value: auth.ClientAddress(r)})
	}
	report.MetricsDue = len(report.Metrics) > 0 && d.presence.metricsDue(device.ID)
	if err := d.reports.Apply(r.Context(), device.ID, report); err != nil {
		answer.Failure(w, r, err)
		return false
	}
	return true
}

// report is the model's form of what was sent.
func (s deviceReport) report() (model.Report, error) {
	report := model.Report{HasApps: s.Apps != nil, Values: s.values(), Metrics: s.metrics()}
	for _, uuid := range slices.Sorted(maps.Keys(s.Apps)) {
		app := model.ReportedApp{UUID: uuid, Running: s.Apps[uuid].ReleaseUUID}
		for _, commit := range slices.Sorted(maps.Keys(s.Apps[uuid].Releases)) {
			release := s.Apps[uuid].Releases[commit]
			if release.UpdateStatus != "" && !slices.Contains(model.UpdateStatuses(), release.UpdateStatus) {
				return report, fmt.Errorf("apps.%s.releases.%s.update_status: %q is not one of %s", uuid, commit, release.UpdateStatus, strings.Join(model.UpdateStatuses(), ", "))
			}
			app.Releases = append(app.Releases, release.reported(commit))
		}
		report.Apps = append(report.Apps, app)
	}
	return report, nil
}

func (s releaseReport) reported(commit string) model.ReportedRelease {
	release := model.ReportedRelease{Commit: commit, UpdateStatus: s.UpdateStatus}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		service := s.Services[name]
		reported := model.ReportedService{Name: name, Image: service.Image, Status: service.Status}
		if service.DownloadProgress != nil {
			reported.Progress = new(whole(*service.DownloadProgress))
		}
		release.Services = append(release.Services, reported)
	}
	return release
}

func (s deviceReport) values() []model.Value {
	var all columns
	all.text("status", s.Status, 50)
	all.text("os_version", s.OSVersion, 70)
	if v := s.OSVariant; v.said && (v.value == nil || *v.value == "dev" || *v.value == "prod") {
		all.text("os_variant", v, 4)
	}
	all.text("supervisor_version", s.SupervisorVersion, 20)
	all.number("provisioning_progress", s.ProvisioningProgress)
	all.text("provisioning_state", s.ProvisioningState, 255)
	all.words("ip_address", s.IPAddress, 2000)
	all.words("mac_address", s.MACAddress, 900)
	all.number("api_port", s.APIPort)
	all.text("api_secret", s.APISecret, 64)
	if v := s.CPUID; v.said && (v.value == nil || printable(*v.value)) {
		if v.value != nil {
			v.value = new(strings.ToLower(*v.value))
		}
		all.text("cpu_id", v, 255)
	}
	if s.IsUndervolted.value != nil {
		all = append(all, model.Value{Column: "is_undervolted", Value: *s.IsUndervolted.value})
	}
	return all
}

func (s deviceReport) metrics() []model.Value {
	var all columns
	all.number("memory_usage", s.MemoryUsage)
	all.number("memory_total", s.MemoryTotal)
	all.number("storage_usage", s.StorageUsage)
	all.number("storage_total", s.StorageTotal)
	all.text("storage_block_device", s.StorageBlockDevice, 255)
	all.number("cpu_usage", s.CPUUsage)
	all.number("cpu_temp", s.CPUTemp)
	return all
}

type columns []model.Value

func (c *columns) text(column string, v maybe[string], limit int) {
	switch {
	case !v.said:
	case v.value == nil:
		*c = append(*c, model.Value{Column: column})
	default:
		s := *v.value
		if len(s) > limit {
			s = s[:limit]
		}
		*c = append(*c, model.Value{Column: column, Value: strings.ToValidUTF8(s, "")})
	}
}

// words is text that is a list: too much of it loses whole words.
func (c *columns) words(column string, v maybe[string], limit int) {
	if v.value != nil && len(*v.value) > limit {
		s := (*v.value)[:limit+1]
		v.value = new(s[:max(strings.LastIndexByte(s, ' '), 0)])
	}
	c.text(column, v, limit)
}

func (c *columns) number(column string, v maybe[float64]) {
	switch {
	case !v.said:
	case v.value == nil:
		*c = append(*c, model.Value{Column: column})
	default:
		*c = append(*c, model.Value{Column: column, Value: whole(*v.value)})
	}
}

// whole rounds into the range of a 32-bit number.
func whole(f float64) int64 {
	return int64(math.Round(min(max(f, -math.MaxInt32), math.MaxInt32)))
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}
