package auth

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// keyRequest is the body of the routes that make keys.
type keyRequest struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	APIKey      string `json:"apiKey"`
	// ExpiryDate tells "null" from nothing at all.
	ExpiryDate expiry `json:"expiryDate"`
	// The rest says whose key it is, where the path does not.
	ActorType   string   `json:"actorType"`
	ActorTypeID int64    `json:"actorTypeId"`
	Roles       []string `json:"roles"`
}

// expiry is a date, null or missing.
type expiry struct {
	given bool
	date  string
	null  bool
}

// UnmarshalJSON notes what is there; whether it is a date is checked later.
func (e *expiry) UnmarshalJSON(b []byte) error {
	e.given, e.null, e.date = true, string(b) == "null", strings.Trim(string(b), `"`)
	return nil
}

// time is zero when the key never expires.
func (e expiry) time() (time.Time, error) {
	if !e.given || e.null {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, e.date); err == nil {
		return t, nil
	}
	return time.Parse(time.DateOnly, e.date)
}

// The lengths in bytes of the longest name and description of a key.
const (
	maxKeyName        = 255
	maxKeyDescription = 1000
)

const badExpiry = "Key expiry date should be a valid date"

// keyDetails reads the body; ok is false when the request is answered.
func keyDetails(w http.ResponseWriter, r *http.Request) (body keyRequest, k model.NewKey, ok bool) {
	b, err := answer.ReadBody(r)
	if err == nil && len(b) > 0 {
		err = answer.Unmarshal(b, &body)
	}
	if err != nil {
		answer.BadBody(w, err)
		return body, k, false
	}
	if len(body.Name) > maxKeyName || len(body.Description) > maxKeyDescription {
		answer.JSON(w, http.StatusBadRequest, fmt.Sprintf("The name of a key has at most %d characters, its description %d.", maxKeyName, maxKeyDescription))
		return body, k, false
	}
	if strings.ContainsRune(body.Name+body.Description, 0) {
		answer.JSON(w, http.StatusBadRequest, "The name of a key and its description must not contain null characters.")
		return body, k, false
	}
	k = model.NewKey{Key: body.APIKey, Name: body.Name, Description: body.Description}
	if k.Expiry, err = body.ExpiryDate.time(); err != nil {
		answer.JSON(w, http.StatusBadRequest, badExpiry)
		return body, k, false
	}
	return body, k, true
}

