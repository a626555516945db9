package auth

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"deckhand/cloud/answer"
)

// Routes adds the routes about identity to the mux.
func (a *Auth) Routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /login_", a.login)
	mux.HandleFunc("GET /user/v1/refresh-token", a.refresh)
	mux.HandleFunc("POST /user/v1/refresh-token", a.refresh)
	mux.HandleFunc("GET /actor/v1/whoami", a.actorWhoami)
	mux.HandleFunc("GET /user/v1/whoami", a.userWhoami)
	mux.HandleFunc("POST /api-key/user/full", a.createUserKey)
	for _, path := range []string{"/api-key/v1", "/api-key/v1/{$}"} {
		mux.HandleFunc("POST "+path, a.createKeyV1)
	}
	for _, path := range []string{"/api-key/v2", "/api-key/v2/{$}"} {
		mux.HandleFunc("POST "+path, a.createKeyV2)
	}
	mux.HandleFunc("POST /api-key/application/{id}/provisioning", a.createProvisioningKey)
	mux.HandleFunc("POST /application/{id}/generate-api-key", a.createProvisioningKey)
	mux.HandleFunc("POST /api-key/device/{id}/device-key", a.createDeviceKey)
	mux.HandleFunc("GET /auth/v1/public-keys/{username}", a.publicKeys)
	mux.HandleFunc("GET /services/vpn/auth/{uuid}", a.vpnLogin)
	mux.HandleFunc("GET /access/v1/hostos/{uuid}", a.hostAccess)
	mux.HandleFunc("GET /auth/v1/token", a.registryToken)
	// Registry clients try the OAuth form first and fall back on 404.
	mux.HandleFunc("POST /auth/v1/token", http.NotFound)
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
		answerTooMany(w, tooMany)
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
	token, err := a.AnotherSession(r.Context(), actor)
	switch {
	case errors.Is(err, ErrUnauthenticated): // a key is none
		answer.Empty(w, http.StatusUnauthorized)
	case err != nil:
		answer.Failure(w, r, err)
	default:
		answer.Text(w, http.StatusOK, token)
	}
}

func (a *Auth) actorWhoami(w http.ResponseWriter, r *http.Request) {
	actor, ok := a.Require(w, r, User, Device, Fleet)
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
	case None, VPN: // Require refused them
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

// registryToken is the token endpoint of the Docker registry protocol.
func (a *Auth) registryToken(w http.ResponseWriter, r *http.Request) {
	asked := scopes(r.URL.Query())
	if a.isBuilder(credential(r)) {
		a.answerToken(w, r, "builder", asked)
		return
	}
	actor, err := a.Authenticate(r)
	tooMany, refused := errors.AsType[*TooManyAttempts](err)
	switch {
	case refused:
		answerTooMany(w, tooMany)
		return
	case errors.Is(err, ErrUnauthenticated) && credential(r) == "":
	case errors.Is(err, ErrUnauthenticated) || err == nil && !ownName(r, actor):
		answer.Empty(w, http.StatusUnauthorized)
		return
	case err != nil:
		answer.Failure(w, r, err)
		return
	}
	granted, err := a.RegistryAccess(r.Context(), actor, asked)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	subject := ""
	switch actor.Kind {
	case Device:
		subject = "d_" + actor.Name
	case User:
		subject = actor.Name
	case None, Fleet, VPN:
	}
	a.answerToken(w, r, subject, granted)
}

// ownName says whether a login as "d_<uuid>" is with the key of that device.
func ownName(r *http.Request, actor Actor) bool {
	name, _, basic := r.BasicAuth()
	return !basic || actor.Kind != Device || !strings.HasPrefix(name, "d_") || name == "d_"+actor.Name
}

func (a *Auth) answerToken(w http.ResponseWriter, r *http.Request, subject string, granted []Access) {
	token, err := a.SignRegistryToken(subject, granted)
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
