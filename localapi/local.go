package localapi

import (
	"context"
	"encoding/json"
	"net/http"

	"deckhand/state"
)

// Local is local mode, in which people on the device's own network say what it
// runs.
type Local interface {
	// LocalTarget is what the device should be, as local mode has it.
	LocalTarget() (LocalTarget, error)
	// Push takes a target document of the v2 form: it is checked whole and
	// written down when Push returns, and reached after. With force, update
	// locks are broken for it. A refusal is an error of class invalid, and the
	// last target stays.
	Push(ctx context.Context, document []byte, force bool) error
	// Hardware names the architecture and the type of the device.
	Hardware() (arch, deviceType string)
}

// LocalTarget is a target as clients of local mode get and send it.
type LocalTarget struct {
	Name   string            `json:"name"`
	Config map[string]string `json:"config"` // every variable that is in force, without prefix
	Apps   json.RawMessage   `json:"apps"`   // as they were sent; never null
}

// localRoutes are those that clients in the device's own network use. What they
// need a key for is open while local mode is on.
func (a *api) localRoutes() []route {
	return []route{
		{"GET", "/v2/local/target-state", true, 0, a.localTarget},
		{"POST", "/v2/local/target-state", true, bodyLimit, a.push},
		{"GET", "/v2/local/device-info", true, 0, a.hardware},
	}
}

type success struct {
	Status string `json:"status"`
}

func (a *api) localTarget(w http.ResponseWriter, _ *http.Request, _ []byte) {
	t, err := a.c.Local.LocalTarget()
	if err != nil {
		problemOf(w, err)
		return
	}
	type local struct {
		Local LocalTarget `json:"local"`
	}
	answer(w, http.StatusOK, struct {
		success
		State local `json:"state"`
	}{success{"success"}, local{t}})
}

func (a *api) push(w http.ResponseWriter, r *http.Request, body []byte) {
	f, err := parseJSON(body)
	if len(body) == 0 || err != nil {
		failed(w, http.StatusBadRequest, "the request body is not a JSON object")
		return
	}
	if err := a.c.Local.Push(r.Context(), body, f.truthy("force")); err != nil {
		if state.ClassOf(err) == state.ClassInvalid {
			failed(w, http.StatusBadRequest, reason(err))
			return
		}
		problemOf(w, err)
		return
	}
	answer(w, http.StatusOK, struct {
		success
		Message string `json:"message"`
	}{success{"success"}, "OK"})
}

func (a *api) hardware(w http.ResponseWriter, _ *http.Request, _ []byte) {
	type info struct {
		Arch       string `json:"arch"`
		DeviceType string `json:"deviceType"`
	}
	arch, kind := a.c.Local.Hardware()
	answer(w, http.StatusOK, struct {
		success
		Info info `json:"info"`
	}{success{"success"}, info{arch, kind}})
}
