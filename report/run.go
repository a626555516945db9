package report

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

const (
	minGap       = 10 * time.Second // between two acknowledged reports
	lookAgain    = 30 * time.Second // for what nothing tells us about: addresses
	firstBackoff = 15 * time.Second // after the first failure; doubles
)

// Memory keeps the last acknowledged report over restarts; store.Reports is one.
type Memory interface {
	Last() ([]byte, error)
	Put(report []byte) error
}

// Cloud is where reports go.
type Cloud interface {
	// Report sends the changed part of the report. Without an error the cloud
	// has acknowledged it.
	Report(ctx context.Context, patch []byte) error
	// Refusal reads from an error of Report what HTTP status the cloud answered,
	// 0 if it did not, and how long it wants to be left alone, 0 if it does not say.
	Refusal(err error) (status int, after time.Duration)
}

// Config says what to report, where to, and when.
type Config struct {
	Now     func() Report   // the report of this moment, without metrics
	Changed <-chan struct{} // something may have changed; best with a buffer of one
	Cloud   Cloud
	Memory  Memory

	// Metrics measures the device; nil: nothing is said about its load.
	Metrics func() Metrics
	// Era names what the memory is good for. A report that was acknowledged in
	// another one, before the device was started for example, counts as unknown.
	Era string
	// Target names the target in force: what the cloud refused is not offered
	// again until it changes. May be nil.
	Target func() string
	// Look is how often to look for changes that nobody tells us about; 0: every
	// 30 seconds.
	Look time.Duration

	// MaxBackoff is the longest wait after failures: the poll interval.
	MaxBackoff func() time.Duration
	// OnError is told each failure and when the next attempt comes. May be nil.
	OnError func(err error, next time.Duration)
}

// Run sends what changed until ctx ends, and returns its error. A change is sent
// at once unless a report was acknowledged less than ten seconds ago. After a
// failure the report is made anew before each attempt.
func Run(ctx context.Context, c Config) error {
	if c.Target == nil {
		c.Target = func() string { return "" }
	}
	if c.Look <= 0 {
		c.Look = lookAgain
	}
	r := &runner{Config: c}
	r.remember()
	for {
		wait := r.report(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

type runner struct {
	Config
	last      Report    // what the cloud knows
	doubt     doubt     // fields of which it may know something else
	acked     time.Time // when it last acknowledged something; zero: not since we run
	failures  int
	notBefore time.Time // of the next attempt
	limits    limits
}

// remembered is a report as it is kept.
type remembered struct {
	Era    string          `json:"era"`
	Report json.RawMessage `json:"report"`
	Doubt  doubt           `json:"doubt,omitempty"`
}

// doubt names fields that were sent and not acknowledged: the cloud may have them,
// or not, so they are sent again even if they are back at what it knew before.
type doubt map[string]bool

// remember loads what the cloud knows. Without it everything is sent once more.
func (r *runner) remember() {
	b, err := r.Memory.Last()
	var m remembered
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &m)
	}
	if err == nil && len(m.Report) > 0 && m.Era == r.Era {
		err = json.Unmarshal(m.Report, &r.last)
		r.doubt = m.Doubt
	}
	if r.doubt == nil {
		r.doubt = doubt{}
	}
	if err != nil {
		r.last = Report{}
		r.tell(fmt.Errorf("read the last report: %w", err), 0)
	}
}

// report sends the difference, if any, and says when to look again at the
// latest.
func (r *runner) report(ctx context.Context) time.Duration {
	r.limits.renew(r.Target())
	now := r.compose()
	news, err := r.news(now)
	if err == nil && len(news) == 0 {
		r.failures = 0
		return r.Look
	}
	if err == nil {
		err = r.attempt(ctx, now)
	}
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		return r.failed(err)
	}
	r.failures = 0
	return r.Look
}

// attempt makes one request, and more only if the cloud refuses what it says.
func (r *runner) attempt(ctx context.Context, now Report) error {
	if r.limits.denied { // the device is not welcome; one question is enough to see whether it is again
		if err := r.probe(ctx, now.UUID); err != nil {
			return err
		}
		r.limits.denied = false
	}
	err := r.send(ctx, now)
	if err == nil || ctx.Err() != nil || !refusal(r.status(err)) {
		return err
	}
	return r.narrow(ctx, now, err)
}

