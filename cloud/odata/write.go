package odata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
	"deckhand/cloud/versions"
)

// writes adds the routes that change rows.
func (o *OData) writes(mux *http.ServeMux, v versions.Version) {
	for method, do := range map[string]func(*change) (status int, body []byte, err error){
		"POST": o.post, "PATCH": o.patch, "MERGE": o.patch, "PUT": o.put, "DELETE": o.remove,
	} {
		mux.HandleFunc(method+" /"+v.Name+"/{path...}", func(w http.ResponseWriter, r *http.Request) { o.write(w, r, v, do) })
	}
}

// change is one request that writes.
type change struct {
	query.Request
	http     *http.Request
	header   http.Header // of the answer
	caller   access.Caller
	version  versions.Version
	resource model.Resource // by the names of the version
}

// current is the name that the rows have in the newest version.
func (c *change) current() string { return c.resource.Name }

// write authenticates, does, and answers.
func (o *OData) write(w http.ResponseWriter, r *http.Request, v versions.Version, do func(*change) (int, []byte, error)) {
	caller, parsed, ok := o.prepare(w, r, v)
	if !ok {
		return
	}
	resource, known := v.Resources[parsed.Resource]
	if !known || resource.Elsewhere || caller.Role == access.Guest {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	status, body, err := do(&change{Request: parsed, http: r, header: w.Header(), caller: caller, version: v, resource: resource})
	switch {
	case err != nil:
		answerWrite(w, r, err)
	case len(body) == 0:
		answer.Empty(w, status)
	default:
		answer.Bytes(w, status, body)
	}
}

// done is the answer to a write that shows no row.
func (c *change) done(err error) (int, []byte, error) {
	return http.StatusOK, []byte(c.version.Written), err
}

// values reads the body as fields of today. What the resource does not have is
// left out: clients send fields of the hosted product.
func (o *OData) values(c *change) (model.Values, error) {
	fields, file, err := o.body(c)
	if err != nil {
		return nil, err
	}
	v, err := o.decode(c, fields)
	if file == nil {
		return v, err
	}
	if err != nil {
		return nil, errors.Join(err, o.assets.Discard(*file))
	}
	v["asset"] = *file
	return v, nil
}

// decode makes fields of a version values of today.
func (o *OData) decode(c *change, fields versions.Fields) (model.Values, error) {
	if err := c.version.Body(c.http.Context(), lookup{o.db}, c.Request, fields); err != nil {
		return nil, err
	}
	if err := o.typeBySlug(c, fields); err != nil {
		return nil, err
	}
	current, ok := model.ResourceNamed(c.current())
	if !ok {
		return nil, model.ErrForbidden
	}
	v, err := decode(current, fields)
	if password := fields["password"]; password != nil && c.current() == "user" && err == nil {
		v["password"], err = o.password(c.http.Context(), password)
	}
	return v, err
}

// password is a new one of a user, hashed.
func (o *OData) password(ctx context.Context, raw json.RawMessage) (model.PasswordHash, error) {
	var password string
	if json.Unmarshal(raw, &password) != nil {
		return "", refuse("password has the wrong type, want a text.")
	}
	hash, err := o.auth.HashPassword(ctx, password)
	if short, ok := errors.AsType[*auth.PasswordError](err); ok {
		return "", refuse("%s", short.Error())
	}
	return model.PasswordHash(hash), err
}

// typeBySlug accepts the slug of a device type for its id in every version: it is
// what people know.
func (o *OData) typeBySlug(c *change, fields versions.Fields) error {
	field := map[string]string{"application": "is_for__device_type", "device": "is_of__device_type"}[c.current()]
	var slug string
	if field == "" || fields[field] != nil || json.Unmarshal(fields["device_type"], &slug) != nil {
		return nil
	}
	id, err := (lookup{o.db}).DeviceType(c.http.Context(), slug)
	if err == nil && id == 0 {
		err = refuse("Unknown device type %s", slug)
	}
	fields[field] = strconv.AppendInt(nil, id, 10)
	return err
}

func (o *OData) post(c *change) (int, []byte, error) {
	switch {
	case c.Action == "canAccess":
		body, err := o.answerAccess(c)
		return http.StatusOK, body, err
	case c.current() == "release_asset" && uploads[c.Action] != nil:
		return o.upload(c, uploads[c.Action])
	case c.Action != "":
		return 0, nil, refuse("%s has no action %q.", c.Request.Resource, c.Action)
	case len(c.Key) > 0 || c.Count:
		return 0, nil, refuse("POST goes to the resource itself.")
	}
	v, err := o.values(c)
	if err != nil {
		return 0, nil, err
	}
	id, err := o.db.Create(c.http.Context(), c.caller, c.current(), v)
	if err != nil {
		return 0, nil, o.unwanted(v, err)
	}
	c.header.Set("Location", fmt.Sprintf("/%s/%s(@id)?@id=%d", c.version.Name, c.Request.Resource, id))
	if !c.ReturnResource {
		return http.StatusCreated, fmt.Appendf(nil, `{"id":%d}`, id), nil
	}
	body, err := o.whole(c.http.Context(), c.resource, id)
	return http.StatusCreated, body, err
}

// answerAccess answers resource(key)/canAccess.
func (o *OData) answerAccess(c *change) ([]byte, error) {
	var body struct {
		Action string `json:"action"`
	}
	if err := answer.Decode(c.http, &body); err != nil {
		return nil, err
	}
	return o.canAccess(c.http.Context(), o.compiler(c.caller, c.version.Resources), c.Request, body.Action)
}

// selected is the rows that the request names and the caller may write. A request
// that names none is refused: it would write all.
func (o *OData) selected(c *change, verb access.Verb) (model.Selection, error) {
	if len(c.Key) == 0 && c.Options.Filter == nil {
		return model.Selection{}, refuse("%s needs a key or a $filter: it would write every %s.", c.http.Method, c.Request.Resource)
	}
	where, ok, err := o.compiler(c.caller, c.version.Resources).selection(c.Request, verb)
	if err == nil && !ok {
		err = model.ErrForbidden
	}
	return where, err
}

// update changes the rows that the request names; v is what the body says.
func (o *OData) update(c *change) (n int, v model.Values, err error) {
	where, err := o.selected(c, access.Update)
	if err != nil {
		return 0, nil, err
	}
	if v, err = o.values(c); err != nil {
		return 0, nil, err
	}
	n, err = o.db.Update(c.http.Context(), c.caller, c.current(), where, v)
	return n, v, err
}

func (o *OData) patch(c *change) (int, []byte, error) {
	n, v, err := o.update(c)
	if n == 0 {
		err = o.unwanted(v, err)
	}
	return c.done(err)
}

// put changes the row with a natural key, or makes it.
func (o *OData) put(c *change) (int, []byte, error) {
	if len(c.Key) == 0 {
		return 0, nil, refuse("PUT needs a key.")
	}
	n, v, err := o.update(c)
	if err != nil {
		return 0, nil, o.unwanted(v, err)
	}
	if n > 0 {
		return c.done(nil)
	}
	for _, part := range c.Key {
		if part.Name == "" || part.Name == "id" {
			return 0, nil, o.unwanted(v, refuse("There is no such %s; its id is given by the cloud, so make it with POST.", c.Request.Resource))
		}
		if _, ok := v[part.Name]; !ok {
			v[part.Name] = part.Value.Value
		}
	}
	if _, err = o.db.Create(c.http.Context(), c.caller, c.current(), v); err != nil {
		err = o.unwanted(v, err)
	}
	return c.done(err)
}

func (o *OData) remove(c *change) (int, []byte, error) {
	where, err := o.selected(c, access.Delete)
	if err != nil {
		return 0, nil, err
	}
	n, err := o.db.Delete(c.http.Context(), c.caller, c.current(), where)
	if err == nil && n == 0 && c.current() == "application" && len(c.Key) > 0 {
		err = &model.MissingError{Reason: "Application(s) not found."}
	}
	return c.done(err)
}

// lookup answers what translating a body needs to know.
type lookup struct{ db *model.DB }

func (l lookup) DeviceType(ctx context.Context, slug string) (int64, error) {
	return l.first(ctx, "device_type", `t.id = (SELECT y.device_type FROM device_type_alias y WHERE y.is_referenced_by__alias = ?)`, slug)
}

func (l lookup) Release(ctx context.Context, resource string, id int64, commit string) (int64, error) {
	fleet := `?`
	if resource == "device" {
		fleet = `(SELECT d.belongs_to__application FROM device d WHERE d.id = ?)`
	}
	return l.first(ctx, "release", `t.status = 'success' AND t."commit" = ? AND t.belongs_to__application = `+fleet, commit, id)
}

func (l lookup) first(ctx context.Context, resource, where string, args ...any) (int64, error) {
	r, _ := model.ResourceNamed(resource)
	rows, err := l.db.Rows(ctx, r, []model.Field{{Name: "id", Kind: model.Integer}}, "WHERE "+where, args...)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	id, _ := rows[0][0].(int64)
	return id, nil
}

// answerWrite answers a write that failed.
func answerWrite(w http.ResponseWriter, r *http.Request, err error) {
	var (
		body      *answer.BodyError
		conflict  *model.ConflictError
		field     *model.FieldError
		reference *model.ReferenceError
		missing   *model.MissingError
		refused   *model.RefusedError
	)
	switch {
	case errors.As(err, &body):
		answer.JSON(w, body.Status, body.Reason)
	case errors.As(err, &conflict):
		answer.JSON(w, http.StatusConflict, conflict.Error())
	case errors.As(err, &reference):
		answer.JSON(w, http.StatusConflict, reference.Error())
	case errors.As(err, &field):
		answer.JSON(w, http.StatusBadRequest, field.Error())
	case errors.As(err, &missing):
		answer.JSON(w, http.StatusNotFound, missing.Error())
	case errors.As(err, &refused):
		answer.JSON(w, http.StatusForbidden, refused.Error())
	case errors.Is(err, model.ErrForbidden):
		answer.Empty(w, http.StatusUnauthorized)
	default:
		answerQuery(w, r, err)
	}
}
