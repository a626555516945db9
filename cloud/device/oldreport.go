package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// secondReport is what devices say about themselves that read /device/v2.
type secondReport struct {
	deviceReport
	Name             maybe[string]        `json:"name"`
	DeviceName       maybe[string]        `json:"device_name"` // an older spelling
	Note             maybe[string]        `json:"note"`
	DownloadProgress maybe[float64]       `json:"download_progress"`
	APIPort          json.RawMessage      `json:"api_port"` // a number or its digits
	Commit           maybe[string]        `json:"is_on__commit"`
	Pin              maybe[float64]       `json:"should_be_running__release"`
	Apps             map[string]secondRun `json:"apps"` // by id
}

type secondRun struct {
	Services map[string]secondService `json:"services"` // by image id
}

type secondService struct {
	ReleaseID        json.RawMessage `json:"releaseId"`
	Status           string          `json:"status"`
	DownloadProgress *float64        `json:"download_progress"`
}

// patchSecondState stores the report of an older device. A device that was deleted is
// told that all is well, so that it does not repeat itself for ever.
func (d *Device) patchSecondState(w http.ResponseWriter, r *http.Request) {
	device, err := d.db.DeviceByUUID(r.Context(), r.PathValue("uuid"))
	if errors.Is(err, model.ErrNotFound) {
		answer.Empty(w, http.StatusOK)
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	if device.Frozen {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	actor, ok := d.reportingKey(w, r)
	if !ok {
		return
	}
	may, err := d.may(r.Context(), actor, access.Update, device)
	if !answer.Allow(w, r, may, err) {
		return
	}
	var body struct {
		Local *secondReport `json:"local"`
	}
	if err := answer.Decode(r, &body); err != nil {
		answer.BadBody(w, err)
		return
	}
	if body.Local == nil {
		answer.JSON(w, http.StatusBadRequest, "The body has no local.")
		return
	}
	if d.storeSecond(w, r, actor, device, *body.Local) {
		answer.Empty(w, http.StatusOK)
	}
}

func (d *Device) storeSecond(w http.ResponseWriter, r *http.Request, actor auth.Actor, device model.Device, sent secondReport) bool {
	report, err := sent.secondForm()
	if err != nil {
		answer.JSON(w, http.StatusBadRequest, err.Error())
		return false
	}
	if err := d.editSecond(r, device, sent); err != nil {
		if field, ok := errors.AsType[*model.FieldError](err); ok {
			answer.JSON(w, http.StatusBadRequest, field.Reason)
		} else {
			answer.Failure(w, r, err)
		}
		return false
	}
	if sent.Commit.said && sent.Commit.value == nil {
		report.StopsRunning = true
	}
	return d.store(w, r, actor, device, report)
}

// editSecond changes what a device decides about itself.
func (d *Device) editSecond(r *http.Request, device model.Device, sent secondReport) error {
	edit := model.DeviceEdit{Name: sent.Name.value}
	if edit.Name == nil {
		edit.Name = sent.DeviceName.value
	}
	if sent.Pin.value != nil {
		edit.Pin = new(whole(*sent.Pin.value))
	}
	if edit == (model.DeviceEdit{}) {
		return nil
	}
	return d.db.EditDevice(r.Context(), device.ID, edit)
}

// secondForm is the model's form of the report.
func (s secondReport) secondForm() (model.Report, error) {
	if err := s.readPort(); err != nil {
		return model.Report{}, err
	}
	report := model.Report{Values: s.values(), Metrics: s.metrics(), HasApps: s.Apps != nil}
	var more columns
	more.text("note", s.Note, 1_000_000)
	more.number("download_progress", s.DownloadProgress)
	report.Values = append(report.Values, more...)
	if s.Commit.value != nil {
		report.Running = *s.Commit.value
	}
	for _, id := range slices.Sorted(maps.Keys(s.Apps)) {
		app, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			return report, fmt.Errorf("apps.%s: the id of an app is a number", id)
		}
		releases, err := s.Apps[id].releases()
		if err != nil {
			return report, err
		}
		report.Apps = append(report.Apps, model.ReportedApp{ID: app, Releases: releases})
	}
	return report, nil
}

// readPort reads the port, which older devices send as text.
func (s *secondReport) readPort() error {
	if s.APIPort == nil {
		return nil
	}
	s.deviceReport.APIPort.said = true
	port, err := digits(s.APIPort)
	if err != nil {
		return errors.New("api_port: want a number")
	}
	if port != 0 {
		s.deviceReport.APIPort.value = new(float64(port))
	}
	return nil
}

func (a secondRun) releases() ([]model.ReportedRelease, error) {
	var all []model.ReportedRelease
	for _, id := range slices.Sorted(maps.Keys(a.Services)) {
		image, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			return nil, errors.New("Invalid image ID value in request") //nolint:staticcheck // wire text
		}
		service := a.Services[id]
		release, err := digits(service.ReleaseID)
		if err != nil || release == 0 {
			return nil, errors.New("Invalid release ID value in request") //nolint:staticcheck // wire text
		}
		one := model.ReportedService{ImageID: image, Status: service.Status}
		if service.DownloadProgress != nil {
			one.Progress = new(whole(*service.DownloadProgress))
		}
		all = append(all, model.ReportedRelease{ID: release, Services: []model.ReportedService{one}})
	}
	return all, nil
}
