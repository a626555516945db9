package odata

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/asset"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
	"deckhand/cloud/versions"
)

// longest is how long one request may read from the database.
const longest = 30 * time.Second

// Config is what the resources need.
type Config struct {
	DB   *model.DB
	Auth *auth.Auth
	// Assets keeps the files of releases; nil: there are none.
	Assets *asset.Store
}

// OData serves the resources.
type OData struct {
	db     *model.DB
	auth   *auth.Auth
	assets *asset.Store
}

// New makes the resources' routes.
func New(cfg Config) *OData { return &OData{db: cfg.DB, auth: cfg.Auth, assets: cfg.Assets} }

// Routes adds the routes to the mux, for each version of the API.
func (o *OData) Routes(mux *http.ServeMux) {
	for _, v := range versions.All() {
		mux.HandleFunc("GET /"+v.Name+"/{path...}", func(w http.ResponseWriter, r *http.Request) { o.get(w, r, v) })
		o.writes(mux, v)
	}
}

// prepare authenticates and parses; ok is false when the request is answered.
// Without a valid credential the caller is a guest.
func (o *OData) prepare(w http.ResponseWriter, r *http.Request, v versions.Version) (access.Caller, query.Request, bool) {
	actor, err := o.auth.Authenticate(r)
	if err != nil && !errors.Is(err, auth.ErrUnauthenticated) {
		answer.Failure(w, r, err)
		return access.Caller{}, query.Request{}, false
	}
	parsed, err := query.Parse(r.Method, strings.TrimPrefix(r.URL.EscapedPath(), "/"+v.Name+"/"), r.URL.RawQuery)
	if err != nil {
		answerQuery(w, r, err)
		return access.Caller{}, parsed, false
	}
	return actor.Caller(), parsed, true
}

// answerQuery answers a query that failed.
func answerQuery(w http.ResponseWriter, r *http.Request, err error) {
	if bad, ok := errors.AsType[*query.Error](err); ok {
		answer.JSON(w, http.StatusBadRequest, bad.Reason)
		return
	}
	if large, ok := errors.AsType[*model.TooMuchError](err); ok {
		answer.JSON(w, http.StatusRequestEntityTooLarge, large.Error())
		return
	}
	switch {
	case errors.Is(err, errNothing):
		answer.Empty(w, http.StatusUnauthorized)
	case errors.Is(err, errSlow):
		answer.JSON(w, http.StatusBadRequest, "This query takes longer than "+longest.String()+"; narrow it with $filter, or ask for less with $expand.")
	default:
		answer.Failure(w, r, err)
	}
}

// errSlow is the cause of a query that is given up.
var errSlow = errors.New("the query takes too long")

func (o *OData) get(w http.ResponseWriter, r *http.Request, v versions.Version) {
	caller, parsed, ok := o.prepare(w, r, v)
	if !ok {
		return
	}
	ctx, stop := context.WithTimeoutCause(r.Context(), longest, errSlow)
	defer stop()
	body, err := o.read(ctx, caller, v.Resources, parsed)
	if err != nil {
		if errors.Is(context.Cause(ctx), errSlow) {
			err = errSlow
		}
		answerQuery(w, r, err)
		return
	}
	sum := sha256.Sum256(body)
	etag := `W/"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-cache")
	if unchanged(r.Header.Get("If-None-Match"), etag) {
		answer.Empty(w, http.StatusNotModified)
		return
	}
	answer.Bytes(w, http.StatusOK, body)
}

// unchanged says whether a client has what the tag names.
func unchanged(has, etag string) bool {
	for tag := range strings.SplitSeq(has, ",") {
		if strings.TrimSpace(tag) == etag {
			return true
		}
	}
	return false
}
