package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/bucket"
	"deckhand/cloud/metrics"
	"deckhand/cloud/model"
	"deckhand/cloud/registry"
	"deckhand/version"
)

// Operations is what the cloud does for those who run it.
type Operations struct {
	// MetricsListen is host:port of the figures; none when empty. Addresses that
	// others reach need a token.
	MetricsListen, MetricsToken string
	// RegistryDir holds the images, and may be shared by servers on one database;
	// a folder in DataDir when empty.
	RegistryDir string
	// RegistryStorage is the address of a bucket, see bucket.Example, that has the images
	// and the files of releases; they are in RegistryDir when empty.
	RegistryStorage string
	// RegistryQuota is how many bytes the images of an organization may take; 0: any.
	RegistryQuota int64
	// CollectInterval is how often the registry is cleared up; 0: never.
	CollectInterval time.Duration
	// CollectGrace is how long what nobody needs stays; registry.DefaultGrace when 0.
	CollectGrace time.Duration
}

// RegistryDir is the folder of a cloud's images.
func RegistryDir(dataDir, given string) string {
	if given != "" {
		return given
	}
	return filepath.Join(dataDir, "registry")
}

// Storage opens where a cloud's images are, and sees that it can be used. dir is that
// of RegistryDir, address that of RegistryStorage.
func Storage(ctx context.Context, dir, address string) (registry.Storage, error) {
	s := registry.Storage{Dir: dir}
	if address == "" {
		return s, nil
	}
	a, err := bucket.ParseAddress(address)
	if err != nil {
		return s, fmt.Errorf("read --registry-storage: %w", err)
	}
	if s.Bucket, err = bucket.Open(ctx, a); err == nil {
		err = s.Bucket.Check(ctx)
	}
	if err != nil {
		return s, fmt.Errorf("--registry-storage: %w", err)
	}
	return s, nil
}

// openStorage is Storage for a server.
func (s *Server) openStorage(ctx context.Context, cfg Config) (registry.Storage, error) {
	storage, err := Storage(ctx, RegistryDir(cfg.DataDir, cfg.RegistryDir), cfg.RegistryStorage)
	if err == nil && storage.Bucket != nil && storage.Bucket.Address().Clear() {
		s.log.Warn().Str("endpoint", storage.Bucket.Address().Endpoint).Msg("images go to their bucket and come from it unencrypted: use an endpoint with https outside of a network that you trust")
	}
	return storage, err
}

// openMetrics opens the listener of the figures.
func (s *Server) openMetrics(ctx context.Context, cfg Config) error {
	s.metrics = metrics.New(version.Version)
	if cfg.MetricsListen == "" {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.MetricsListen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address with --metrics-listen", cfg.MetricsListen, err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && cfg.MetricsToken == "" {
		return errors.Join(fmt.Errorf("others reach %s: give a password with --metrics-token, or listen on 127.0.0.1", cfg.MetricsListen), listener.Close())
	}
	s.figures = listening{listener: listener, server: &http.Server{
		Handler: s.metrics.Handler(cfg.MetricsToken), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quietLog(s.log),
	}}
	return nil
}

// MetricsURL is where the figures are, "" when they are nowhere.
func (s *Server) MetricsURL() string {
	if s.figures.listener == nil {
		return ""
	}
	return "http://" + reachable(s.figures.listener) + "/metrics"
}

