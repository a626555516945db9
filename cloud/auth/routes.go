package auth

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// Routes adds the routes about identity to the mux.
func (a *Auth) Routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /login_", a.login)
	mux.HandleFunc("GET /user/v1/refresh-token", a.refresh)
	mux.HandleFunc("POST /user/v1/refresh-token", a.refresh)
	mux.HandleFunc("GET /actor/v1/whoami", a.actorWhoami)
	mux.HandleFunc("GET /user/v1/whoami", a.userWhoami)
	mux.HandleFunc("POST /api-key/user/full", a.createUserKey)
	mux.HandleFunc("POST /api-key/application/{id}/provisioning", a.createProvisioningKey)
	mux.HandleFunc("POST /application/{id}/generate-api-key", a.createProvisioningKey)
	mux.HandleFunc("POST /api-key/device/{id}/device-key", a.createDeviceKey)
	mux.HandleFunc("GET /auth/v1/token", a.registryToken)
	// Registry clients try the OAuth form first and fall back on 404.
	mux.HandleFunc("POST /auth/v1/token", http.NotFound)
}

// ClientAddress is the address a request comes from, without the port.
func ClientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// Require authenticates and answers 401 or 500 itself when that fails. With
// kinds given the actor must be of one of them.
func (a *Auth) Require(w http.ResponseWriter, r *http.Request, kinds ...Kind) (Actor, bool) {
	actor, err := a.Authenticate(r)
	switch {
	case errors.Is(err, ErrUnauthenticated):
	case err != nil:
		answer.Failure(w, r, err)
		return Actor{}, false
	case len(kinds) == 0 || slices.Contains(kinds, actor.Kind):
		return actor, true
	}
	answer.Empty(w, http.StatusUnauthorized)
	return Actor{}, false
}

func (a *Auth) login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if err := answer.Decode(r, &body); err != nil {
		answer.BadBody(w, err)
		return
	}
	u, err := a.Login(r.Context(), body.Username, body.Password, ClientAddress(r))
	if tooMany, ok := errors.AsType[*TooManyAttempts](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(tooMany.Wait/time.Second)+1))
		answer.JSON(w, http.StatusTooManyRequests, tooMany.Error())
		return
	}
	if errors.Is(err, ErrUnauthenticated) {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	a.answerSession(w, r, u)
}

func (a *Auth) answerSession(w http.ResponseWriter, r *http.Request, u model.User) {
	token, err := a.NewSession(u)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.Text(w, http.StatusOK, token)
}

func (a *Auth) refresh(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r, User)
	if !ok {
		return
	}
	if actor.Key {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	u, err := a.db.UserByID(r.Context(), actor.ID)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	a.answerSession(w, r, u)
}

func (a *Auth) actorWhoami(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r)
	if !ok {
		return
	}
	type who struct {
		ID       int64   `json:"id"`
		Type     string  `json:"actorType"`
		TypeID   int64   `json:"actorTypeId"`
		Username string  `json:"username,omitempty"`
		Email    *string `json:"email,omitempty"`
		UUID     string  `json:"uuid,omitempty"`
		Slug     string  `json:"slug,omitempty"`
	}
	answered := who{ID: actor.ActorID, TypeID: actor.ID}
	switch actor.Kind {
	case User:
		u, err := a.db.UserByID(r.Context(), actor.ID)
		if err != nil {
			answer.Failure(w, r, err)
			return
		}
		answered.Type, answered.Username, answered.Email = "user", u.Username, &u.Email
	case Device:
		answered.Type, answered.UUID = "device", actor.Name
	case Fleet:
		answered.Type, answered.Slug = "application", actor.Name
	case None: // Require refused it
	}
	answer.JSON(w, http.StatusOK, answered)
}

func (a *Auth) userWhoami(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r, User)
	if !ok {
		return
	}
	u, err := a.db.UserByID(r.Context(), actor.ID)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, struct {
		ID       int64  `json:"id"`
		Username string `json:"username"`
		Email    string `json:"email"`
	}{u.ID, u.Username, u.Email})
}

// keyRequest is the body of the routes that make keys.
type keyRequest struct {
	Name        string  `json:"name"`
	Description string  `json:"description"`
	ExpiryDate  *string `json:"expiryDate"`
	APIKey      string  `json:"apiKey"`
}

