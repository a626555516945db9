package auth

import (
	"errors"
	"net/http"
	"strings"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// publicKeys are the SSH keys of a user, one a line, as far as the caller may read
// them: a device lets in those of its owners.
func (a *Auth) publicKeys(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r)
	if !ok {
		return
	}
	if !actor.Key {
		answer.KeyRequired(w)
		return
	}
	var keys []string
	var err error
	if username := r.PathValue("username"); storable(username) {
		keys, err = a.db.PublicKeys(r.Context(), actor.Caller(), username)
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.Text(w, http.StatusOK, strings.Join(keys, "\n"))
}

// vpnLogin answers a VPN server whether a device may connect: with its own key.
func (a *Auth) vpnLogin(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r, Device)
	if !ok {
		return
	}
	may, err := a.db.May(r.Context(), actor.Caller(), "device", access.Read, actor.ID)
	switch {
	case err != nil:
		answer.Failure(w, r, err)
	case !may || actor.Name != r.PathValue("uuid"):
		answer.Empty(w, http.StatusUnauthorized)
	default:
		answer.Empty(w, http.StatusOK)
	}
}

// hostAccess says whether the caller may log in to the host of a device.
func (a *Auth) hostAccess(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r)
	if !ok {
		return
	}
	uuid := r.PathValue("uuid")
	if !storable(uuid) {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	device, err := a.db.DeviceByUUID(r.Context(), uuid)
	may := false
	if err == nil {
		may, err = a.db.May(r.Context(), actor.Caller(), "device", access.Tunnel, device.ID)
	}
	switch {
	case err != nil && !errors.Is(err, model.ErrNotFound):
		answer.Failure(w, r, err)
	case !may:
		answer.Empty(w, http.StatusUnauthorized)
	default:
		answer.Empty(w, http.StatusOK)
	}
}
