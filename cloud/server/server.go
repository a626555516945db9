package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"deckhand/cloud/answer"
	"deckhand/cloud/asset"
	"deckhand/cloud/auth"
	"deckhand/cloud/builder"
	"deckhand/cloud/catalogue"
	"deckhand/cloud/dashboard"
	"deckhand/cloud/device"
	"deckhand/cloud/metrics"
	"deckhand/cloud/model"
	"deckhand/cloud/odata"
	"deckhand/cloud/park"
	"deckhand/cloud/registry"
)

// Config says where the cloud keeps its data and where it listens.
type Config struct {
	// DataDir holds everything; it is made when missing.
	DataDir string
	// Database is the URL of a PostgreSQL database, which other servers may share;
	// empty: a file in DataDir.
	Database string
	// Listen and RegistryListen are host:port; port 0 takes a free one.
	Listen, RegistryListen string
	// PublicURL is how devices and owners reach the API; made from Listen
	// when empty.
	PublicURL string
	// RegistryHost is the host:port in image names, reachable for devices and
	// for the build engine; made from RegistryListen when empty.
	RegistryHost string
	// Engine is the Docker engine that builds, like unix:///var/run/docker.sock.
	Engine string
	// TLSCert and TLSKey are PEM files; both or none.
	TLSCert, TLSKey string
	// PollInterval is how often devices ask for their target; 10 minutes when 0.
	PollInterval time.Duration
	// TrustedProxies are addresses of proxies which say in X-Forwarded-For who
	// the client is.
	TrustedProxies []netip.Prefix
	// BuilderSecret lets builders outside of this process pull and push every
	// image; none when empty.
	BuilderSecret string
	// VPNKey is the key of VPN servers that tell which devices are connected; none
	// when empty.
	VPNKey string
	// FetchFrom are private networks from which projects to build may be fetched by
	// URL, beside the public internet.
	FetchFrom []netip.Prefix
	// AssetLimit is the size in bytes of the largest file of a release;
	// asset.DefaultLimit when 0.
	AssetLimit int64
	Operations
	Log zerolog.Logger
}

// Login is the one-time login of a new cloud's owner.
type Login struct{ Username, Password string }

// Server is a cloud that listens but does not answer yet: see Run.
type Server struct {
	log      zerolog.Logger
	db       *model.DB
	device   *device.Device
	builder  *builder.Builder
	registry *registry.Registry
	assets   *asset.Store
	login    *Login

	metrics   *metrics.Metrics
	builds    *builder.Builder // for its figures, also after builder was closed
	collector *registry.Collector
	interval  time.Duration // of the collector
	draining  atomic.Bool

	url, registryHost    string
	api, images, figures listening
	lot                  *park.Lot // of api
	stopAnswers          func()
}

// listening is an HTTP server with its listener.
type listening struct {
	server   *http.Server
	listener net.Listener
}

// New opens the data folder and both ports. The caller must call Run, which
// closes everything at its end, or Close.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("start cloud: %w; choose another folder with --data-dir", err)
	}
	s := &Server{log: cfg.Log, stopAnswers: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.listen(ctx, cfg); err != nil {
		return nil, err
	}
	if err := s.openMetrics(ctx, cfg); err != nil {
		return nil, err
	}
	if s.db, err = model.Open(ctx, model.Config{
		Path: filepath.Join(cfg.DataDir, "cloud.db"), Database: cfg.Database, RegistryHost: func() string { return s.registryHost }, URL: func() string { return s.url }}); err != nil {
		return nil, err
	}
	if n, err := s.db.EndInterruptedBuilds(ctx); err != nil {
		return nil, fmt.Errorf("end interrupted builds: %w", err)
	} else if n > 0 {
		s.log.Warn().Int("builds", n).Msg("builds were interrupted by the last stop; push again")
	}
	identity, err := auth.New(auth.Config{DB: s.db, KeyDir: filepath.Join(cfg.DataDir, "keys"), Issuer: s.url, Service: s.registryHost, TrustedProxies: cfg.TrustedProxies, BuilderSecret: cfg.BuilderSecret, VPNKey: cfg.VPNKey})
	if err != nil {
		return nil, err
	}
	if err := s.wire(ctx, cfg, identity); err != nil {
		return nil, err
	}
	// Last: a start that fails after it would lose the password.
	username, password, err := identity.FirstLogin(ctx)
	if err != nil {
		return nil, err
	}
	if password != "" {
		s.login = &Login{username, password}
	}
	return s, nil
}

