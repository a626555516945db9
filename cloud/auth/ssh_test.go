package auth_test

import (
	"strings"
	"testing"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

func TestWhoGetsIntoADevice(t *testing.T) {
	w := cloudtest.New(t, nil)
	fleet, other := w.Fleet(w.Admin, "garden"), w.Fleet(w.Bob, "desert")
	device, key := w.Device(fleet, "a")
	_, foreign := w.Device(other, "b")
	for _, title := range []string{"laptop", "phone"} {
		if _, err := w.DB.Create(t.Context(), caller(w.Admin), "user__has__public_key",
			model.Values{"user": w.Admin.ID, "title": title, "public_key": "ssh-ed25519 AAAA " + title}); err != nil {
			t.Fatal(err)
		}
	}
	const keys, mine = "/auth/v1/public-keys/admin", "ssh-ed25519 AAAA laptop\nssh-ed25519 AAAA phone"
	for name, c := range map[string]struct{ credential, want string }{
		"device":         {key, mine},
		"user":           {w.Key(w.Admin.Actor, model.RoleUser), mine},
		"foreign device": {foreign, ""},
		"foreign user":   {w.Key(w.Bob.Actor, model.RoleUser), ""},
		"provisioning":   {w.Key(fleet.Actor, model.RoleProvisioning), ""},
	} {
		if a := w.Want(200, "GET", keys, c.credential, ""); a.Body != c.want || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("keys for the %s: %q", name, a.Body)
		}
	}
	if a := w.Want(401, "GET", keys, w.AdminSession, ""); a.Body != `{"error":"API key required"}` {
		t.Error(a.Body)
	}
	w.Want(401, "GET", keys, "", "")

	w.Want(200, "GET", "/services/vpn/auth/"+device.UUID, key, "")
	w.Want(200, "GET", "/access/v1/hostos/"+device.UUID, w.AdminSession, "")
	for name, c := range map[string][2]string{
		"another device's VPN":          {"/services/vpn/auth/" + device.UUID, foreign},
		"a user's VPN":                  {"/services/vpn/auth/" + device.UUID, w.AdminSession},
		"a foreign user on the host":    {"/access/v1/hostos/" + device.UUID, w.BobSession},
		"the device on its own host":    {"/access/v1/hostos/" + device.UUID, key},
		"a guest on the host":           {"/access/v1/hostos/" + device.UUID, ""},
		"the host of no device":         {"/access/v1/hostos/" + strings.Repeat("9", 32), w.AdminSession},
		"a provisioning key on the VPN": {"/services/vpn/auth/" + device.UUID, w.Key(fleet.Actor, model.RoleProvisioning)},
	} {
		if a := w.Do("GET", c[0], c[1], ""); a.Status != 401 {
			t.Errorf("%s: %d", name, a.Status)
		}
	}
	if _, err := w.DB.Update(t.Context(), caller(w.Admin), "device", row(device.ID), model.Values{"is_frozen": true}); err != nil {
		t.Fatal(err)
	}
	w.Want(401, "GET", "/services/vpn/auth/"+device.UUID, key, "")
}
