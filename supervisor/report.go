package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"deckhand/config"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/report"
	"deckhand/state"
	"deckhand/supervisor/history"
	"deckhand/uplink"
	"deckhand/version"
)

// report tells the cloud about every change until ctx ends.
func (s *Supervisor) report(ctx context.Context, client *uplink.Client, file *config.File) {
	var watcher sync.WaitGroup
	defer watcher.Wait()
	watcher.Go(func() { s.changes(ctx, s.nudges) })
	_ = report.Run(ctx, report.Config{
		Now: func() report.Report { return report.Build(s.inCloudsEyes(s.reportInput())) }, Changed: s.nudges,
		Metrics: s.metrics, Look: reportLook,
		Cloud: meteredCloud{client, s.meter}, Memory: s.store.Reports, Era: s.host.BootID + " " + client.Endpoint(),
		Target: s.targetName, MaxBackoff: s.pollInterval,
		OnError: func(err error, next time.Duration) {
			s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Dur("next", next).Msg("cannot report")
		},
	}) // it ends with ctx
}

// reportLook is how often to look for what should be reported and nobody told:
// the slow lane of metrics. The kernel tells of addresses and of a low voltage.
const reportLook = 5 * time.Minute

// metrics are those of the device, or nothing when the owner does not want them.
func (s *Supervisor) metrics() report.Metrics {
	if !s.settings().HardwareMetrics {
		return report.Metrics{}
	}
	m := s.load.Read()
	out := report.Metrics{
		CPUUsage: m.CPUUsage, MemoryUsage: m.MemoryUsage, MemoryTotal: m.MemoryTotal,
		StorageUsage: m.StorageUsage, StorageTotal: m.StorageTotal, StorageBlockDevice: &m.BlockDevice, CPUTemp: m.CPUTemp,
	}
	if m.CPUID != "" {
		out.CPUID = &m.CPUID
	}
	return out
}

// targetName tells targets apart, as far as a report is about them.
func (s *Supervisor) targetName() string {
	apps := s.device.target().Apps
	var b strings.Builder
	for _, uuid := range slices.Sorted(maps.Keys(apps)) {
		fmt.Fprintln(&b, uuid, apps[uuid].Commit)
	}
	return b.String()
}

func (s *Supervisor) reportInput() report.Input {
	v := s.values()
	status := s.runner.Status()
	in := reportInput(status)
	in.Waiting, in.Undervolted = reportWaits(status), s.voltage.Low()
	in.Facts = report.Facts{
		UUID: v.UUID, SupervisorVersion: version.Version, OSVersion: s.host.OSName, OSVariant: s.host.Variant(),
		MACAddress: report.MACAddresses("/sys/class/net"), IPAddress: addresses(), APIPort: s.apiPort(), APISecret: s.globalKey(),
	}
	return in
}

// reportWaits sorts what the plan waits for by app.
func reportWaits(s run.Status) map[string][]report.Wait {
	steps := map[reconcile.Key]reconcile.Step{}
	for _, n := range s.Plan.Nodes {
		steps[n.Key] = n.Step
	}
	out := map[string][]report.Wait{}
	for _, w := range s.Plan.Waiting {
		wait := report.Wait{Step: w.Title, Class: w.Class, Text: w.Text, Holder: w.Holder, Since: w.Since, Tries: w.Tries, Until: w.Until}
		for uuid, app := range s.Target.Apps {
			if history.ConcernsApp(steps[w.Key], app) {
				out[uuid] = append(out[uuid], wait)
			}
		}
	}
	return out
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
