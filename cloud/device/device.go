package device

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"deckhand/cloud/access"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
	"deckhand/cloud/park"
)

// Config is what the device routes need.
type Config struct {
	DB   *model.DB
	Auth *auth.Auth
	// PollInterval is how often devices ask for their target when nothing
	// else is configured, and the shortest interval they may be configured
	// to; 10 minutes when 0.
	PollInterval time.Duration
	// MaxWait bounds how long a request that asks to be held is held; 5 minutes when 0.
	MaxWait time.Duration
	// Lot is where requests that are held are parked, when their server has one. Nil:
	// each waits in its goroutine, which takes several times the memory.
	Lot *park.Lot
	// RefusalDelay is how long a deleted device that sends logs waits for its
	// refusal, which slows its retries; 55 s when 0.
	RefusalDelay time.Duration
	// ActionWait is how long a device may take to answer what somebody wants of it,
	// and to fetch it; 45 s when 0: clients give up after 50.
	ActionWait time.Duration
	// Failed receives errors which no request can be answered with (writing
	// down who is online). Nil drops them.
	Failed func(error)
}

// Device serves the device routes.
type Device struct {
	db       *model.DB
	auth     *auth.Auth
	maxWait  time.Duration
	refusal  time.Duration
	failed   func(error)
	targets  *targets
	presence *presence
	reports  *model.Reports
	refusals refusals
	batches  batches
	relaying time.Duration
	counts   counts
	lot      *park.Lot
	news     news
}

// New makes the device routes. Call Run to notice devices that fall silent.
func New(cfg Config) *Device {
	d := &Device{
		db: cfg.DB, auth: cfg.Auth, failed: cfg.Failed, lot: cfg.Lot,
		maxWait:  orDefault(cfg.MaxWait, 5*time.Minute),
		refusal:  orDefault(cfg.RefusalDelay, 55*time.Second),
		relaying: orDefault(cfg.ActionWait, 45*time.Second),
	}
	if d.failed == nil {
		d.failed = func(error) {}
	}
	poll := orDefault(cfg.PollInterval, 10*time.Minute)
	d.targets, d.presence = newTargets(cfg.DB, poll), newPresence(cfg.DB, poll, d.failed)
	d.reports = model.NewReports(cfg.DB)
	return d
}

func orDefault(d, standard time.Duration) time.Duration {
	if d <= 0 {
		return standard
	}
	return d
}

// Run watches over who is online, and forgets old actions, until the context ends.
func (d *Device) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.presence.run(ctx) })
	g.Go(func() error { d.dropActions(ctx); return nil })
	return g.Wait()
}

// Routes adds the routes to the mux.
func (d *Device) Routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /device/register", d.register)
	mux.HandleFunc("GET /device/v3/{uuid}/state", d.getState(today))
	mux.HandleFunc("GET /device/v2/{uuid}/state", d.getState(second))
	mux.HandleFunc("GET /device/v1/{uuid}/state", d.getState(first))
	mux.HandleFunc("GET /device/v3/fleet/{uuid}/state", d.fleetState)
	mux.HandleFunc("GET /device/v3/fleet/{uuid}/state/{$}", d.fleetState)
	mux.HandleFunc("PATCH /device/v3/state", d.patchState)
	mux.HandleFunc("PATCH /device/v2/{uuid}/state", d.patchSecondState)
	mux.HandleFunc("PATCH /device/v3/tags", d.patchTags)
	mux.HandleFunc("POST /device/v2/{uuid}/log-stream", d.logStream)
	mux.HandleFunc("POST /device/v2/{uuid}/logs", d.logBatch)
	mux.HandleFunc("GET /device/v2/{uuid}/logs", d.readLogs)
	mux.HandleFunc("GET /device/v3/{uuid}/actions", d.takeActions)
	mux.HandleFunc("PATCH /device/v3/{uuid}/actions", d.answerActions)
	mux.HandleFunc("POST /services/vpn/client-connect", d.noteVPN(true))
	mux.HandleFunc("POST /services/vpn/client-disconnect", d.noteVPN(false))
	mux.HandleFunc("POST /supervisor/{path...}", d.relay)
	mux.HandleFunc("POST /application/{id}/restart", d.restartFleet)
}

// may says whether the actor may do that with a device.
func (d *Device) may(ctx context.Context, actor auth.Actor, verb access.Verb, device model.Device) (bool, error) {
	if actor.Kind == auth.Device && verb != access.Operate {
		return actor.ID == device.ID && !device.Frozen, nil // by far the most
	}
	return d.db.May(ctx, actor.Caller(), "device", verb, device.ID)
}

// find looks a device up; it is nil when there is none or it is frozen, which
// devices are to treat alike.
func (d *Device) find(ctx context.Context, uuid string) (*model.Device, error) {
	device, err := d.db.DeviceByUUID(ctx, uuid)
	if errors.Is(err, model.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if device.Frozen {
		return nil, nil
	}
	return &device, nil
}

// refusals remembers for a while who may not read which device: a device whose key
// is another's asks again and again.
type refusals struct {
	mu   sync.Mutex
	till map[refusal]time.Time
}

type refusal struct {
	caller        access.Caller
	device, fleet int64 // a device that moves is another matter
}

const (
	refusalFor  = 10 * time.Minute
	maxRefusals = 10_000
)

func (r *refusals) has(k refusal, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.till[k])
}

func (r *refusals) add(k refusal, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.till == nil {
		r.till = map[refusal]time.Time{}
	}
	keep(r.till, maxRefusals, k, now.Add(refusalFor))
}