func (s *Server) wire(ctx context.Context, cfg Config, identity *auth.Auth) (err error) {
	storage, err := s.openStorage(ctx, cfg)
	if err != nil {
		return err
	}
	grace := cmp.Or(cfg.CollectGrace, registry.DefaultGrace)
	if s.registry, err = registry.New(registry.Config{
		Storage: storage, Secret: identity.Shared("registry uploads"), Grace: grace, Quota: registry.Quota{Bytes: cfg.RegistryQuota, Owners: s.db}, Realm: s.url + "/auth/v1/token",
		Service: identity.RegistryService(), Issuer: identity.RegistryIssuer(), JWKS: identity.RegistryJWKS(), Log: s.log}); err != nil {
		return err
	}
	// Beside the images: servers that share those share these.
	if s.assets, err = asset.New(asset.Config{Dir: filepath.Join(storage.Dir, "assets"), Bucket: storage.Bucket, DB: s.db, Limit: cfg.AssetLimit}); err != nil {
		return err
	}
	if s.builder, err = builder.New(builder.Config{
		DB: s.db, Auth: identity, EngineHost: cfg.Engine, Dir: filepath.Join(cfg.DataDir, "builds"), FetchFrom: cfg.FetchFrom, Log: s.log}); err != nil {
		return err
	}
	s.builds = s.builder
	s.interval = cfg.CollectInterval
	s.collector = registry.NewCollector(registry.CollectorConfig{Storage: storage, Records: s.db, Grace: grace, Log: s.log})
	s.lot = park.New(func() { s.metrics.Parked("api") })
	s.device = device.New(device.Config{DB: s.db, Auth: identity, PollInterval: cfg.PollInterval, Lot: s.lot,
		Failed: func(err error) { s.log.Error().Err(err).Msg("keep track of devices") }})
	s.watch()
	page, err := dashboard.New(dashboard.Config{DB: s.db, Auth: identity, Secure: cfg.TLSCert != ""})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	identity.Routes(mux)
	odata.New(odata.Config{DB: s.db, Auth: identity, Assets: s.assets}).Routes(mux)
	s.assets.Routes(mux)
	s.device.Routes(mux)
	catalogue.New(catalogue.Config{DB: s.db, Auth: identity, URL: s.url, RegistryHost: s.registryHost}).Routes(mux)
	page.Routes(mux)
	mux.Handle("POST /v3/build", s.builder)
	mux.HandleFunc("POST /v3/buildFromUrl", s.builder.FromURL)
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { answer.Text(w, http.StatusOK, "OK") })
	mux.HandleFunc("GET /connectivity-check", func(w http.ResponseWriter, _ *http.Request) { answer.Empty(w, http.StatusNoContent) })

	// Held requests, streams and pages end when this context does.
	answers, stop := context.WithCancelCause(context.Background())
	s.stopAnswers = func() { stop(answer.ErrStopping) }
	s.api.server = s.httpServer(answers, identity.Guard(noted{mux}), "api")
	s.lot.Attach(s.api.server)
	s.images.server = s.httpServer(answers, s.registry, "registry")
	return nil
}

// maxHeader is the size in bytes of the longest request head: clients ask
// for many ids in one address.
const maxHeader = 128 << 10

func (s *Server) httpServer(ctx context.Context, handler http.Handler, name string) *http.Server {
	log := s.log.With().Str("server", name).Logger()
	return &http.Server{
		Handler:           middleware{next: handler, log: log, images: name == "registry", metrics: s.metrics},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          quietLog(log),
	}
}

