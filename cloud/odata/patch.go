package odata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// patch changes rows: it stops builds, and it pins and names devices.
func (o *OData) patch(w http.ResponseWriter, r *http.Request) {
	actor, resource, parsed, ok := o.prepare(w, r, auth.User, auth.Device)
	if !ok {
		return
	}
	if actor.Kind == auth.Device && resource.Name != "device" {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	var body map[string]json.RawMessage
	if err := answer.Decode(r, &body); err != nil {
		answerWrite(w, r, err)
		return
	}
	change, err := o.change(resource, body)
	if err == nil && !parsed.keyed && parsed.options["$filter"] == "" {
		err = refuse("PATCH needs a key or a $filter: it would change every %s.", resource.Name)
	}
	if err != nil {
		answerWrite(w, r, err)
		return
	}
	rows, err := o.concerned(r.Context(), actor, resource, parsed)
	if err != nil {
		answerQuery(w, r, err)
		return
	}
	for _, id := range rows {
		if err := change(r.Context(), id); err != nil {
			answerWrite(w, r, err)
			return
		}
	}
	answer.Empty(w, http.StatusOK)
}

// change is what a PATCH does to each row.
func (o *OData) change(resource model.Resource, body map[string]json.RawMessage) (func(ctx context.Context, id int64) error, error) {
	switch resource.Name {
	case "release":
		return o.cancel(body)
	case "device":
		return o.editDevice(body)
	}
	return nil, refuse("PATCH of %s is not supported yet.", resource.Name)
}

func (o *OData) cancel(body map[string]json.RawMessage) (func(context.Context, int64) error, error) {
	var status string
	if json.Unmarshal(body["status"], &status) != nil || status != model.StatusCancelled {
		return nil, refuse("PATCH of release is not supported yet, except {\"status\":\"cancelled\"}.")
	}
	for field := range body {
		if field != "status" && field != "end_timestamp" {
			return nil, refuse("PATCH of release: %s cannot be changed yet.", field)
		}
	}
	return o.db.CancelRelease, nil
}

func (o *OData) editDevice(body map[string]json.RawMessage) (func(context.Context, int64) error, error) {
	var e model.DeviceEdit
	if len(body) == 0 {
		return nil, refuse("PATCH of device: nothing is changed; is_pinned_on__release and device_name can be.")
	}
	for field, raw := range body {
		var err error
		switch field {
		case "is_pinned_on__release":
			e.Pin = new(int64) // null: 0
			if err = json.Unmarshal(raw, e.Pin); err == nil && *e.Pin == 0 && string(raw) != "null" {
				err = errors.New("0 is no release")
			}
		case "device_name":
			e.Name = new(string)
			err = json.Unmarshal(raw, e.Name)
		default:
			return nil, refuse("PATCH of device: %s cannot be changed yet.", field)
		}
		if err != nil {
			return nil, refuse("%s: %s has the wrong type.", field, raw)
		}
	}
	return func(ctx context.Context, id int64) error { return o.db.EditDevice(ctx, id, e) }, nil
}

// concerned are the rows that a request names and the actor may see.
func (o *OData) concerned(ctx context.Context, actor auth.Actor, resource model.Resource, parsed request) ([]int64, error) {
	c := &compiler{resource: resource}
	visible, ok := c.visible(actor)
	if !ok {
		return nil, nil
	}
	where, err := c.where(visible, parsed)
	if err != nil {
		return nil, err
	}
	id, _ := resource.Field("id")
	rows, err := o.db.Rows(ctx, resource, []model.Field{id}, where, c.args...)
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, row := range rows {
		n, ok := row[0].(int64)
		if !ok {
			return nil, fmt.Errorf("%s: an id is %v", resource.Name, row[0])
		}
		out = append(out, n)
	}
	return out, nil
}
