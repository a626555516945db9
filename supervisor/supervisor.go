package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"deckhand/config"
	"deckhand/engine"
	"deckhand/files"
	"deckhand/hostapp"
	"deckhand/localapi"
	"deckhand/locks"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
	"deckhand/target"
	"deckhand/uplink"
	"deckhand/version"
)

// Config says where everything is.
type Config struct {
	ConfigFile string // balena's config.json
	Engine     string // host of the container engine
	DataDir    string // our memory
	RunDir     string // lock and breadcrumb folder, on the host
	Listen     string // local API; empty: every interface, at listenPort of config.json
	HostRoot   string // where the host's root folder is mounted; empty: /
	AppsFile   string // target that came with the disk image; empty: none
	Log        zerolog.Logger

	wire http.RoundTripper // to the engine, in tests; nil: a connection
}

// Supervisor is a running supervisor.
type Supervisor struct {
	cfg     Config
	store   *store.Store
	engine  *engine.Engine
	device  *device
	runner  *run.Runner
	journal *history.Journal
	logs    *logging
	meter   *meter
	news    news
	events  *localapi.Events
	local   *localMode
	host    hostapp.Facts
	mains   mains
	led     *hostapp.LED
	power   power
	actions actions

	vitals
	started time.Time
	tagged  chan struct{} // tags were queued

	preloadUnused bool // apps.json could not be used; only the goroutine of the cloud asks

	mu      sync.Mutex
	apiKey  string       // opens the whole device API
	file    *config.File // nil until config.json could be read
	client  *uplink.Client
	poller  *uplink.Poller
	info    engine.Info
	name    string // the device's name, from the target
	trouble string // why the cloud is not reached
}

// Run supervises the device until ctx ends. It fails only when another
// supervisor runs here or the data folder cannot be used.
func Run(ctx context.Context, cfg Config) error {
	lock, err := locks.Instance(filepath.Join(cfg.DataDir, "lock"))
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }()
	s, err := open(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	cfg.Log.Info().Str("version", version.Version).Str("engine", cfg.Engine).Str("data", cfg.DataDir).Msg("supervisor starting")
	s.begin(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.work(ctx) })
	g.Go(func() error { return s.serveControl(ctx) })
	g.Go(func() error { return s.serveAPI(ctx) })
	g.Go(func() error { s.announce(ctx); return nil })
	g.Go(func() error { s.watchVitals(ctx); return nil })
	err = g.Wait()
	s.power.running.Wait()
	cfg.Log.Info().Msg("supervisor stopped; containers go on")
	return err
}

// begin reads what was there before.
func (s *Supervisor) begin(ctx context.Context) {
	s.journal.Begin(version.Version)
	s.loadConfig()
	s.local.load(ctx)
	s.restore(ctx)
}

// work is all that it does by itself: nobody has to reach the device for it.
func (s *Supervisor) work(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.runner.Run(ctx) })
	g.Go(func() error { s.preload(ctx); s.cloud(ctx); return nil })
	g.Go(func() error { s.learnEngine(ctx); return nil })
	g.Go(func() error { s.housekeeping(ctx); return nil })
	g.Go(func() error { s.local.run(ctx); return nil })
	g.Go(func() error { s.journal.Run(ctx); return nil })
	g.Go(func() error { s.runLogs(ctx); return nil })
	return g.Wait()
}

func open(cfg Config) (*Supervisor, error) {
	s := &Supervisor{cfg: cfg, started: time.Now(), tagged: make(chan struct{}, 1), logs: newLogging()}
	s.disk = &disk{dir: cfg.DataDir}
	var err error
	s.store, err = store.Open(filepath.Join(cfg.DataDir, "deckhand.db"), store.Options{
		Report: func(problem error) { cfg.Log.Warn().Msg(problem.Error()) }, Write: s.disk.write,
	})
	if err != nil {
		return nil, err
	}
	s.openVitals()
	if aside := s.store.Recovered(); aside != "" {
		cfg.Log.Warn().Str("kept", aside).Msg("the database was damaged and is rebuilt; containers stay as they are")
	}
	if s.apiKey, err = s.store.Identity.APIKey(); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	s.host, err = hostapp.Read(hostapp.Config{Root: cfg.HostRoot, ConfigFile: cfg.ConfigFile})
	if err != nil {
		cfg.Log.Warn().Err(err).Msg("cannot read everything about the host")
	}
	s.engine, err = engine.New(engine.Config{
		Host: cfg.Engine, Identity: s.identity, RunDir: cfg.RunDir, HostRoot: cfg.HostRoot,
		Auth: s.registryAuth, Features: s.features, Started: s.logs.started, Log: cfg.Log, Transport: cfg.wire,
	})
	if err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	reboots := hostapp.NewReboots(hostapp.RebootConfig{RunDir: cfg.RunDir, Root: cfg.HostRoot})
	s.mains, s.led = reboots, hostapp.NewLED(cfg.HostRoot)
	c := deviceConfig{Engine: s.engine, Store: s.store, Log: cfg.Log, Machine: reboots}
	if cfg.RunDir != "" {
		c.Locks = locks.Open(locks.Config{RunDir: cfg.RunDir, Log: cfg.Log})
		c.Files = files.Open(files.Config{RunDir: cfg.RunDir, Log: cfg.Log})
	}
	if s.device, err = newDevice(c); err != nil {
		return nil, errors.Join(err, s.engine.Close(), s.store.Close())
	}
	s.journal = history.New(history.Config{Store: s.store.History, Target: s.device.target, Now: time.Now, Log: cfg.Log})
	s.local = newLocalMode(s)
	s.logs.open(s)
	s.meter, s.events = newMeter(time.Now), localapi.NewEvents(localapi.EventsConfig{}, s.started)
	s.news.to = s.events
	s.runner = run.New(run.Config{
		Device: logged{metered{s.device, s.meter}, s.logs}, Memory: memory{s.store, cfg.Log}, Log: cfg.Log,
		Event: func(e run.Event) { s.journal.Event(e); s.meter.event(e); s.logs.system.Event(e) },
	})
	return s, nil
}

