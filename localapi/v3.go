package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"deckhand/state"
)

// V3 is what the routes below /v3/ ask of the supervisor, beyond what balena's
// API knows. Values of type any are encoded as JSON. A failure's class says how
// it is answered, see failed3.
type V3 interface {
	// StatusOf is what deckhand status prints.
	StatusOf(s Scope) any
	// PlanOf is the plan as of the supervisor's last look.
	PlanOf(s Scope) (Plan, error)
	// ExplainOf says why a service, SERVICE or APP/SERVICE, was restarted, and
	// why it does not update.
	ExplainOf(s Scope, service string) (any, error)
	// HistoryOf is a page of what happened.
	HistoryOf(s Scope, q HistoryQuery) (any, error)

	// LeasesOf lists the update-lock leases there are, oldest first.
	LeasesOf(s Scope) []Lease
	// TakeLease takes an update lock for a while.
	TakeLease(ctx context.Context, s Scope, r LeaseRequest) (Lease, error)
	// RenewLease lets a lease end that long from now.
	RenewLease(s Scope, id string, length time.Duration) (Lease, error)
	// ReleaseLease ends a lease.
	ReleaseLease(s Scope, id string) error

	// WriteMetrics writes the figures for Prometheus in its text format.
	WriteMetrics(w io.Writer)
}

// Scope is what a caller may see and touch.
type Scope struct {
	All     bool   // every app
	App     int64  // else the app with this number
	Service string // whose key it is; empty: of no service
}

func scopeOf(r *http.Request) Scope {
	c := callerOf(r)
	return Scope{All: c.all, App: c.app, Service: c.service}
}

// Plan is a plan in the forms that a client can ask for.
type Plan struct {
	Text string // for people
	DOT  string // for Graphviz
	JSON any
}

// HistoryQuery says which part of the past is asked for.
type HistoryQuery struct {
	App     string    // name, UUID or number; empty: all
	Service string    // empty: all
	Since   time.Time // what ended then or later; zero, without After: the last entries
	After   string    // goes on behind a page: its Next
	Limit   int       // entries
}

// LeaseRequest asks for an update lock.
type LeaseRequest struct {
	Service string // SERVICE or APP/SERVICE; empty: that of the caller's key
	Holder  string // who takes it, for people
	Reason  string // why, for people; may be empty
	For     time.Duration
}

