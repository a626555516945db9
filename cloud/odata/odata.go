package odata

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// Config is what the resources need.
type Config struct {
	DB   *model.DB
	Auth *auth.Auth
}

// OData serves the resources.
type OData struct {
	db        *model.DB
	auth      *auth.Auth
	resources map[string]model.Resource
}

// New makes the resources' routes.
func New(cfg Config) *OData {
	o := &OData{db: cfg.DB, auth: cfg.Auth, resources: map[string]model.Resource{}}
	for _, r := range model.Resources() {
		o.resources[r.Name] = r
	}
	// The names under which clients know it, too.
	o.resources["release_image"] = o.resources["image__is_part_of__release"]
	return o
}

// Routes adds the routes to the mux.
func (o *OData) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v7/{path...}", o.get)
	mux.HandleFunc("POST /v7/{path...}", o.post)
	mux.HandleFunc("PATCH /v7/{path...}", o.patch)
	mux.HandleFunc("/v7/{path...}", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := o.auth.Require(w, r); ok {
			answer.JSON(w, http.StatusBadRequest, r.Method+" is not supported yet.")
		}
	})
}

// prepare authenticates and parses; ok is false when the request is answered.
func (o *OData) prepare(w http.ResponseWriter, r *http.Request, kinds ...auth.Kind) (auth.Actor, model.Resource, request, bool) {
	var none model.Resource
	actor, ok := o.auth.Require(w, r, kinds...)
	if !ok {
		return actor, none, request{}, false
	}
	parsed, err := parsePath(r.PathValue("path"))
	if err == nil {
		parsed.options, err = parseOptions(r.URL.RawQuery)
	}
	if err != nil {
		answerQuery(w, r, err)
		return actor, none, parsed, false
	}
	resource, known := o.resources[parsed.resource]
	if !known {
		answer.JSON(w, http.StatusBadRequest, fmt.Sprintf("There is no resource %q here (yet).", parsed.resource))
		return actor, none, parsed, false
	}
	return actor, resource, parsed, true
}

// answerQuery answers a query that failed.
func answerQuery(w http.ResponseWriter, r *http.Request, err error) {
	if bad, ok := errors.AsType[*badQuery](err); ok {
		answer.JSON(w, http.StatusBadRequest, bad.reason)
		return
	}
	answer.Failure(w, r, err)
}

func (o *OData) get(w http.ResponseWriter, r *http.Request) {
	actor, resource, parsed, ok := o.prepare(w, r, auth.User, auth.Device)
	if !ok {
		return
	}
	c := &compiler{resource: resource}
	visible, ok := c.visible(actor)
	if !ok {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	where, err := c.where(visible, parsed)
	if err != nil {
		answerQuery(w, r, err)
		return
	}
	var body []byte
	if parsed.count {
		body, err = o.count(r.Context(), c, where)
	} else {
		body, err = o.rows(r.Context(), c, where, parsed)
	}
	if err != nil {
		answerQuery(w, r, err)
		return
	}
	sum := sha256.Sum256(body)
	etag := `W/"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-cache")
	if r.Header.Get("If-None-Match") == etag {
		answer.Empty(w, http.StatusNotModified)
		return
	}
	answer.Bytes(w, http.StatusOK, body)
}

// visible limits a query to the rows the actor may see; false: none of this resource.
func (c *compiler) visible(actor auth.Actor) (string, bool) {
	condition := c.resource.Users
	if actor.Kind == auth.Device {
		if condition = c.resource.Devices; condition == "" {
			return "", false
		}
	}
	if condition == "" {
		return "TRUE", true
	}
	c.args = append(c.args, actor.ID)
	return "(" + condition + ")", true
}

func (c *compiler) where(visible string, parsed request) (string, error) {
	conditions := []string{visible}
	if parsed.keyed {
		key, err := c.condition(parsed.key)
		if err != nil {
			return "", err
		}
		conditions = append(conditions, key)
	}
	if text := parsed.options["$filter"]; text != "" {
		e, err := parseFilter(text)
		if err != nil {
			return "", err
		}
		filter, err := c.condition(e)
		if err != nil {
			return "", err
		}
		conditions = append(conditions, filter)
	}
	return "WHERE " + strings.Join(conditions, " AND "), nil
}

func (o *OData) count(ctx context.Context, c *compiler, where string) ([]byte, error) {
	n, err := o.db.Count(ctx, c.resource, where, c.args...)
	return fmt.Appendf(nil, `{"d":%d}`, n), err
}

func (o *OData) rows(ctx context.Context, c *compiler, where string, parsed request) ([]byte, error) {
	fields, err := c.selection(parsed.options["$select"])
	if err != nil {
		return nil, err
	}
	order, err := c.order(parsed.options["$orderby"])
	if err != nil {
		return nil, err
	}
	part, err := limit(parsed.options["$top"], parsed.options["$skip"])
	if err != nil {
		return nil, err
	}
	rows, err := o.db.Rows(ctx, c.resource, fields, where+" ORDER BY "+order+part, c.args...)
	if err != nil {
		return nil, err
	}
	encoded := make([]string, len(rows))
	for i, row := range rows {
		b, err := encode(fields, row)
		if err != nil {
			return nil, err
		}
		encoded[i] = string(b)
	}
	return []byte(`{"d":[` + strings.Join(encoded, ",") + `]}`), nil
}

func (o *OData) post(w http.ResponseWriter, r *http.Request) {
	actor, resource, parsed, ok := o.prepare(w, r, auth.User, auth.Device)
	if !ok {
		return
	}
	kind := model.VariableKind(resource.Name)
	if actor.Kind == auth.Device && kind != model.DeviceConfig {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	if parsed.keyed || parsed.count {
		answer.JSON(w, http.StatusBadRequest, "POST goes to the resource itself; actions are not supported yet.")
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
	o.answerCreated(w, r, resource, id, parsed.options["returnResource"] == "false")
}

func (o *OData) answerCreated(w http.ResponseWriter, r *http.Request, resource model.Resource, id int64, short bool) {
	w.Header().Set("Location", fmt.Sprintf("/v7/%s(@id)?@id=%d", resource.Name, id))
	if short {
		answer.JSON(w, http.StatusCreated, map[string]int64{"id": id})
		return
	}
	rows, err := o.db.Rows(r.Context(), resource, resource.Fields, "WHERE t.id = ?", id)
	if err != nil || len(rows) == 0 {
		answer.Failure(w, r, errors.Join(err, fmt.Errorf("read %s %d after creating it", resource.Name, id)))
		return
	}
	b, err := encode(resource.Fields, rows[0])
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
		resource := o.resources["device_type"]
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