func (s *Supervisor) close() {
	s.led.Close()
	s.journal.Flush() // the last steps have ended by now
	if err := errors.Join(s.engine.Close(), s.store.Close()); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot close cleanly")
	}
}

// identity is what new containers are told about the device.
func (s *Supervisor) identity() state.Identity {
	v := s.values()
	s.mu.Lock()
	defer s.mu.Unlock()
	return state.Identity{UUID: v.UUID, Name: s.name, DeviceType: s.deviceType(v), Arch: s.host.Arch, OSVersion: s.host.OSName}
}

func (s *Supervisor) deviceType(v config.Values) string {
	if s.host.DeviceType == "unknown" && v.DeviceType != "" {
		return v.DeviceType
	}
	return s.host.DeviceType
}

func (s *Supervisor) registryAuth(string) (user, password string, ok bool) {
	s.mu.Lock()
	c := s.client
	s.mu.Unlock()
	if c == nil {
		return "", "", false
	}
	user, password = c.RegistryAuth()
	return user, password, password != ""
}

// values are those of config.json; the defaults until it could be read.
func (s *Supervisor) values() config.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return config.Values{}
	}
	return s.file.Values()
}

// restore goes on towards the last accepted target, with or without a cloud.
func (s *Supervisor) restore(ctx context.Context) {
	last, ok, err := s.store.Targets.Last()
	if err != nil || !ok {
		if err != nil {
			s.cfg.Log.Warn().Err(err).Msg("cannot read the stored target; waiting for the cloud's")
		}
		return
	}
	uuid := s.values().UUID
	if uuid == "" || last.Source == preloaded {
		uuid = onlyKey(last.Document)
	}
	t, _, err := target.DecodeV3(ctx, last.Document, s.decoding(uuid))
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("the stored target cannot be read any more; waiting for the cloud's")
		return
	}
	t = s.local.over(t, false)
	s.setName(t.Name)
	s.device.use(t)
	s.runner.RestoreTarget(t)
	s.cfg.Log.Info().Time("accepted", last.AcceptedAt).Int("apps", len(t.Apps)).Msg("going on with the stored target")
}

// accept takes a target document: validated whole, stored, then used. A
// refused document leaves the last good one in force.
func (s *Supervisor) accept(ctx context.Context, doc []byte, etag string) error {
	v := s.values()
	return s.take(ctx, doc, origin{uuid: v.UUID, name: v.APIEndpoint, etag: etag})
}

func (s *Supervisor) take(ctx context.Context, doc []byte, from origin) error {
	t, problems, err := target.DecodeV3(ctx, doc, s.decoding(from.uuid))
	if err != nil {
		s.cfg.Log.Error().Err(err).Msg("could not move to new release: the target is refused, the last one stays in force")
		s.logs.system.Refused(err)
		return err
	}
	for _, p := range problems {
		s.cfg.Log.Warn().Msg(p.String())
	}
	s.local.turn.Lock()
	defer s.local.turn.Unlock()
	err = s.device.learn(t, &store.Target{Document: doc, ETag: from.etag, Source: from.name, AcceptedAt: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("store the target: %w", state.Classify(state.ClassSpace, err))
	}
	s.install(s.local.over(t, true), "from "+cmp.Or(from.name, "the cloud"))
	return nil
}

// install makes a target the one in force; it is stored already.
func (s *Supervisor) install(t state.Target, source string) {
	last := s.runner.Status().World
	if err := writeTargetConfig(s.cfg.RunDir, t.Config); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot tell the host OS about the configuration")
	}
	s.configure(t)
	s.setName(t.Name)
	s.journal.Accepted(s.device.target(), t, source)
	s.logs.system.Accepted(t)
	if err := s.device.retryHandovers(""); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot forget failed hand-overs; they are not tried again yet")
	}
	s.device.use(t)
	s.runner.SetTarget(t)
	s.cfg.Log.Info().Int("apps", len(t.Apps)).Msg("new target")
	if err := s.device.tidy(t, last); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot forget what no target and no container refers to")
	}
}

// deviceName is the device's name, from the target in force.
func (s *Supervisor) deviceName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name
}

func (s *Supervisor) setName(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name = name
}

// learnEngine notes what kind of engine it is, once it answers.
func (s *Supervisor) learnEngine(ctx context.Context) {
	if s.engine.Ready(ctx) != nil {
		return // ctx ended
	}
	info, err := s.engine.Info(ctx)
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot ask the engine for its version")
		return
	}
	s.cfg.Log.Info().Str("name", info.Name).Str("version", info.Version).Str("api", info.APIVersion).Msg("engine answers")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info = info
}

// housekeeping follows the loop: it notes what happens, and after each update it
// writes that down, ends permissions that were given for the update, and gives
// memory back, since what a plan needs is garbage a second later.
func (s *Supervisor) housekeeping(ctx context.Context) {
	defer s.events.Close()
	busy := true
	var looked time.Time
	for {
		changed := s.runner.Changed()
		st := s.runner.Status()
		if st.Err != nil || st.Looked != looked { // not for every byte of a download
			looked = st.Looked
			s.journal.Status(st)
			s.news.status(st)
		}
		if busy && st.Settled {
			s.journal.Flush()
			s.endOnce(st.Looked)
			debug.FreeOSMemory()
		}
		busy = !st.Settled
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