// listen opens both ports and learns their addresses.
func (s *Server) listen(ctx context.Context, cfg Config) error {
	var config *tls.Config
	scheme := "http"
	if cfg.TLSCert != "" || cfg.TLSKey != "" {
		certificate, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return fmt.Errorf("read TLS certificate: %w; give both --tls-cert and --tls-key, as PEM files", err)
		}
		scheme, config = "https", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	}
	var err error
	if s.api.listener, err = s.open(ctx, cfg.Listen, "--listen", config); err != nil {
		return err
	}
	if s.images.listener, err = s.open(ctx, cfg.RegistryListen, "--registry-listen", config); err != nil {
		return err
	}
	s.url, s.registryHost = cfg.PublicURL, cfg.RegistryHost
	if s.url == "" {
		s.url = scheme + "://" + reachable(s.api.listener)
	}
	if s.registryHost == "" {
		s.registryHost = reachable(s.images.listener)
	}
	return nil
}

func (s *Server) open(ctx context.Context, address, flag string, config *tls.Config) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address with %s", address, err, flag)
	}
	if config == nil {
		if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
			s.log.Warn().Str("address", listener.Addr().String()).
				Msg("this port is open to the network without encryption: passwords, keys and registry secrets can be read on the way; use --tls-cert and --tls-key, or a proxy that does")
		}
		return listener, nil
	}
	return tls.NewListener(listener, config), nil
}

// reachable is the address of a listener as a client on this machine dials it.
func reachable(l net.Listener) string {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return l.Addr().String()
	}
	host := tcp.IP.String()
	if tcp.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, fmt.Sprint(tcp.Port))
}

// URL is where the API and the web page are.
func (s *Server) URL() string { return s.url }

// RegistryHost is the host in image names.
func (s *Server) RegistryHost() string { return s.registryHost }

// FirstLogin is the owner's login if this start created it, else nil. The
// password is stored nowhere in clear text: show it now or never.
func (s *Server) FirstLogin() *Login { return s.login }

// stopGrace is how long requests may take to end after a stop.
const stopGrace = 10 * time.Second

// Run serves until the context ends, then stops: builds are ended and marked,
// held requests answered, and everything is closed.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range []listening{s.api, {s.api.server, s.lot.Listener()}, s.images, s.figures} {
		if l.listener == nil {
			continue
		}
		group.Go(func() error {
			if err := l.server.Serve(l.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve: %w", err)
			}
			return nil
		})
	}
	group.Go(func() error { return s.device.Run(ctx) })
	group.Go(func() error {
		return s.assets.Run(ctx, func(err error) { s.log.Error().Err(err).Msg("clear up assets") })
	})
	group.Go(func() error { return s.collect(ctx) })
	group.Go(func() error { return s.builds.EndAbandoned(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		return s.shutdown(context.WithoutCancel(ctx))
	})
	err := group.Wait()
	return errors.Join(err, s.Close())
}

// shutdown ends what is open: builds first, so that their answers are still
// written and the registry is there for what they push.
func (s *Server) shutdown(ctx context.Context) error {
	s.draining.Store(true)
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	err := s.builder.Close()
	s.builder = nil
	s.stopAnswers()
	s.lot.Drain(ctx) //nolint:errcheck // who cannot be answered in time is cut off below
	for _, l := range []listening{s.api, s.images, s.figures} {
		if l.server == nil {
			continue
		}
		if l.server.Shutdown(ctx) != nil {
			err = errors.Join(err, l.server.Close()) // somebody does not let go
		}
	}
	return err
}

// Close frees what New opened. Run does it at its end.
func (s *Server) Close() error {
	s.stopAnswers()
	var errs []error
	if s.builder != nil {
		errs = append(errs, s.builder.Close())
	}
	if s.registry != nil {
		errs = append(errs, s.registry.Close())
	}
	for _, l := range []listening{s.api, s.images, s.figures} {
		if l.listener != nil {
			if err := l.listener.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}
