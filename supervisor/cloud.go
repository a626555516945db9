package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"deckhand/config"
	"deckhand/state"
	"deckhand/uplink"
	"deckhand/version"
)

const (
	// configRetry is how often a config.json that cannot be read is read again:
	// somebody has to mend it.
	configRetry = 30 * time.Second
	// longPoll is how long the cloud may hold our question; it stays below the
	// time limit for silence and below what proxies allow.
	longPoll = 50 * time.Second
)

// loadConfig reads config.json. Without one the device runs on with what it has.
func (s *Supervisor) loadConfig() {
	f, err := config.Load(s.cfg.ConfigFile)
	if err != nil {
		s.cfg.Log.Error().Err(err).Msg("config.json cannot be used; going on without the cloud until it can")
		s.setTrouble(err)
		return
	}
	s.mu.Lock()
	s.file, s.trouble = f, ""
	s.mu.Unlock()
}

func (s *Supervisor) setTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = ""
	if err != nil {
		s.trouble = err.Error()
	}
}

// cloud makes the device known to its cloud, then polls and reports.
func (s *Supervisor) cloud(ctx context.Context) {
	for s.configFile() == nil {
		if !pause(ctx, configRetry) {
			return
		}
		s.loadConfig()
	}
	file := s.configFile()
	if !file.Values().Managed() {
		s.cfg.Log.Info().Msg("config.json names no cloud; the device is unmanaged")
		s.leave()
		s.local.look()
		return
	}
	if err := s.provision(ctx, file); err != nil {
		return // ctx ended
	}
	v := file.Values()
	client, err := uplink.New(uplink.Config{
		Endpoint: v.APIEndpoint, UUID: v.UUID, UserAgent: s.userAgent(), Transport: s.transport,
		Key: func() string { return file.Values().DeviceAPIKey }, Patience: s.patience,
	})
	if err != nil {
		s.setTrouble(err)
		s.cfg.Log.Error().Err(err).Msg("cannot use the cloud address")
		return
	}
	calls := make(chan struct{}, 1)
	poller := uplink.NewPoller(uplink.PollConfig{
		Source: client, Wait: longPoll, ETag: s.storedETag(v.APIEndpoint),
		Interval: s.pollInterval, Instant: s.instant, Later: !s.instant(),
		OnTarget: func(ctx context.Context, body []byte, etag string) error {
			s.setTrouble(nil)
			return s.accept(ctx, body, etag)
		},
		OnTrigger: s.asked,
		OnCalls: func() {
			select {
			case calls <- struct{}{}:
			default: // it will fetch them anyway
			}
		},
		OnError: func(err error, next time.Duration) {
			s.setTrouble(err)
			s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Dur("next", next).Msg("cannot get the target state")
		},
	})
	s.mu.Lock()
	s.client, s.poller = client, poller
	s.mu.Unlock()
	s.logs.connect(client)
	if err := s.introduce(ctx, client, file); err != nil {
		return // ctx ended
	}
	var all sync.WaitGroup
	all.Go(func() { s.report(ctx, client, file) })
	all.Go(func() { s.sendTags(ctx, client) })
	all.Go(func() { s.carryCalls(ctx, client, calls) })
	_ = poller.Run(ctx) // it ends with ctx
	all.Wait()
}

// asked is after the cloud was asked for news on a wish. What failed is tried again;
// somebody's wish is a reason to look at the device even if nothing did.
func (s *Supervisor) asked(t uplink.Trigger) {
	if !t.Own || len(s.runner.Status().Failures) > 0 {
		s.retry("")
	}
}

func (s *Supervisor) configFile() *config.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file
}

// userAgent begins with Supervisor/ because clouds route on that.
func (s *Supervisor) userAgent() string {
	ua := "Supervisor/" + version.Version
	if s.host.OSName != "" {
		ua += fmt.Sprintf(" (Linux; %s; %s)", s.host.OSName, s.host.Variant())
	}
	return ua
}

// storedETag is that of the target in force, if this cloud gave it: the first
// question after a restart then costs nothing.
func (s *Supervisor) storedETag(endpoint string) string {
	last, ok, err := s.store.Targets.Last()
	if err != nil || !ok || last.Source != endpoint || !s.runner.Status().HasGoal {
		return ""
	}
	return last.ETag
}

// writeTargetConfig leaves the configuration variables where the host OS's
// safe-reboot helper looks for lock overrides.
func writeTargetConfig(runDir string, values map[string]string) error {
	if runDir == "" {
		return nil
	}
	b, err := json.Marshal(values)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(runDir, "target-state-config")
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// onlyKey is the device UUID of a stored document, for the case that
// config.json cannot tell.
func onlyKey(doc []byte) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(doc, &m) != nil || len(m) != 1 {
		return ""
	}
	for k := range m {
		return k
	}
	return ""
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