// keyDetails reads the body; ok is false when the request is answered.
func keyDetails(w http.ResponseWriter, r *http.Request) (k model.NewKey, ok bool) {
	b, err := answer.ReadBody(r)
	if err != nil {
		answer.BadBody(w, err)
		return k, false
	}
	var body keyRequest
	if len(b) > 0 {
		if err := answer.Unmarshal(b, &body); err != nil {
			answer.BadBody(w, err)
			return k, false
		}
	}
	if len(body.Name) > 255 || len(body.Description) > 1000 {
		answer.JSON(w, http.StatusBadRequest, "name or description is too long (255 and 1000 characters).")
		return k, false
	}
	k = model.NewKey{Key: body.APIKey, Name: body.Name, Description: body.Description}
	if body.ExpiryDate != nil {
		if k.Expiry, err = parseDate(*body.ExpiryDate); err != nil {
			answer.JSON(w, http.StatusBadRequest, "Key expiry date should be a valid date")
			return k, false
		}
	}
	return k, true
}

func parseDate(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Parse(time.DateOnly, s)
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

func (a *Auth) createUserKey(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r, User)
	if !ok {
		return
	}
	if actor.Key { // a stolen key must not make more keys
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	k, ok := keyDetails(w, r)
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

func (a *Auth) createProvisioningKey(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r, User)
	if !ok {
		return
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		answer.JSON(w, http.StatusBadRequest, fmt.Sprintf("Application ID must be a valid integer, not %q.", r.PathValue("id")))
		return
	}
	may, err := a.db.UserMayUseFleet(r.Context(), actor.ID, id)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	if !may {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	k, ok := keyDetails(w, r)
	if !ok {
		return
	}
	fleet, err := a.db.FleetByID(r.Context(), id)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	k.Key, k.Actor, k.Role = "", fleet.Actor, model.RoleProvisioning
	a.answerKey(w, r, k)
}

// createDeviceKey is for the device's owner and the device itself. A
// provisioning key is refused: it is in every image of the fleet, and must
// not take over devices.
func (a *Auth) createDeviceKey(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r, User, Device)
	if !ok {
		return
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		answer.JSON(w, http.StatusBadRequest, fmt.Sprintf("Device ID must be a valid integer, not %q.", r.PathValue("id")))
		return
	}
	device, err := a.db.DeviceByID(r.Context(), id)
	if err != nil && !errors.Is(err, model.ErrNotFound) {
		answer.Failure(w, r, err)
		return
	}
	may := err == nil && actor.Is(Device, id)
	if err == nil && actor.Kind == User {
		if may, err = a.db.UserMayUseFleet(r.Context(), actor.ID, device.Fleet); err != nil {
			answer.Failure(w, r, err)
			return
		}
	}
	if !may {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	k, ok := keyDetails(w, r)
	if !ok {
		return
	}
	k.Actor, k.Role = device.Actor, model.RoleDevice
	a.answerKey(w, r, k)
}

// registryToken is the token endpoint of the Docker registry protocol.
func (a *Auth) registryToken(w http.ResponseWriter, r *http.Request) {
	actor, err := a.Authenticate(r)
	if err != nil && !errors.Is(err, ErrUnauthenticated) {
		answer.Failure(w, r, err)
		return
	}
	if err != nil && credential(r) != "" {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	if name, _, basic := r.BasicAuth(); basic && actor.Kind == Device && strings.HasPrefix(name, "d_") && name != "d_"+actor.Name {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	access, err := a.RegistryAccess(r.Context(), actor, scopes(r.URL.Query()))
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	subject := actor.Name
	if actor.Kind == Device {
		subject = "d_" + actor.Name
	}
	token, err := a.SignRegistryToken(subject, access)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, struct {
		Token     string `json:"token"`
		ExpiresIn int    `json:"expires_in"`
		IssuedAt  string `json:"issued_at"`
	}{token, int(registryTokenLife / time.Second), time.Now().UTC().Format(time.RFC3339)})
}

// scopes reads scope=… and scope[n]=… parameters; several scopes may share
// one parameter, separated by spaces. What cannot be read is dropped.
func scopes(query map[string][]string) []Access {
	var all []Access
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if name != "scope" && !strings.HasPrefix(name, "scope[") {
			continue
		}
		for _, value := range query[name] {
			for _, scope := range strings.Fields(value) {
				if access, ok := parseScope(scope); ok {
					all = append(all, access)
				}
			}
		}
	}
	return all
}

// parseScope reads "repository:<name>[:tag|@digest]:<actions>".
func parseScope(scope string) (Access, bool) {
	kind, rest, ok := strings.Cut(scope, ":")
	last := strings.LastIndexByte(rest, ':')
	if !ok || kind != "repository" || last < 1 {
		return Access{}, false
	}
	name, actions := rest[:last], rest[last+1:]
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	access := Access{Type: "repository", Name: name}
	for action := range strings.SplitSeq(actions, ",") {
		if action == "pull" || action == "push" {
			access.Actions = append(access.Actions, action)
		}
	}
	return access, true
}
