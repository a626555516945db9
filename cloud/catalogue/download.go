package catalogue

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// wish is what a client wants in a config.json. Its fields come in the body or
// in the address.
type wish map[string]any

func readWish(r *http.Request) (wish, error) {
	w := wish{}
	if r.Method == http.MethodPost && r.ContentLength != 0 {
		if err := answer.Decode(r, &w); err != nil {
			return nil, err
		}
	}
	for name, values := range r.URL.Query() {
		if len(values) > 0 {
			w[name] = values[0]
		}
	}
	return w, nil
}

func (w wish) text(name string) string {
	switch v := w[name].(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return ""
}

func (w wish) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(w.text(name), 10, 64)
	return n, err == nil
}

func (w wish) yes(name string) bool { return w[name] == true || w[name] == "true" }

// downloadConfig makes the config.json of new devices of a fleet, with a fresh
// provisioning key.
func (c *Catalogue) downloadConfig(w http.ResponseWriter, r *http.Request) {
	actor, ok := c.cfg.Auth.Require(w, r, auth.User)
	if !ok {
		return
	}
	want, err := readWish(r)
	if err != nil {
		answer.BadBody(w, err)
		return
	}
	id, isID := want.number("appId")
	expiry, err := expires(want.text("provisioningKeyExpiryDate"))
	switch {
	case !isID:
		answer.JSON(w, http.StatusBadRequest, "An appId is required.")
		return
	case want.text("version") == "":
		answer.JSON(w, http.StatusBadRequest, "A version is required.")
		return
	case err != nil:
		answer.JSON(w, http.StatusBadRequest, "Key expiry date should be a valid date")
		return
	}
	may, err := c.cfg.DB.UserMayUseFleet(r.Context(), actor.ID, id)
	if !answer.Allow(w, r, may, err) {
		return
	}
	fleet, err := c.cfg.DB.FleetByID(r.Context(), id)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	deviceType, err := c.typeFor(r, want.text("deviceType"), fleet)
	if errors.Is(err, model.ErrNotFound) {
		answer.JSON(w, http.StatusNotFound, "Unknown device type "+want.text("deviceType"))
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	key, err := c.cfg.Auth.NewKey(r.Context(), model.NewKey{Actor: fleet.Actor, Role: model.RoleProvisioning,
		Name: want.text("provisioningKeyName"), Description: want.text("provisioningKeyDescription"), Expiry: expiry, By: actor.Caller()})
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, c.configFile(want, fleet, deviceType, actor.ID, key))
}

// typeFor is the type asked for, the fleet's when none is.
func (c *Catalogue) typeFor(r *http.Request, slug string, fleet model.Fleet) (string, error) {
	if slug == "" {
		return fleet.DeviceType, nil
	}
	all, err := c.cfg.DB.DeviceTypes(r.Context())
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(t model.DeviceType) bool { return t.Slug == slug || slices.Contains(t.Aliases, slug) })
	if i < 0 {
		return "", fmt.Errorf("device type %q: %w", slug, model.ErrNotFound)
	}
	return all[i].Slug, nil
}

const (
	supervisorPort = 48484
	// pollMinutes is the poll interval where the client names none.
	pollMinutes = 1
)

// configFile is the content of config.json.
func (c *Catalogue) configFile(want wish, fleet model.Fleet, deviceType string, user int64, key string) map[string]any {
	minutes, ok := want.number("appUpdatePollInterval")
	if !ok || minutes < 1 {
		minutes = pollMinutes
	}
	host := c.cfg.URL[strings.Index(c.cfg.URL, "://")+3:]
	f := map[string]any{
		"applicationId": fleet.ID, "applicationName": fleet.Name, "deviceType": deviceType, "userId": user, "apiKey": key,
		"appUpdatePollInterval": (time.Duration(minutes) * time.Minute).Milliseconds(),
		"listenPort":            supervisorPort, "apiEndpoint": c.cfg.URL, "registryEndpoint": c.cfg.RegistryHost,
		"deltaEndpoint": c.cfg.URL, "vpnEndpoint": host, "vpnPort": 443, "mixpanelToken": "",
	}
	if want.yes("developmentMode") {
		f["developmentMode"] = true
	}
	if want.yes("secureboot") || want.yes("secureBoot") {
		f["installer"] = map[string]bool{"secureboot": true}
	}
	if len(c.cfg.CA) > 0 {
		f["balenaRootCA"] = base64.StdEncoding.EncodeToString(c.cfg.CA)
	}
	if want.text("network") == "wifi" {
		f["wifiSsid"], f["wifiKey"] = want.text("wifiSsid"), want.text("wifiKey")
	}
	for _, name := range []string{"ip", "gateway", "netmask"} {
		if v := want.text(name); v != "" {
			f[name] = v
		}
	}
	return f
}

// expires reads the date on which a key ends; zero: never.
func expires(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	var t time.Time
	err := json.Unmarshal([]byte(strconv.Quote(text)), &t)
	return t, err
}
