package device

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
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
	// RefusalDelay is how long a deleted device that sends logs waits for its
	// refusal, which slows its retries; 55 s when 0.
	RefusalDelay time.Duration
	// Failed receives errors which no request can be answered with (writing
	// down who is online). Nil drops them.
	Failed func(error)
}

// Device serves the device routes.
type Device struct {
	db       *model.DB
	auth     *auth.Auth
	poll     time.Duration
	maxWait  time.Duration
	refusal  time.Duration
	presence *presence

	mu     sync.Mutex
	states map[string]*knownState // by uuid
}

// New makes the device routes. Call Run to notice devices that fall silent.
func New(cfg Config) *Device {
	d := &Device{
		db: cfg.DB, auth: cfg.Auth,
		poll:    orDefault(cfg.PollInterval, 10*time.Minute),
		maxWait: orDefault(cfg.MaxWait, 5*time.Minute),
		refusal: orDefault(cfg.RefusalDelay, 55*time.Second),
		states:  map[string]*knownState{},
	}
	failed := cfg.Failed
	if failed == nil {
		failed = func(error) {}
	}
	d.presence = newPresence(cfg.DB, d.poll, failed)
	return d
}

func orDefault(d, standard time.Duration) time.Duration {
	if d <= 0 {
		return standard
	}
	return d
}

// Run watches over who is online until the context ends.
func (d *Device) Run(ctx context.Context) error { return d.presence.run(ctx) }

// Routes adds the routes to the mux.
func (d *Device) Routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /device/register", d.register)
	mux.HandleFunc("GET /device/v3/{uuid}/state", d.getState)
	mux.HandleFunc("PATCH /device/v3/state", d.patchState)
	mux.HandleFunc("PATCH /device/v3/tags", d.patchTags)
	mux.HandleFunc("POST /device/v2/{uuid}/log-stream", d.logStream)
	mux.HandleFunc("POST /device/v2/{uuid}/logs", d.logBatch)
	mux.HandleFunc("GET /device/v2/{uuid}/logs", d.readLogs)
}

// mayRead says whether the actor may read a device.
func (d *Device) mayRead(ctx context.Context, actor auth.Actor, device model.Device) (bool, error) {
	switch actor.Kind {
	case auth.Device:
		return actor.ID == device.ID, nil
	case auth.User:
		return d.db.UserMayUseFleet(ctx, actor.ID, device.Fleet)
	case auth.None, auth.Fleet:
	}
	return false, nil
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

// reader authenticates and checks that the actor may read the device; ok is
// false when the request is answered.
func (d *Device) reader(w http.ResponseWriter, r *http.Request, device model.Device) (auth.Actor, bool) {
	actor, ok := d.auth.Require(w, r)
	if !ok {
		return actor, false
	}
	may, err := d.mayRead(r.Context(), actor, device)
	if err != nil {
		answer.Failure(w, r, err)
		return actor, false
	}
	if !may {
		answer.Empty(w, http.StatusUnauthorized)
	}
	return actor, may
}
