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

// Config says what to report, where to, and when.
type Config struct {
	Now     func() Report   // the report of this moment
	Changed <-chan struct{} // something may have changed; best with a buffer of one
	Send    func(ctx context.Context, patch []byte) error
	Memory  Memory

	// MaxBackoff is the longest wait after failures: the poll interval.
	MaxBackoff func() time.Duration
	// RetryAfter reads from an error of Send how long the cloud wants to be
	// left alone. May be nil.
	RetryAfter func(error) time.Duration
	// OnError is told each failure and when the next attempt comes. May be nil.
	OnError func(err error, next time.Duration)
}

// Run sends what changed until ctx ends, and returns its error. A change is sent
// at once unless a report was acknowledged less than ten seconds ago. After a
// failure the report is made anew before each attempt.
func Run(ctx context.Context, c Config) error {
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
	last      Report // what the cloud knows
	failures  int
	notBefore time.Time // of the next attempt
}

// remember loads what the cloud knows. Without it everything is sent once more.
func (r *runner) remember() {
	b, err := r.Memory.Last()
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &r.last)
	}
	if err != nil {
		r.last = Report{}
		r.tell(fmt.Errorf("read the last report: %w", err), 0)
	}
}

// report sends the difference, if any, and says when to look again at the
// latest.
func (r *runner) report(ctx context.Context) time.Duration {
	now := r.Now()
	patch, empty, err := Diff(r.last, now)
	if err == nil && empty {
		r.failures = 0
		return lookAgain
	}
	if err == nil {
		err = r.Send(ctx, patch)
	}
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		return r.failed(err)
	}
	r.last, r.failures = now, 0
	r.notBefore = time.Now().Add(minGap)
	if err := r.save(now); err != nil {
		r.tell(err, lookAgain)
	}
	return lookAgain
}

func (r *runner) failed(err error) time.Duration {
	wait := firstBackoff << min(r.failures, 20)
	if r.RetryAfter != nil {
		wait = max(wait, r.RetryAfter(err))
	}
	if most := r.MaxBackoff(); wait > most {
		wait = max(most, minGap)
	}
	r.failures++
	r.notBefore = time.Now().Add(wait)
	r.tell(err, wait)
	return wait
}

func (r *runner) save(now Report) error {
	b, err := json.Marshal(now)
	if err == nil {
		err = r.Memory.Put(b)
	}
	if err != nil {
		return fmt.Errorf("remember the report: %w", err)
	}
	return nil
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
