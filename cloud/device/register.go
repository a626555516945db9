package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

type registration struct {
	Application       json.RawMessage `json:"application"` // a number or its digits
	UUID              string          `json:"uuid"`
	DeviceType        string          `json:"device_type"`
	DeviceName        string          `json:"device_name"`
	APIKey            string          `json:"api_key"`
	Key               string          `json:"apikey"` // the caller's, when not in a header
	SupervisorVersion string          `json:"supervisor_version"`
	OSVersion         string          `json:"os_version"`
	OSVariant         string          `json:"os_variant"`
	MACAddress        string          `json:"mac_address"`
}

func (n registration) check() (fleet int64, err error) {
	fleet, err = strconv.ParseInt(strings.Trim(string(n.Application), `"`), 10, 64)
	switch {
	case err != nil || fleet <= 0:
		return 0, errors.New("Application ID must be a valid integer") //nolint:staticcheck // wire text
	case n.UUID == "":
		return 0, errors.New("UUID must be specified")
	case n.DeviceType == "":
		return 0, errors.New("Device type must be specified")
	case n.APIKey != "" && !auth.ValidKey(n.APIKey):
		return 0, errors.New("api_key must be 16 to 256 of the characters [a-zA-Z0-9_-].") //nolint:staticcheck // wire text
	}
	return fleet, nil
}

func (d *Device) register(w http.ResponseWriter, r *http.Request) {
	var body registration
	if err := answer.Decode(r, &body); err != nil {
		answer.BadBody(w, err)
		return
	}
	actor, err := d.auth.Authenticate(r)
	if errors.Is(err, auth.ErrUnauthenticated) && body.Key != "" {
		actor, err = d.auth.Identify(r.Context(), body.Key)
	}
	if err != nil && !errors.Is(err, auth.ErrUnauthenticated) {
		answer.Failure(w, r, err)
		return
	}
	if !actor.Key {
		answer.KeyRequired(w)
		return
	}
	fleet, err := body.check()
	if err != nil {
		answer.JSON(w, http.StatusBadRequest, err.Error())
		return
	}
	may, err := d.mayAdd(r, actor, fleet)
	if !answer.Allow(w, r, may, err) {
		return
	}
	d.addDevice(w, r, actor, fleet, body)
}

// mayAdd says whether the caller may add devices to the fleet: who creates rows of
// devices is asked about a fleet here, since there is no row yet.
func (d *Device) mayAdd(r *http.Request, actor auth.Actor, fleet int64) (bool, error) {
	switch actor.Kind {
	case auth.Fleet:
		return actor.ID == fleet, nil
	case auth.User:
		return d.db.May(r.Context(), actor.Caller(), "application", access.Update, fleet)
	case auth.None, auth.Device, auth.VPN:
	}
	return false, nil
}

func (d *Device) addDevice(w http.ResponseWriter, r *http.Request, actor auth.Actor, fleet int64, body registration) {
	key := body.APIKey
	if key == "" {
		key = auth.NewSecret(32)
	}
	device, err := d.db.RegisterDevice(r.Context(), model.NewDevice{
		Fleet: fleet, UUID: body.UUID, Name: body.DeviceName, DeviceType: body.DeviceType, Key: key,
		SupervisorVersion: body.SupervisorVersion, OSVersion: body.OSVersion, OSVariant: body.OSVariant, MACAddress: body.MACAddress, By: actor.Caller(),
	})
	switch {
	case errors.Is(err, model.ErrConflict):
		if device, same := d.same(r, fleet, body); same {
			answerRegistered(w, device, key)
			return
		}
		if conflict, ok := errors.AsType[*model.ConflictError](err); ok && slices.Equal(conflict.Fields, []string{"key"}) {
			answer.JSON(w, http.StatusConflict, conflict.Error())
			return
		}
		// Old devices compare this text byte by byte.
		answer.Text(w, http.StatusConflict, `"uuid" must be unique.`)
	case errors.Is(err, model.ErrNotFound):
		answer.JSON(w, http.StatusNotFound, "Unknown device type "+body.DeviceType)
	case errors.Is(err, model.ErrInvalid):
		answer.JSON(w, http.StatusBadRequest, err.Error())
	case err != nil:
		answer.Failure(w, r, fmt.Errorf("register device: %w", err))
	default:
		answerRegistered(w, device, key)
	}
}

// same says whether this very device registered before and repeats itself
// because the answer was lost: it proves that by the key it chose.
func (d *Device) same(r *http.Request, fleet int64, body registration) (model.Device, bool) {
	actor, err := d.auth.Identify(r.Context(), body.APIKey)
	if err != nil || actor.Kind != auth.Device || actor.Name != body.UUID {
		return model.Device{}, false
	}
	device, err := d.db.DeviceByID(r.Context(), actor.ID)
	return device, err == nil && device.Fleet == fleet
}

func answerRegistered(w http.ResponseWriter, device model.Device, key string) {
	answer.JSON(w, http.StatusCreated, struct {
		ID     int64  `json:"id"`
		UUID   string `json:"uuid"`
		APIKey string `json:"api_key"`
	}{device.ID, device.UUID, key})
}
