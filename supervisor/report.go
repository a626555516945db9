package supervisor

import (
	"context"
	"sync"
	"time"

	"deckhand/config"
	"deckhand/report"
	"deckhand/state"
	"deckhand/uplink"
	"deckhand/version"
)

// report tells the cloud about every change until ctx ends.
func (s *Supervisor) report(ctx context.Context, client *uplink.Client, file *config.File) {
	var watcher sync.WaitGroup
	defer watcher.Wait()
	changed := make(chan struct{}, 1)
	watcher.Go(func() { s.changes(ctx, changed) })
	_ = report.Run(ctx, report.Config{
		Now: func() report.Report { return report.Build(s.reportInput()) }, Changed: changed,
		Send: client.Report, Memory: s.store.Reports, RetryAfter: uplink.RetryAfter,
		MaxBackoff: func() time.Duration { return file.Values().PollInterval },
		OnError: func(err error, next time.Duration) {
			s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Dur("next", next).Msg("cannot report")
		},
	}) // it ends with ctx
}

func (s *Supervisor) reportInput() report.Input {
	v := s.values()
	in := reportInput(s.runner.Status())
	in.Facts = report.Facts{
		UUID: v.UUID, SupervisorVersion: version.Version, OSVersion: s.host.OSName, OSVariant: s.host.Variant(),
		MACAddress: report.MACAddresses("/sys/class/net"), IPAddress: addresses(), APIPort: s.apiPort(), APISecret: s.apiKey,
	}
	return in
}

// addresses are those of the device; none when they cannot be read, since a
// report without them is better than no report.
func addresses() string {
	all, err := report.Interfaces()
	if err != nil {
		return ""
	}
	return report.IPAddresses(all)
}

// changes sends a hint for every change of the loop's status until ctx ends.
func (s *Supervisor) changes(ctx context.Context, hints chan<- struct{}) {
	for {
		changed := s.runner.Changed()
		select {
		case hints <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
