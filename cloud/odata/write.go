package odata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
	"deckhand/cloud/versions"
)

// writes adds the routes that change rows.
func (o *OData) writes(mux *http.ServeMux, v versions.Version) {
	mux.HandleFunc("POST /"+v.Name+"/{path...}", func(w http.ResponseWriter, r *http.Request) { o.post(w, r, v) })
	mux.HandleFunc("PATCH /"+v.Name+"/{path...}", func(w http.ResponseWriter, r *http.Request) { o.patch(w, r, v) })
	mux.HandleFunc("/"+v.Name+"/{path...}", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := o.auth.Require(w, r); ok {
			answer.JSON(w, http.StatusBadRequest, r.Method+" is not supported yet.")
		}
	})
}

func (o *OData) post(w http.ResponseWriter, r *http.Request, v versions.Version) {
	actor, ok := o.auth.Require(w, r, auth.User, auth.Device)
	if !ok {
		return
	}
	caller, parsed, ok := o.prepare(w, r, v)
	if !ok {
		return
	}
	if parsed.Action == "canAccess" {
		o.answerAccess(w, r, caller, v, parsed)
		return
	}
	resource, known := v.Resources[parsed.Resource]
	if !known {
		answer.JSON(w, http.StatusBadRequest, fmt.Sprintf("There is no resource %q here.", parsed.Resource))
		return
	}
	kind := model.VariableKind(resource.Name)
	if actor.Kind == auth.Device && kind != model.DeviceConfig {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	if len(parsed.Key) > 0 || parsed.Count {
		answer.JSON(w, http.StatusBadRequest, "POST goes to the resource itself.")
		return
	}
	var id int64
	var err error
	switch {
	case resource.Name == "application":
		id, err = o.createFleet(r, actor)
	case slices.Contains(model.VariableKinds(), kind):
		id, err = o.createVariable(r, actor, kind)
	default:
		err = refuse("POST of %s is not supported yet.", resource.Name)
	}
	if err != nil {
		answerWrite(w, r, err)
		return
	}
	o.answerCreated(w, r, resource, id, !parsed.ReturnResource)
}

// answerAccess answers resource(key)/canAccess.
func (o *OData) answerAccess(w http.ResponseWriter, r *http.Request, caller access.Caller, v versions.Version, parsed query.Request) {
	var body struct {
		Action string `json:"action"`
	}
	if err := answer.Decode(r, &body); err != nil {
		answer.BadBody(w, err)
		return
	}
	b, err := o.canAccess(r.Context(), o.compiler(caller, v.Resources), parsed, body.Action)
	if err != nil {
		answerQuery(w, r, err)
		return
	}
	answer.Bytes(w, http.StatusOK, b)
}

func (o *OData) answerCreated(w http.ResponseWriter, r *http.Request, resource model.Resource, id int64, short bool) {
	w.Header().Set("Location", fmt.Sprintf("/v7/%s(@id)?@id=%d", resource.Name, id))
	if short {
		answer.JSON(w, http.StatusCreated, map[string]int64{"id": id})
		return
	}
	b, err := o.whole(r.Context(), resource, id)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.Bytes(w, http.StatusCreated, b)
}

// errForbidden is a write to something the caller may not change.
var errForbidden = errors.New("forbidden")

func answerWrite(w http.ResponseWriter, r *http.Request, err error) {
	if body, ok := errors.AsType[*answer.BodyError](err); ok {
		answer.JSON(w, body.Status, body.Reason)
		return
	}
	conflict, isConflict := errors.AsType[*model.ConflictError](err)
	field, isField := errors.AsType[*model.FieldError](err)
	switch {
	case isConflict:
		answer.JSON(w, http.StatusConflict, conflict.Error())
	case isField:
		answer.JSON(w, http.StatusBadRequest, field.Error())
	case errors.Is(err, errForbidden):
		answer.Empty(w, http.StatusUnauthorized)
	case errors.Is(err, model.ErrNotFound):
		answer.JSON(w, http.StatusConflict, "Data is referenced that does not exist: "+err.Error()+".")
	default:
		answerQuery(w, r, err)
	}
}

func (o *OData) createFleet(r *http.Request, actor auth.Actor) (int64, error) {
	var body struct {
		Name         string          `json:"app_name"`
		DeviceType   json.RawMessage `json:"is_for__device_type"`
		Slug         string          `json:"device_type"`
		Organization int64           `json:"organization"`
		UUID         string          `json:"uuid"`
		Class        string          `json:"is_of__class"`
	}
	if err := answer.Decode(r, &body); err != nil {
		return 0, err
	}
	deviceType := body.Slug
	var id int64
	switch {
	case json.Unmarshal(body.DeviceType, &id) == nil:
		resource, _ := model.ResourceNamed("device_type")
		slug, _ := resource.Field("slug")
		rows, err := o.db.Rows(r.Context(), resource, []model.Field{slug}, "WHERE t.id = ?", id)
		if err != nil {
			return 0, err
		}
		if len(rows) == 0 {
			return 0, refuse("is_for__device_type: there is no device type %d.", id)
		}
		deviceType, _ = rows[0][0].(string)
	case len(body.DeviceType) > 0 && string(body.DeviceType) != "null":
		return 0, refuse("is_for__device_type: want the id of a device type, not %s.", body.DeviceType)
	case deviceType == "":
		return 0, refuse("is_for__device_type must be given.")
	}
	f, err := o.db.CreateFleet(r.Context(), model.NewFleet{Name: body.Name, DeviceType: deviceType, User: actor.ID,
		Organization: body.Organization, UUID: body.UUID, Class: body.Class})
	return f.ID, err
}

func (o *OData) createVariable(r *http.Request, actor auth.Actor, kind model.VariableKind) (int64, error) {
	var body map[string]json.RawMessage
	if err := answer.Decode(r, &body); err != nil {
		return 0, err
	}
	var parent int64
	var name, value string
	for field, to := range map[string]any{kind.Parent(): &parent, "name": &name, "value": &value} {
		if len(body[field]) == 0 {
			return 0, refuse("%s must be given.", field)
		}
		if err := json.Unmarshal(body[field], to); err != nil {
			return 0, refuse("%s: %s has the wrong type.", field, body[field])
		}
	}
	if err := o.mayAddVariable(r.Context(), actor, kind, parent); err != nil {
		return 0, err
	}
	return o.db.AddVariable(r.Context(), kind, parent, name, value)
}

// mayAddVariable is nil when the actor may give something a variable: a user
// what is the organization's, a device itself.
func (o *OData) mayAddVariable(ctx context.Context, actor auth.Actor, kind model.VariableKind, parent int64) error {
	fleet, device, err := o.db.VariableOwner(ctx, kind, parent)
	if errors.Is(err, model.ErrNotFound) {
		return errForbidden // the same as a foreign one
	}
	if err != nil {
		return err
	}
	may := false
	if actor.Kind == auth.Device {
		own, err := o.db.DeviceByID(ctx, actor.ID)
		if err != nil {
			return err
		}
		may = device == actor.ID && !own.Frozen
	} else if may, err = o.db.UserMayUseFleet(ctx, actor.ID, fleet); err != nil {
		return err
	}
	if !may {
		return errForbidden
	}
	return nil
}

// patch changes rows: it stops builds, and it pins and names devices.
func (o *OData) patch(w http.ResponseWriter, r *http.Request, v versions.Version) {
	actor, ok := o.auth.Require(w, r, auth.User, auth.Device)
	if !ok {
		return
	}
	caller, parsed, ok := o.prepare(w, r, v)
	if !ok {
		return
	}
	resource, known := v.Resources[parsed.Resource]
	if !known {
		answer.JSON(w, http.StatusBadRequest, fmt.Sprintf("There is no resource %q here.", parsed.Resource))
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
	if err == nil && len(parsed.Key) == 0 && parsed.Options.Filter == nil {
		err = refuse("PATCH needs a key or a $filter: it would change every %s.", resource.Name)
	}
	if err != nil {
		answerWrite(w, r, err)
		return
	}
	rows, err := o.concerned(r.Context(), o.compiler(caller, v.Resources), parsed)
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

// concerned are the rows that a request names and the caller may change.
func (o *OData) concerned(ctx context.Context, c *compiler, parsed query.Request) ([]int64, error) {
	where, ok, err := c.selection(parsed, access.Update)
	if err != nil || !ok {
		return nil, err
	}
	resource := c.resources[parsed.Resource]
	id, _ := resource.Field("id")
	rows, err := o.db.Rows(ctx, resource, []model.Field{id}, "WHERE "+where.SQL, where.Args...)
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
