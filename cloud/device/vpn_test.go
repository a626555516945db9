package device_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
	"deckhand/cloud/odata"
)

const (
	vpnConnect    = "/services/vpn/client-connect"
	vpnDisconnect = "/services/vpn/client-disconnect"
)

// vpnWorld is a cloud in which no device falls silent by itself.
func vpnWorld(t *testing.T) *cloudtest.World {
	t.Helper()
	w := cloudtest.New(t, nil)
	device.New(device.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	return w
}

// vpnServer makes a row for a VPN server, as it does itself at its start.
func vpnServer(w *cloudtest.World, ip string) int64 {
	w.T.Helper()
	a := w.Want(201, "POST", "/v7/service_instance", cloudtest.VPNKey, fmt.Sprintf(`{"service_type":"vpn","ip_address":%q}`, ip))
	var row struct{ ID int64 }
	if err := json.Unmarshal([]byte(a.Body), &row); err != nil {
		w.T.Fatal(err)
	}
	return row.ID
}

// A VPN server tells which devices are connected, and is believed besides what the
// cloud hears itself.
func TestAVPNServerTellsWhoIsConnected(t *testing.T) {
	w := vpnWorld(t)
	now := time.Now()
	f := w.Fleet(w.Admin, "garden")
	d, _ := w.Device(f, "a")
	first, second := vpnServer(w, "10.0.0.1"), vpnServer(w, "fd00::2")
	tell := func(path string, server int64, uuids ...string) {
		t.Helper()
		body, err := json.Marshal(map[string]any{"uuids": uuids, "serviceId": server})
		if err != nil {
			t.Fatal(err)
		}
		w.Want(200, "POST", path, cloudtest.VPNKey, string(body))
	}
	looks := func(when, online, server string) {
		t.Helper()
		a := w.Want(200, "GET", "/v7/device(1)?$select=is_online,is_connected_to_vpn,is_managed_by__service_instance,last_vpn_event", w.AdminSession, "")
		want := fmt.Sprintf(`{"d":[{"is_online":%s,"is_connected_to_vpn":%s,"is_managed_by__service_instance":%s,"last_vpn_event"`, online, online, server)
		if !strings.HasPrefix(a.Body, want) {
			t.Errorf("%s: %s, want %s", when, a.Body, want)
		}
	}
	at := func(id int64) string { return fmt.Sprintf(`{"__id":%d}`, id) }

	tell(vpnConnect, first, d.UUID, strings.Repeat("f", 32))
	looks("connected", "true", at(first))
	if err := w.DB.SetHeartbeat(t.Context(), d.ID, "online", now); err != nil {
		t.Fatal(err)
	}
	if err := w.DB.SetHeartbeat(t.Context(), d.ID, "offline", now); err != nil {
		t.Fatal(err)
	}
	looks("connected, and not heard any more", "true", at(first))
	tell(vpnConnect, second, d.UUID)
	tell(vpnDisconnect, first, d.UUID) // which hears late that it lost the device
	looks("at the other server", "true", at(second))
	tell(vpnDisconnect, second, d.UUID)
	looks("gone", "false", "null")

	if err := w.DB.SetHeartbeat(t.Context(), d.ID, "online", now); err != nil {
		t.Fatal(err)
	}
	tell(vpnConnect, first, d.UUID)
	tell(vpnDisconnect, first, d.UUID)
	looks("heard without the VPN", "true", "null")
}

func TestWhoTellsOfTheVPN(t *testing.T) {
	w := vpnWorld(t)
	f := w.Fleet(w.Admin, "garden")
	d, key := w.Device(f, "a")
	server := vpnServer(w, "10.0.0.1")
	body := fmt.Sprintf(`{"uuids":[%q],"serviceId":%d}`, d.UUID, server)
	for who, credential := range map[string]string{
		"a guest": "", "a wrong key": cloudtest.VPNKey + "x", "the device": key, "a session": w.AdminSession,
		"a user's key": w.Key(w.Admin.Actor, "named-user-api-key"), "a provisioning key": w.Key(f.Actor, "provisioning-api-key"),
	} {
		for _, path := range []string{vpnConnect, vpnDisconnect} {
			if a := w.Do("POST", path, credential, body); a.Status != 401 {
				t.Errorf("%s, %s: %d %s", who, path, a.Status, a.Body)
			}
		}
	}
	for wrong, want := range map[string]string{
		`{"uuids":[],"serviceId":1}`:                     "uuids must be",
		`{"serviceId":1}`:                                "uuids must be",
		`{"uuids":["\u0000"],"serviceId":1}`:             "uuids must be",
		`{"uuids":["` + d.UUID + `"],"serviceId":99}`:    "serviceId must be",
		`{"uuids":["` + d.UUID + `"]}`:                   "serviceId must be",
		`{"uuids":"` + d.UUID + `","serviceId":1}`:       "uuids",
		`{"uuids":["` + d.UUID + `"],"serviceId":"one"}`: "serviceId",
	} {
		if a := w.Want(400, "POST", vpnConnect, cloudtest.VPNKey, wrong); !strings.Contains(a.Body, want) {
			t.Errorf("%s: %s", wrong, a.Body)
		}
	}
	// Its key opens nothing else.
	for path, want := range map[string]int{
		"/v7/device?$select=uuid": 401, "/v7/user?$select=username": 401, "/actor/v1/whoami": 401, "/device/v3/" + d.UUID + "/state": 401,
		"/v7/service_instance?$select=ip_address": 200,
	} {
		w.Want(want, "GET", path, cloudtest.VPNKey, "")
	}
	w.Want(400, "POST", "/v7/service_instance", cloudtest.VPNKey, `{"service_type":"vpn","ip_address":"nowhere"}`)
	w.Want(200, "PATCH", fmt.Sprintf("/v7/service_instance(%d)", server), cloudtest.VPNKey, `{"last_heartbeat":1750000000000}`)
	w.Want(401, "DELETE", fmt.Sprintf("/v7/service_instance(%d)", server), cloudtest.VPNKey, "")
}
