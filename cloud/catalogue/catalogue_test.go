package catalogue

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"deckhand/cloud/cloudtest"
)

func world(t *testing.T) *cloudtest.World {
	w := cloudtest.New(t, nil)
	New(Config{DB: w.DB, Auth: w.Auth, URL: "https://api.example.test", RegistryHost: "registry.example.test", CA: []byte("PEM")}).Routes(w.Mux)
	return w
}

func decode(t *testing.T, body string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return v
}

// A config.json for new devices: its key registers a device and opens nothing else.
func TestDownloadConfig(t *testing.T) {
	w := world(t)
	fleet := w.Fleet(w.Admin, "myfleet")
	body := `{"network":"wifi","wifiSsid":"home","wifiKey":"secret","appUpdatePollInterval":"15","version":"6.0.0","developmentMode":true,"secureBoot":false,"deviceType":"raspberrypi4-64","appId":"1"}`
	got := decode(t, w.Want(http.StatusOK, "POST", "/download-config", w.AdminSession, body).Body)
	for name, want := range map[string]any{
		"applicationId": float64(fleet.ID), "deviceType": "raspberrypi4-64", "userId": float64(w.Admin.ID), "appUpdatePollInterval": 900_000.0,
		"listenPort": 48484.0, "apiEndpoint": "https://api.example.test", "registryEndpoint": "registry.example.test",
		"developmentMode": true, "wifiSsid": "home", "wifiKey": "secret", "balenaRootCA": "UEVN",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	key, _ := got["apiKey"].(string)
	who := decode(t, w.Want(http.StatusOK, "GET", "/actor/v1/whoami", key, "").Body)
	if who["actorType"] != "application" || who["actorTypeId"] != float64(fleet.ID) {
		t.Errorf("the key belongs to %v", who)
	}
	plain := decode(t, w.Want(http.StatusOK, "GET", "/download-config?appId=1&version=6.0.0", w.AdminSession, "").Body)
	if plain["deviceType"] != "generic-amd64" || plain["appUpdatePollInterval"] != 60_000.0 || plain["apiKey"] == key {
		t.Errorf("with nothing asked for: %v", plain)
	}
}

func TestDownloadConfigRefuses(t *testing.T) {
	w := world(t)
	w.Fleet(w.Admin, "myfleet")
	for body, want := range map[string]string{
		`{"version":"1"}`: `"An appId is required."`,
		`{"appId":1}`:     `"A version is required."`,
		`{"appId":1,"version":"1","provisioningKeyExpiryDate":"soon"}`: `"Key expiry date should be a valid date"`,
	} {
		if got := w.Want(http.StatusBadRequest, "POST", "/download-config", w.AdminSession, body).Body; strings.TrimSpace(got) != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	ask := `{"appId":1,"version":"1"}`
	w.Want(http.StatusUnauthorized, "POST", "/download-config", w.BobSession, ask)
	w.Want(http.StatusUnauthorized, "POST", "/download-config", "", ask)
	w.Want(http.StatusNotFound, "POST", "/download-config", w.AdminSession, `{"appId":1,"version":"1","deviceType":"toaster"}`)
}

func TestDeviceTypes(t *testing.T) {
	w := world(t)
	var all []map[string]any
	if err := json.Unmarshal([]byte(w.Want(http.StatusOK, "GET", "/device-types/v1", "", "").Body), &all); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(d map[string]any) bool { return d["slug"] == "raspberrypi4-64" })
	if i < 0 || all[i]["arch"] != "aarch64" {
		t.Fatalf("no Raspberry Pi 4 in %v", all)
	}
	one := decode(t, w.Want(http.StatusOK, "GET", "/device-types/v1/raspberrypi4-64", "", "").Body)
	if steps, _ := one["instructions"].([]any); len(steps) != 2 || steps[1] != "Connect the Raspberry Pi 4 (using 64bit OS) to its power supply." {
		t.Errorf("how the host OS gets onto it: %v", steps)
	}
	for _, d := range all {
		steps, err := json.Marshal(d["instructions"])
		if err != nil || len(steps) < 20 || strings.Contains(string(steps), "{{") || strings.Contains(string(steps), `""`) {
			t.Errorf("instructions of %s: %s", d["slug"], steps)
		}
	}
	if options, _ := one["options"].([]any); len(options) == 0 {
		t.Errorf("nothing to ask for: %v", one)
	}
	w.Want(http.StatusNotFound, "GET", "/device-types/v1/toaster", "", "")
	w.Want(http.StatusOK, "GET", "/device-types/v1/raspberrypi4-64/images", "", "")
}

// What a client may set as a variable follows from these lists.
func TestVariables(t *testing.T) {
	w := world(t)
	got := decode(t, w.Want(http.StatusOK, "GET", "/config/vars?deviceType=generic-amd64", "", "").Body)
	names, _ := got["whiteListedNames"].([]any)
	if len(names) != 28 || !slices.Contains(names, any("BALENA_SUPERVISOR_POLL_INTERVAL")) {
		t.Errorf("%d names: %v", len(names), names)
	}
	if got["invalidRegex"] != `/^\d|\W/` {
		t.Errorf("invalidRegex is %v", got["invalidRegex"])
	}
	w.Want(http.StatusOK, "GET", "/config", w.AdminSession, "")
	services, _ := decode(t, w.Want(http.StatusOK, "GET", "/os/v1/config", "", "").Body)["services"].(map[string]any)
	if services["openvpn"] == nil {
		t.Errorf("the host OS is told of %v", services)
	}
}
