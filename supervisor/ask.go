package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/supervisor/history"
)

// ErrNotRunning means that no supervisor uses the data folder.
var ErrNotRunning = errors.New("no supervisor is running here")

// Socket is where a running supervisor answers its owner.
func Socket(dataDir string) string { return filepath.Join(dataDir, "deckhand.sock") }

// Ask puts a question to the supervisor that runs on a data folder.
type Ask struct{ DataDir string }

// Status asks for the state of the device.
func (a Ask) Status(ctx context.Context) (View, error) {
	var v View
	return v, a.get(ctx, http.MethodGet, "/v3/status", nil, &v)
}

// PlanAnswer is a plan as it comes over the socket.
type PlanAnswer struct {
	Text string          `json:"text"`
	DOT  string          `json:"dot"`
	Plan json.RawMessage `json:"plan"`
}

// Plan asks for the current plan, or for the plan that a target document would
// lead to.
func (a Ask) Plan(ctx context.Context, document []byte) (PlanAnswer, error) {
	var p PlanAnswer
	if document == nil {
		return p, a.get(ctx, http.MethodGet, "/v3/plan", nil, &p)
	}
	return p, a.get(ctx, http.MethodPost, "/v3/plan", document, &p)
}

// Snapshot asks for what plans are made from.
func (a Ask) Snapshot(ctx context.Context) (Snapshot, error) {
	var s Snapshot
	return s, a.get(ctx, http.MethodGet, "/v3/snapshot", nil, &s)
}

// Explain asks why a service, SERVICE or APP/SERVICE, was restarted and why it
// does not update.
func (a Ask) Explain(ctx context.Context, service string) (history.Explanation, error) {
	var e history.Explanation
	return e, a.get(ctx, http.MethodGet, "/v3/explain?service="+url.QueryEscape(service), nil, &e)
}

// History asks for what happened last, to everything or to a service, SERVICE or
// APP/SERVICE: what ended within a time, 0 for all, and so many entries at most.
func (a Ask) History(ctx context.Context, service string, within time.Duration, entries int) (history.Page, error) {
	q := url.Values{"limit": {strconv.Itoa(entries)}}
	if app, name, both := strings.Cut(service, "/"); both {
		q.Set("app", app)
		q.Set("service", name)
	} else {
		q.Set("service", service)
	}
	if within > 0 {
		q.Set("since", time.Now().Add(-within).Format(time.RFC3339))
	}
	var h history.Page
	return h, a.get(ctx, http.MethodGet, "/v3/history?"+q.Encode(), nil, &h)
}

// Request puts a wish to the supervisor. It is written down when Request returns.
func (a Ask) Request(ctx context.Context, r Request) (Accepted, error) {
	var done Accepted
	body, err := json.Marshal(r)
	if err != nil {
		return done, fmt.Errorf("ask the supervisor: %w", err)
	}
	return done, a.get(ctx, http.MethodPost, "/v3/intents", body, &done)
}

// Healthy asks whether the supervisor is well.
func (a Ask) Healthy(ctx context.Context) error {
	return a.get(ctx, http.MethodGet, "/v1/healthy", nil, nil)
}

func (a Ask) get(ctx context.Context, method, path string, body []byte, into any) error {
	c := &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", Socket(a.DataDir))
			},
		},
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://deckhand"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	resp, err := c.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (%s); start it with \"deckhand run\" or name its --data-dir", ErrNotRunning, a.DataDir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ask the supervisor: %w; run this as root", err)
	case err != nil:
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return answerError(resp.StatusCode, b)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("read the supervisor's answer: %w; do both have the same version?", err)
	}
	return nil
}

func answerError(status int, body []byte) error {
	var p localapi.Problem
	if json.Unmarshal(body, &p) == nil && p.Error != "" {
		// The text begins with the class, which Classify would repeat.
		return state.Classify(p.Class, errors.New(strings.TrimPrefix(p.Error, string(p.Class)+": ")))
	}
	return fmt.Errorf("the supervisor answered %d: %s", status, bytes.TrimSpace(body))
}

// AnswerPlan writes a plan the way it comes over the socket.
func AnswerPlan(p reconcile.Plan) (PlanAnswer, error) {
	v := ViewPlan(p)
	b, err := json.Marshal(p)
	return PlanAnswer{Text: v.Text, DOT: v.DOT, Plan: b}, err
}
