package odata

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"deckhand/cloud/access"
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
	condition, args, ok := access.Rows(actor.Caller(), c.resource.Name, access.Read)
	if !ok {
		return "", false
	}
	c.args = append(c.args, args...)
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