// Lease is an update lock that was taken over the API.
type Lease struct {
	ID       string    `json:"id"`
	App      string    `json:"app"` // name
	AppID    int64     `json:"appId"`
	Service  string    `json:"service"`
	Holder   string    `json:"holder"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	BrokenBy string    `json:"brokenBy,omitempty"` // the permission under which an update broke it; empty: it holds
	BrokenAt time.Time `json:"brokenAt,omitzero"`
}

const (
	leaseLimit   = 8 << 10 // bytes of a body about a lease
	historyPage  = 200     // entries, if none are asked for
	historyLimit = 1000
)

// v3Routes go beyond balena's API. A key of a service shows its own app.
func (a *api) v3Routes() []route {
	return []route{
		{"GET", "/v3/status", true, 0, a.v3Status},
		{"GET", "/v3/plan", true, 0, a.v3Plan},
		{"GET", "/v3/explain", true, 0, a.v3Explain},
		{"GET", "/v3/history", true, 0, a.v3History},
		{"GET", "/v3/events", true, 0, a.v3Events},
		{"GET", "/v3/locks", true, 0, a.v3Leases},
		{"POST", "/v3/locks", true, 0, a.v3TakeLease},
		{"PUT", "/v3/locks/{id}", true, 0, a.v3RenewLease},
		{"DELETE", "/v3/locks/{id}", true, 0, a.v3ReleaseLease},
		{"GET", "/metrics", false, 0, a.metrics},
	}
}

func (a *api) v3Status(w http.ResponseWriter, r *http.Request, _ []byte) {
	answer(w, http.StatusOK, a.c.V3.StatusOf(scopeOf(r)))
}

// v3Plan answers in the form that the client prefers.
func (a *api) v3Plan(w http.ResponseWriter, r *http.Request, _ []byte) {
	form, ok := prefers(r.Header.Values("Accept"), "application/json", "text/plain", "text/vnd.graphviz")
	if !ok {
		answer(w, http.StatusNotAcceptable, Problem{state.ClassInvalid, "accept application/json, text/plain or text/vnd.graphviz"})
		return
	}
	p, err := a.c.V3.PlanOf(scopeOf(r))
	if err != nil {
		failed3(w, err)
		return
	}
	switch form {
	case "text/plain":
		plain(w, http.StatusOK, p.Text)
	case "text/vnd.graphviz":
		send(w, http.StatusOK, "text/vnd.graphviz; charset=utf-8", []byte(p.DOT))
	default:
		answer(w, http.StatusOK, p.JSON)
	}
}

// prefers picks what a client accepts best; what comes first wins among equals.
// No header accepts everything.
func prefers(accept []string, offers ...string) (best string, ok bool) {
	if strings.TrimSpace(strings.Join(accept, "")) == "" {
		return offers[0], true
	}
	quality := 0.0
	for _, o := range offers {
		if q := acceptable(accept, o); q > quality {
			best, quality = o, q
		}
	}
	return best, best != ""
}

// acceptable is the quality that the most exact range of a header gives a type.
func acceptable(accept []string, offer string) float64 {
	quality, exact := 0.0, -1
	group, _, _ := strings.Cut(offer, "/")
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, parameters, _ := strings.Cut(part, ";")
		how := slices.Index([]string{"*/*", group + "/*", offer}, strings.ToLower(strings.TrimSpace(name)))
		if how < 0 || how < exact {
			continue
		}
		exact, quality = how, 1
		for p := range strings.SplitSeq(parameters, ";") {
			if v, isQ := strings.CutPrefix(strings.TrimSpace(p), "q="); isQ {
				if q, err := strconv.ParseFloat(v, 64); err == nil {
					quality = q
				}
			}
		}
	}
	return quality
}

func (a *api) v3Explain(w http.ResponseWriter, r *http.Request, _ []byte) {
	s := scopeOf(r)
	service := r.URL.Query().Get("service")
	if service == "" {
		service = s.Service
	}
	if service == "" {
		failed3(w, invalid("name a service: /v3/explain?service=APP/SERVICE"))
		return
	}
	v, err := a.c.V3.ExplainOf(s, service)
	if err != nil {
		failed3(w, err)
		return
	}
	answer(w, http.StatusOK, v)
}

func (a *api) v3History(w http.ResponseWriter, r *http.Request, _ []byte) {
	q, err := readHistoryQuery(r.URL.Query())
	if err != nil {
		failed3(w, err)
		return
	}
	v, err := a.c.V3.HistoryOf(scopeOf(r), q)
	if err != nil {
		failed3(w, err)
		return
	}
	answer(w, http.StatusOK, v)
}

func readHistoryQuery(v url.Values) (HistoryQuery, error) {
	q := HistoryQuery{App: v.Get("app"), Service: v.Get("service"), After: v.Get("after"), Limit: historyPage}
	if s := v.Get("since"); s != "" {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return q, invalid("since: %q is no time like 2026-01-31T12:00:00Z", s)
		}
		q.Since = at
	}
	if s := v.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > historyLimit {
			return q, invalid("limit: %q is no number from 1 to %d", s, historyLimit)
		}
		q.Limit = n
	}
	return q, nil
}

func (a *api) v3Leases(w http.ResponseWriter, r *http.Request, _ []byte) {
	list := a.c.V3.LeasesOf(scopeOf(r))
	if list == nil {
		list = []Lease{}
	}
	answer(w, http.StatusOK, struct {
		Locks []Lease `json:"locks"`
	}{list})
}

// leaseBody is the body of a request about a lease.
type leaseBody struct {
	Service string `json:"service"`
	Holder  string `json:"holder"`
	Reason  string `json:"reason"`
	For     length `json:"for"`
}

// length is a time in a body: "90s", "5m", or a number of seconds.
type length time.Duration

// UnmarshalJSON reads either form.
func (l *length) UnmarshalJSON(b []byte) error {
	var seconds float64
	if json.Unmarshal(b, &seconds) == nil {
		const most = 1 << 32 // seconds; far above what is allowed, far below an overflow
		*l = length(min(max(seconds, -most), most) * float64(time.Second))
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New(`for: write a time like "5m", or seconds`)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf(`for: %q is no time like "90s" or "5m"`, text)
	}
	*l = length(d)
	return nil
}

// readLease reads a body itself: what is wrong with it is answered as below /v3/.
func readLease(w http.ResponseWriter, r *http.Request, into *leaseBody) error {
	body, err := readBody(w, r, leaseLimit)
	if err != nil {
		return invalid("read the request: %w", err)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil // all of it may be left out at a renewal
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return invalid("read the request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalid("read the request: there is something behind the JSON object")
	}
	return nil
}

func (a *api) v3TakeLease(w http.ResponseWriter, r *http.Request, _ []byte) {
	var b leaseBody
	if err := readLease(w, r, &b); err != nil {
		failed3(w, err)
		return
	}
	l, err := a.c.V3.TakeLease(r.Context(), scopeOf(r), LeaseRequest{Service: b.Service, Holder: b.Holder, Reason: b.Reason, For: time.Duration(b.For)})
	if err != nil {
		failed3(w, err)
		return
	}
	w.Header().Set("Location", "/v3/locks/"+l.ID)
	answer(w, http.StatusCreated, l)
}

func (a *api) v3RenewLease(w http.ResponseWriter, r *http.Request, _ []byte) {
	var b leaseBody
	err := readLease(w, r, &b)
	if err == nil && b != (leaseBody{For: b.For}) {
		err = invalid("only the time can be renewed; release the lease and take another one")
	}
	if err != nil {
		failed3(w, err)
		return
	}
	l, err := a.c.V3.RenewLease(scopeOf(r), r.PathValue("id"), time.Duration(b.For))
	if err != nil {
		failed3(w, err)
		return
	}
	answer(w, http.StatusOK, l)
}

func (a *api) v3ReleaseLease(w http.ResponseWriter, r *http.Request, _ []byte) {
	if err := a.c.V3.ReleaseLease(scopeOf(r), r.PathValue("id")); err != nil {
		failed3(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// metrics are for whoever has the global key, and for programs on the device
// itself without one.
func (a *api) metrics(w http.ResponseWriter, r *http.Request, _ []byte) {
	c, ok, err := a.identify(r)
	if err != nil {
		failed3(w, err)
		return
	}
	if !(ok && c.all) && !fromLoopback(r.RemoteAddr) {
		plain(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	a.c.V3.WriteMetrics(w)
}

func fromLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && net.ParseIP(host).IsLoopback()
}

func invalid(format string, args ...any) error {
	return state.Classify(state.ClassInvalid, fmt.Errorf(format, args...))
}

// failed3 answers for what went wrong, by its class.
func failed3(w http.ResponseWriter, err error) {
	class := state.ClassOf(err)
	status := http.StatusServiceUnavailable
	switch class {
	case state.ClassInvalid:
		status = http.StatusBadRequest
	case state.ClassAuth:
		status = http.StatusForbidden
	case state.ClassNotFound:
		status = http.StatusNotFound
	case state.ClassLocked:
		status = http.StatusConflict
	case state.ClassRateLimit:
		status = http.StatusTooManyRequests
	case state.ClassSpace:
		status = http.StatusInsufficientStorage
	case state.ClassNetwork, state.ClassDNS, state.ClassTLS, state.ClassEngine, state.ClassTimeout, state.ClassCancelled:
	}
	answer(w, status, Problem{class, reason(err)})
}