// watch adds the figures of the parts.
func (s *Server) watch() {
	s.metrics.Look([]metrics.Value{{Name: "devices", Help: "Devices by the state of their heartbeat.", Label: "state"}},
		func(ctx context.Context) ([]map[string]float64, error) {
			counts, err := s.db.DeviceCounts(ctx)
			return []map[string]float64{floats(counts)}, err
		})
	s.metrics.Look([]metrics.Value{
		{Name: "held_requests", Help: "Requests of devices that wait for news."},
		{Name: "state_cache_hits_total", Help: "Target states that were known.", Counter: true},
		{Name: "state_cache_misses_total", Help: "Target states that had to be made.", Counter: true},
	}, func(context.Context) ([]map[string]float64, error) {
		of := s.device.Stats()
		return []map[string]float64{one(of.Held), one(of.Hits), one(of.Misses)}, nil
	})
	s.metrics.Look([]metrics.Value{
		{Name: "builds_running", Help: "Builds that are running."},
		{Name: "builds_waiting", Help: "Builds that wait for their turn."},
		{Name: "builds_total", Help: "Builds that ended, by status.", Label: "status", Counter: true},
	}, s.lookBuilds)
	s.metrics.Look([]metrics.Value{
		{Name: "database_connections_used", Help: "Connections in use.", Label: "pool"},
		{Name: "database_connections_max", Help: "Connections at most.", Label: "pool"},
		{Name: "database_waits_total", Help: "Times that somebody waited for a connection.", Label: "pool", Counter: true},
		{Name: "database_wait_seconds_total", Help: "How long was waited for connections.", Label: "pool", Counter: true},
		{Name: "database_writes_total", Help: "Writes to a database file.", Counter: true},
		{Name: "database_commits_total", Help: "Commits of a database file, which writes share.", Counter: true},
	}, s.lookDatabase)
}

func (s *Server) lookBuilds(context.Context) ([]map[string]float64, error) {
	of := s.builds.Stats()
	return []map[string]float64{one(of.Running), one(of.Waiting), floats(of.Ended)}, nil
}

func (s *Server) lookDatabase(context.Context) ([]map[string]float64, error) {
	used, most, waits, waited := map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}
	of := s.db.Stats()
	for pool, p := range of.Pools {
		used[pool], most[pool], waits[pool], waited[pool] = float64(p.InUse), float64(p.MaxOpenConnections), float64(p.WaitCount), p.WaitDuration.Seconds()
	}
	return []map[string]float64{used, most, waits, waited, one(of.Writes), one(of.Commits)}, nil
}

func one[T int | int64](n T) map[string]float64 { return map[string]float64{"": float64(n)} }

func floats(counts map[string]int) map[string]float64 {
	all := make(map[string]float64, len(counts))
	for label, n := range counts {
		all[label] = float64(n)
	}
	return all
}

// collect clears up the registry on its schedule.
func (s *Server) collect(ctx context.Context) error {
	if s.interval <= 0 {
		return nil
	}
	return s.collector.Run(ctx, s.interval, func(done registry.Collection, err error) {
		s.metrics.Collected(done, err)
		if err != nil {
			s.log.Error().Err(err).Msg("registry was not cleared up")
			return
		}
		s.log.Info().Int("images", done.Repositories).Int("blobs", done.Blobs).Int64("freed", done.Bytes).Int64("kept", done.KeptBytes).Strs("unreadable", done.Unreadable).Msg("registry cleared up")
	})
}

// readyTime bounds how long the database may take to show that it answers.
const readyTime = 2 * time.Second

// ready says whether requests should come here: a load balancer asks.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		answer.Text(w, http.StatusServiceUnavailable, "stopping")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTime)
	defer cancel()
	if err := s.db.Ping(ctx); err != nil {
		s.log.Error().Err(err).Msg("not ready")
		answer.Text(w, http.StatusServiceUnavailable, "the database does not answer")
		return
	}
	answer.Text(w, http.StatusOK, "ready")
}

// Place is where a cloud keeps what it has.
type Place struct{ DataDir, Database, RegistryDir, RegistryStorage string }

func (p Place) model() model.Config {
	return model.Config{Path: filepath.Join(p.DataDir, "cloud.db"), Database: p.Database}
}

// Collect clears up the registry of a cloud that may be running, or says what would
// be removed.
func Collect(ctx context.Context, p Place, grace time.Duration, dry bool) (_ registry.Collection, err error) {
	storage, err := Storage(ctx, RegistryDir(p.DataDir, p.RegistryDir), p.RegistryStorage)
	if err != nil {
		return registry.Collection{}, err
	}
	db, err := model.OpenBeside(ctx, p.model())
	if err != nil {
		return registry.Collection{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c := registry.NewCollector(registry.CollectorConfig{Storage: storage, Records: db, Grace: grace})
	if dry {
		return c.Look(ctx)
	}
	return c.Collect(ctx)
}
