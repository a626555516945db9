package odata_test

import (
	"fmt"
	"strings"
	"testing"
)

// A user chooses another password: it works from then on, and nobody stays logged in.
func TestAUserChangesThePassword(t *testing.T) {
	w := start(t)
	self := fmt.Sprintf("/v7/user(%d)", w.Admin.ID)
	login := func(status int, password string) string {
		t.Helper()
		return w.Want(status, "POST", "/login_", "", `{"username":"admin","password":"`+password+`"}`).Body
	}
	for body, status := range map[string]int{
		`{"password":"short"}`: 400, `{"password":12345678}`: 400, `{"password":null}`: 400, `{"jwt_secret":"known","id":7}`: 200,
	} {
		w.Want(status, "PATCH", self, w.AdminSession, body)
	}
	w.Want(200, "PATCH", self, w.BobSession, `{"password":"bob was here"}`) // not his: nothing happens
	w.Want(200, "GET", "/user/v1/whoami", w.AdminSession, "")
	key := w.Key(w.Admin.Actor, "named-user-api-key")
	w.Want(401, "PATCH", self, key, `{"password":"by a key 123"}`) // keys are in scripts
	login(200, w.AdminPassword)
	w.Want(200, "PATCH", self, w.AdminSession, `{"password":"something new"}`)
	w.Want(401, "GET", "/user/v1/whoami", w.AdminSession, "")
	login(401, w.AdminPassword)
	session := login(200, "something new")
	w.Want(200, "GET", "/user/v1/whoami", session, "")
	if a := w.Want(200, "GET", self, session, ""); a.Body == "" || contains(a.Body, "password", "jwt_secret", "argon2") {
		t.Errorf("the user is shown as %s", a.Body)
	}
}

func contains(s string, any ...string) bool {
	for _, part := range any {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}
