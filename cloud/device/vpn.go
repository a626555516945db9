package device

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// noteVPN takes from a VPN server which devices came to it, or left it.
func (d *Device) noteVPN(connected bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		actor, ok := d.auth.Require(w, r, auth.VPN)
		if !ok {
			return
		}
		var body struct {
			UUIDs   []string `json:"uuids"`
			Service int64    `json:"serviceId"`
		}
		if err := answer.Decode(r, &body); err != nil {
			answer.BadBody(w, err)
			return
		}
		if len(body.UUIDs) == 0 || slices.ContainsFunc(body.UUIDs, func(uuid string) bool { return strings.Trim(uuid, "0123456789abcdef") != "" }) {
			answer.JSON(w, http.StatusBadRequest, "uuids must be a list of UUIDs of devices.")
			return
		}
		err := d.db.NoteVPN(r.Context(), actor.Caller(), model.VPNEvent{UUIDs: body.UUIDs, Service: body.Service, Connected: connected})
		switch {
		case errors.Is(err, model.ErrNotFound):
			answer.JSON(w, http.StatusBadRequest, "serviceId must be the id of a service_instance.")
		case err != nil:
			answer.Failure(w, r, err)
		default:
			answer.Empty(w, http.StatusOK)
		}
	}
}