// compose makes the report. Metrics go along with what else has changed, and
// alone after a while; else they are what the cloud knows, so that they make no
// difference.
func (r *runner) compose() Report {
	now := r.fitting(r.limits.apply(r.Now()))
	if r.Metrics == nil {
		return now
	}
	if r.last.UUID == now.UUID {
		now.Device.Metrics = r.last.Device.Metrics
	}
	if r.acked.IsZero() || time.Since(r.acked) >= metricsGap || r.anyNews(now) {
		now.Device.Metrics = r.Metrics().settled(now.Device.Metrics)
	}
	return now
}

// news are the fields to send.
func (r *runner) news(now Report) (map[string]json.RawMessage, error) {
	news, err := changes(r.last, now)
	if err != nil || len(r.doubt) == 0 {
		return news, err
	}
	all, err := fields(now.Device)
	if err != nil {
		return nil, err
	}
	for name := range r.doubt {
		if value, ok := all[name]; ok {
			news[name] = value
		}
	}
	return news, nil
}

func (r *runner) anyNews(now Report) bool {
	news, err := r.news(now)
	return err != nil || len(news) > 0
}

// send sends what a report says beyond the last acknowledged one.
func (r *runner) send(ctx context.Context, now Report) error {
	news, err := r.news(now)
	if err != nil {
		return err
	}
	return r.sendFields(ctx, now, news)
}

// sendFields sends some fields of a report.
func (r *runner) sendFields(ctx context.Context, now Report, some map[string]json.RawMessage) error {
	if len(some) == 0 {
		return nil
	}
	patch, err := encode(now.UUID, some)
	if err != nil {
		return err
	}
	suspects := r.suspect(some)
	if err := r.Cloud.Report(ctx, patch); err != nil {
		if status := r.status(err); status/100 == 4 { // the cloud has taken nothing
			for _, name := range suspects {
				delete(r.doubt, name)
			}
		}
		return err
	}
	r.acknowledged(now, some)
	return nil
}

// suspect writes down what is about to be sent, so that a lost answer or the end
// of the process leaves no field of which we believe something wrong. Metrics are
// not worth a write: they are different soon. added are the fields that were not
// in doubt before.
func (r *runner) suspect(some map[string]json.RawMessage) (added []string) {
	worth := false
	for name := range some {
		if !r.doubt[name] {
			r.doubt[name] = true
			added = append(added, name)
			worth = worth || !isMetric(name)
		}
	}
	if worth && r.last.UUID != "" { // without a last report everything is sent anyway
		r.save()
	}
	return added
}

// acknowledged remembers what the cloud knows now.
func (r *runner) acknowledged(now Report, some map[string]json.RawMessage) {
	if _, ok := some["apps"]; !ok && r.last.UUID == now.UUID {
		now.Device.Apps = r.last.Device.Apps
	} else if !ok {
		now.Device.Apps = nil
	}
	for name := range some {
		delete(r.doubt, name)
	}
	r.last, r.acked = now, time.Now()
	r.notBefore = r.acked.Add(minGap)
	r.save()
}

func (r *runner) status(err error) int {
	status, _ := r.Cloud.Refusal(err)
	return status
}

// failed says when to try again: what the cloud asks for, within reason, else
// growing pauses.
func (r *runner) failed(err error) time.Duration {
	wait := firstBackoff << min(r.failures, 20)
	if _, after := r.Cloud.Refusal(err); after > 0 {
		wait = max(after, firstBackoff)
	}
	wait = min(wait, max(r.MaxBackoff(), minGap))
	r.failures++
	r.notBefore = time.Now().Add(wait)
	r.tell(err, wait)
	return wait
}

func (r *runner) save() {
	b, err := json.Marshal(r.last)
	if err == nil {
		b, err = json.Marshal(remembered{r.Era, b, r.doubt})
	}
	if err == nil {
		err = r.Memory.Put(b)
	}
	if err != nil {
		r.tell(fmt.Errorf("remember the report: %w", err), r.Look)
	}
}

func (r *runner) tell(err error, next time.Duration) {
	if r.OnError != nil {
		r.OnError(err, next)
	}
}

// sleep waits for a change or for wait to pass, and in any case until the next
// attempt is allowed. Changes in that time are covered by the report that
// follows.
func (r *runner) sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.Changed:
	case <-timer.C:
	}
	timer.Reset(max(time.Until(r.notBefore), 0))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	return nil
}
