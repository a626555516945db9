package device

import (
	"encoding/json"
	"errors"
	"net/http"

	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// patchTags gives devices tags. Each key of the body is a device's uuid.
func (d *Device) patchTags(w http.ResponseWriter, r *http.Request) {
	reports, ok := d.reported(w, r)
	if !ok {
		return
	}
	for _, device := range reports.devices {
		var tags map[string]*string
		if err := json.Unmarshal(reports.raw[device.UUID], &tags); err != nil {
			answer.JSON(w, http.StatusBadRequest, "The value of a tag must be a text.")
			return
		}
		if len(tags) == 0 {
			answer.JSON(w, http.StatusBadRequest, "No tags were sent to be updated.")
			return
		}
		if !d.setTags(w, r, device, tags) {
			return
		}
	}
	answer.Empty(w, http.StatusOK)
}

// setTags stores the tags of one device; false: the request is answered.
func (d *Device) setTags(w http.ResponseWriter, r *http.Request, device model.Device, tags map[string]*string) bool {
	texts := make(map[string]string, len(tags))
	for name, value := range tags {
		if value == nil {
			answer.JSON(w, http.StatusBadRequest, "The value of a tag must be a text.")
			return false
		}
		texts[name] = *value
	}
	err := d.db.SetTags(r.Context(), device.ID, texts)
	if field, ok := errors.AsType[*model.FieldError](err); ok {
		answer.JSON(w, http.StatusBadRequest, field.Reason)
		return false
	}
	if err != nil {
		answer.Failure(w, r, err)
		return false
	}
	return true
}
