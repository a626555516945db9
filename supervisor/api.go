package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
	"deckhand/target"
	"deckhand/uplink"
	"deckhand/version"
)

// bindRetry is how often a taken port is tried again.
const bindRetry = 10 * time.Second

// apiPort is the port of the local API, as containers and the cloud know it.
func (s *Supervisor) apiPort() int {
	if _, port, err := net.SplitHostPort(s.cfg.Listen); err == nil {
		if n, err := strconv.Atoi(port); err == nil && n > 0 {
			return n
		}
	}
	if port := s.values().ListenPort; port > 0 {
		return port
	}
	const usual = 48484 // balena's, baked into users' programs
	return usual
}

// listenAddress is every interface, unless somebody says otherwise: containers
// have to reach it. Who else may connect says reach.
func (s *Supervisor) listenAddress() string {
	if s.cfg.Listen != "" {
		return s.cfg.Listen
	}
	return net.JoinHostPort("", strconv.Itoa(s.apiPort()))
}

// api is the device API; open means that no key is asked for.
func (s *Supervisor) api(open bool) http.Handler {
	e := edge{s, open}
	return localapi.New(localapi.Config{
		Keys: e, Device: e, Host: e, Apps: e, Tags: e, Local: e, Logs: e, V3: e, Events: s.events,
		Unhealthy: func(reasons []string) {
			s.cfg.Log.Warn().Strs("reasons", reasons).Msg("unhealthy")
		},
		Log: func(r localapi.Request) {
			s.cfg.Log.Debug().Str("method", r.Method).Str("path", r.Path).Int("status", r.Status).Dur("took", r.Took).Msg("api")
		},
	})
}

// update asks the cloud for news now; without a cloud it tries again what
// failed. With force, update locks are broken until that update is done.
func (s *Supervisor) update(force, cancel bool) {
	s.mu.Lock()
	p := s.poller
	s.mu.Unlock()
	if force {
		s.forceOnce()
		s.runner.Look() // what waits for a lock waits no longer, whatever the cloud says
	}
	if p == nil {
		s.retry("")
		return
	}
	p.Trigger(uplink.Trigger{Force: force, Cancel: cancel})
}

// forceOnce allows to break every update lock for one update, in place of no
// longer permission.
func (s *Supervisor) forceOnce() {
	now := s.device.Now()
	for _, o := range s.device.permissions() {
		if o.App == "" && !o.Once && (o.Until.IsZero() || now.Before(o.Until)) {
			return
		}
	}
	o := store.Override{Override: state.Override{By: "a forced update", Until: now.Add(forceFor).UTC()}, Once: true}
	if err := s.device.allow(o); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot write down that the update is forced; locks hold")
		return
	}
	s.journal.Allow(string(RequestOverride), "", o.By, "update locks may be broken until the update is done")
}

// serveAPI serves the device API until ctx ends. A taken port is no reason to
// stop supervising.
func (s *Supervisor) serveAPI(ctx context.Context) error {
	for {
		address := s.listenAddress()
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err == nil {
			s.cfg.Log.Info().Str("address", l.Addr().String()).Msg("local API is up")
			return serve(ctx, localapi.Guard(l, s.reach()), s.api(false))
		}
		s.cfg.Log.Error().Err(err).Dur("next", bindRetry).Msg("cannot open the local API")
		if !pause(ctx, bindRetry) {
			return nil
		}
	}
}

// serveControl serves deckhand's own commands.
func (s *Supervisor) serveControl(ctx context.Context) error {
	l, err := localapi.ListenControl(ctx, Socket(s.cfg.DataDir))
	if err != nil {
		return fmt.Errorf("open the control socket %s: %w", Socket(s.cfg.DataDir), err)
	}
	control, device := localapi.Control(localapi.ControlConfig{Supervisor: answers{s}}), s.api(true)
	return serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ofControl(r.URL.Path) {
			control.ServeHTTP(w, r)
			return
		}
		device.ServeHTTP(w, r)
	}))
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	base, letGo := context.WithCancel(context.WithoutCancel(ctx))
	defer letGo()
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 15 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return base },
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		// Short requests are finished; who waits for an action is let go.
		defer time.AfterFunc(time.Second, letGo).Stop()
		_ = srv.Shutdown(grace)
	}()
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		<-ended
		return nil
	}
	return err
}

// answers serves deckhand's own commands.
type answers struct{ s *Supervisor }

// Status implements localapi.Supervisor.
func (a answers) Status() any { return edge{a.s, true}.StatusOf(localapi.Scope{All: true}) }

// view is what people read about the device, as far as it is shown in st.
func (a answers) view(st run.Status) View {
	v := view(st)
	v.Version, v.Device, v.Cloud = version.Version, a.s.values().UUID, a.s.cloudView()
	v.Unhealthy = a.s.ailments()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	v.Name = a.s.name
	if i := a.s.info; i.Name != "" {
		v.Engine = fmt.Sprintf("%s %s, API %s", i.Name, i.Version, i.APIVersion)
	}
	return v
}

// cloudView is how the device stands with its cloud; nil: none is configured.
func (s *Supervisor) cloudView() *Cloud {
	config := s.values()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !config.Managed() && s.file != nil {
		return nil
	}
	c := &Cloud{Endpoint: config.APIEndpoint, Provisioned: config.Provisioned(), Problem: s.trouble}
	if s.poller != nil {
		c.LastPoll = s.poller.LastSuccess()
	}
	return c
}

// Explain implements localapi.Supervisor.
func (a answers) Explain(service string) (any, error) {
	st := a.s.runner.Status()
	if st.Looked.IsZero() && st.Err == nil {
		return nil, state.Classify(state.ClassEngine, history.ErrNothingYet)
	}
	past, err := a.s.journal.Past()
	if err != nil {
		a.s.cfg.Log.Warn().Err(err).Msg("cannot read what happened; the explanation goes without")
	}
	return history.Explain(service, a.s.question(st, past))
}

// Request implements localapi.Supervisor.
func (a answers) Request(ctx context.Context, document []byte) (any, error) {
	r, err := readRequest(document)
	if err != nil {
		return nil, err
	}
	return a.s.Request(ctx, r)
}

// Plan implements localapi.Supervisor.
func (a answers) Plan(ctx context.Context, document []byte) (any, error) {
	w, err := a.s.device.Observe(ctx)
	if err != nil {
		return nil, err
	}
	st := a.s.runner.Status()
	want, facts := st.Target, reconcile.Facts{Now: time.Now(), Failures: st.Failures}
	if document != nil {
		// What is rejected shows in the plan; what is ignored changes nothing in it.
		if want, _, err = target.DecodeV3(ctx, document, a.s.decoding(a.s.values().UUID)); err != nil {
			return nil, err
		}
		want = a.s.local.preview(want)
	} else if !st.HasGoal {
		return nil, state.Classify(state.ClassInvalid, errors.New("there is no target yet; the cloud was not reached so far"))
	}
	p, err := reconcile.Make(w, want, facts)
	if err != nil {
		return nil, err
	}
	return ViewPlan(p), nil
}

// Snapshot implements localapi.Supervisor.
func (a answers) Snapshot(ctx context.Context) (any, error) {
	w, err := a.s.device.Observe(ctx)
	if err != nil {
		return nil, err
	}
	st := a.s.runner.Status()
	return takeSnapshot(w, st.Target, st.Failures, time.Now().UTC()), nil
}