// ValidKey says whether a key chosen by a client may be stored: long enough
// not to be guessed, and safe in headers and addresses.
func ValidKey(key string) bool {
	return len(key) >= 16 && len(key) <= 256 && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

func (a *Auth) answerKey(w http.ResponseWriter, r *http.Request, k model.NewKey) {
	if k.Key != "" && !ValidKey(k.Key) {
		answer.JSON(w, http.StatusBadRequest, "apiKey must be 16 to 256 of the characters [a-zA-Z0-9_-].")
		return
	}
	if by, err := a.Authenticate(r); err == nil {
		k.By = by.Caller()
	}
	key, err := a.NewKey(r.Context(), k)
	if errors.Is(err, model.ErrConflict) {
		answer.JSON(w, http.StatusConflict, err.Error())
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, key)
}

// sudo says whether the actor may make keys that act as the user: with a
// session for which the password was given a short time ago. A key that was
// stolen, or a browser that was left open, makes no more keys.
func (a *Auth) sudo(actor Actor) bool {
	return actor.Kind == User && !actor.Key && a.db.Now().Sub(actor.authTime) < sudoAge
}

func (a *Auth) createUserKey(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r, User)
	if !ok {
		return
	}
	if !a.sudo(actor) {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	_, k, ok := keyDetails(w, r)
	if !ok {
		return
	}
	if k.Name == "" {
		answer.JSON(w, http.StatusBadRequest, "API keys require a name")
		return
	}
	k.Key, k.Actor, k.Role = "", actor.ActorID, model.RoleUser
	a.answerKey(w, r, k)
}

// createKeyV2 makes a key of any kind; the body says whose.
func (a *Auth) createKeyV2(w http.ResponseWriter, r *http.Request) { a.createNamedKey(w, r, true) }

// createKeyV1 is the same, where the date of expiry need not be given.
func (a *Auth) createKeyV1(w http.ResponseWriter, r *http.Request) { a.createNamedKey(w, r, false) }

func (a *Auth) createNamedKey(w http.ResponseWriter, r *http.Request, dated bool) {
	actor, ok := a.Require(w, r)
	if !ok {
		return
	}
	body, k, ok := keyDetails(w, r)
	if !ok {
		return
	}
	if dated && !body.ExpiryDate.given {
		answer.JSON(w, http.StatusBadRequest, badExpiry)
		return
	}
	role, problem := roleOf(body)
	if problem != "" {
		answer.JSON(w, http.StatusBadRequest, problem)
		return
	}
	k.Role = role
	if role != model.RoleDevice { // only a device has its key before the cloud
		k.Key = ""
	}
	a.createKeyFor(w, r, actor, body.ActorType, body.ActorTypeID, k)
}

// roleOf is the one role that a request asks for, or what is wrong with it.
func roleOf(body keyRequest) (role model.Role, problem string) {
	roles := map[string]model.Role{"application": model.RoleProvisioning, "device": model.RoleDevice, "user": model.RoleUser}
	role, known := roles[body.ActorType]
	switch {
	case !known:
		return "", fmt.Sprintf("actorType must be application, device or user, not %q.", body.ActorType)
	case body.ActorTypeID <= 0:
		return "", "actorTypeId must be the id of the " + body.ActorType + "."
	case len(body.Roles) != 1:
		return "", "roles must name exactly one role."
	case body.Roles[0] != string(role):
		return "", fmt.Sprintf("A key of the actor type %s has the role %s, not %q.", body.ActorType, role, body.Roles[0])
	}
	return role, ""
}

func (a *Auth) createProvisioningKey(w http.ResponseWriter, r *http.Request) {
	a.createKeyAt(w, r, "application", "Application ID", model.RoleProvisioning)
}

// createDeviceKey is for the device's owner and the device itself. A
// provisioning key is refused: it is in every image of the fleet, and must
// not take over devices.
func (a *Auth) createDeviceKey(w http.ResponseWriter, r *http.Request) {
	a.createKeyAt(w, r, "device", "Device ID", model.RoleDevice)
}

// createKeyAt makes a key of the fleet or device that the path names.
func (a *Auth) createKeyAt(w http.ResponseWriter, r *http.Request, resource, what string, role model.Role) {
	actor, ok := a.Require(w, r)
	if !ok {
		return
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		answer.JSON(w, http.StatusBadRequest, fmt.Sprintf("%s must be a valid integer, not %q.", what, r.PathValue("id")))
		return
	}
	_, k, ok := keyDetails(w, r)
	if !ok {
		return
	}
	k.Role = role
	if role != model.RoleDevice {
		k.Key = ""
	}
	a.createKeyFor(w, r, actor, resource, id, k)
}

// createKeyFor makes a key when the caller may change what it is for: keys of
// a user need a fresh session of that user, others the right to update the
// fleet or device.
func (a *Auth) createKeyFor(w http.ResponseWriter, r *http.Request, actor Actor, resource string, id int64, k model.NewKey) {
	may := a.sudo(actor) && actor.ID == id
	if resource != "user" {
		var err error
		if may, err = a.db.May(r.Context(), actor.Caller(), resource, access.Update, id); err != nil {
			answer.Failure(w, r, err)
			return
		}
	}
	if !may {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	var err error
	if k.Actor, err = a.db.ActorOf(r.Context(), resource, id); err != nil {
		answer.Failure(w, r, err)
		return
	}
	a.answerKey(w, r, k)
}
