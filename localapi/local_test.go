package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"deckhand/state"
)

func (d *device) LocalTarget() (LocalTarget, error) {
	return LocalTarget{Name: "kitchen", Config: map[string]string{"SUPERVISOR_LOCAL_MODE": "true"}, Apps: json.RawMessage(`{"1":{"name":"localapp"}}`)}, nil
}

func (d *device) Push(_ context.Context, document []byte, force bool) error {
	if !strings.Contains(string(document), `"local"`) {
		return state.Classify(state.ClassInvalid, errors.New("local: missing"))
	}
	d.tell("push force=%v", force)
	return nil
}

func (d *device) Hardware() (arch, deviceType string) { return "aarch64", "raspberrypi4-64" }

// localLines are the routes of local mode, for the contract.
func localLines() []line {
	return []line{
		{method: "GET", path: "/v2/local/target-state", good: 200, inputs: []input{{}}},
		{method: "GET", path: "/v2/local/device-info", good: 200, inputs: []input{{}}},
		{method: "POST", path: "/v2/local/target-state", good: 200, story: "push force=false", inputs: []input{
			{body: `{"local":{}}`}, {body: `{"local":{},"force":"false"}`},
			{body: ``, bad: 400}, {body: `[]`, bad: 400}, {body: `{}`, bad: 400}, {body: `{"a":`, bad: 400}, {body: `5`, bad: 400},
		}},
		{method: "POST", path: "/v2/local/target-state", good: 200, story: "push force=true", inputs: []input{{body: `{"local":{},"force":true}`}}},
	}
}
