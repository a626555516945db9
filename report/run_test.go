package report

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// memory is a store of one report.
type memory struct {
	last []byte
	err  error
}

func (m *memory) Last() ([]byte, error) { return m.last, m.err }

func (m *memory) Put(b []byte) error {
	if m.err == nil {
		m.last = b
	}
	return m.err
}

// bench runs a reporter against a cloud that fails as told.
type bench struct {
	start   time.Time
	address atomic.Pointer[string]
	changed chan struct{}
	fail    func(n int) error
	after   time.Duration
	memory  *memory
	metrics func() Metrics
	era     string
	status  int // of refusals
	calls   int
	story   []string
}

// Report implements Cloud.
func (b *bench) Report(_ context.Context, patch []byte) error {
	b.calls++
	if b.fail != nil {
		if err := b.fail(b.calls); err != nil {
			b.note("refused %s", patch)
			return err
		}
	}
	b.note("sent %s", patch)
	return nil
}

// Refusal implements Cloud.
func (b *bench) Refusal(error) (status int, after time.Duration) { return b.status, b.after }

func (b *bench) now() Report {
	f := Facts{UUID: "u", IPAddress: *b.address.Load()}
	return Build(Input{Facts: f})
}

func (b *bench) change(address string) {
	b.address.Store(&address)
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// at makes a bench whose device has an address.
func at(address string, m *memory) *bench {
	b := &bench{memory: m}
	b.address.Store(&address)
	return b
}

func (b *bench) note(format string, args ...any) {
	b.story = append(b.story, fmt.Sprintf("%v ", time.Since(b.start))+fmt.Sprintf(format, args...))
}

// run plays during while the reporter runs, and ends it after long.
func (b *bench) run(t *testing.T, long time.Duration, during func()) []string {
	t.Helper()
	b.start, b.changed = time.Now(), make(chan struct{}, 1)
	if b.memory == nil {
		b.memory = &memory{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			Now: b.now, Changed: b.changed, Memory: b.memory,
			MaxBackoff: func() time.Duration { return 5 * time.Minute },
			Cloud:      b, Metrics: b.metrics, Era: b.era,
			OnError: func(err error, next time.Duration) { b.note("error %v, next in %v", err, next) },
		})
	}()
	if during != nil {
		during()
	}
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run ended with %v", err)
	}
	return b.story
}

func story(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("story (-want +got):\n%s", diff)
	}
}

const rest = `"status":"Idle"}}`

func TestAtMostOneReportInTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := at("1", nil)
		got := b.run(t, 2*time.Minute, func() {
			<-time.After(500 * time.Millisecond)
			for i := range 25 { // a change each second
				<-time.After(time.Second)
				b.change(fmt.Sprint(10 + i))
			}
			<-time.After(30 * time.Second)
			b.change("last")
		})
		story(t, got,
			`0s sent {"u":{"ip_address":"1","is_undervolted":false,"provisioning_progress":null,"provisioning_state":"",`+rest,
			`10s sent {"u":{"ip_address":"18"}}`,
			`20s sent {"u":{"ip_address":"28"}}`,
			`30s sent {"u":{"ip_address":"34"}}`,
			`55.5s sent {"u":{"ip_address":"last"}}`)
	})
}

// Nothing tells the reporter about an address; it looks.
func TestItLooksBySelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := at("1", nil)
		got := b.run(t, 10*time.Minute, func() {
			<-time.After(45 * time.Second)
			second := "2"
			b.address.Store(&second)
		})
		if len(got) != 2 || got[1] != `1m0s sent {"u":{"ip_address":"2"}}` {
			t.Errorf("story %v", got)
		}
	})
}

func TestFailuresBackOffAndReportTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := at("1", &memory{})
		b.fail = func(n int) error {
			if n >= 2 && n <= 7 {
				return errors.New("down")
			}
			return nil
		}
		got := b.run(t, 30*time.Minute, func() {
			<-time.After(20 * time.Second)
			b.change("2")
			<-time.After(5 * time.Second)
			b.change("3") // does not shorten the wait
			<-time.After(11 * time.Minute)
			b.change("4")
		})
		story(t, got[1:],
			`20s refused {"u":{"ip_address":"2"}}`, `20s error down, next in 15s`,
			`35s refused {"u":{"ip_address":"3"}}`, `35s error down, next in 30s`,
			`1m5s refused {"u":{"ip_address":"3"}}`, `1m5s error down, next in 1m0s`,
			`2m5s refused {"u":{"ip_address":"3"}}`, `2m5s error down, next in 2m0s`,
			`4m5s refused {"u":{"ip_address":"3"}}`, `4m5s error down, next in 4m0s`,
			`8m5s refused {"u":{"ip_address":"3"}}`, `8m5s error down, next in 5m0s`,
			`13m5s sent {"u":{"ip_address":"4"}}`)
	})
}

func TestTheCloudsWishCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := at("1", nil)
		b.after = 2 * time.Minute
		b.fail = func(n int) error {
			if n == 1 {
				return errors.New("503")
			}
			return nil
		}
		got := b.run(t, 10*time.Minute, nil)
		if len(got) != 3 || got[1] != "0s error 503, next in 2m0s" || got[2][:4] != "2m0s" {
			t.Errorf("story %v", got)
		}
	})
}

// A change that is undone before the cloud has taken it is not sent. When nobody
// knows whether the cloud has taken it, what it was before is sent again, also after
// a restart.
func TestWhatIsUndoneBeforeItIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		restart bool
		want    []string
	}{
		"refused":                    {409, false, []string{}},
		"the answer is lost":         {0, false, []string{`35s sent {"u":{"ip_address":"1"}}`}},
		"lost, and a restart":        {0, true, []string{`0s sent {"u":{"ip_address":"1"}}`}},
		"the cloud fails, who knows": {502, false, []string{`35s sent {"u":{"ip_address":"1"}}`}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := at("1", &memory{})
				b.status = c.status
				b.fail = func(n int) error {
					if n == 2 {
						return errors.New("down")
					}
					return nil
				}
				long := 10 * time.Minute
				if c.restart {
					long = 30 * time.Second
				}
				got := b.run(t, long, func() {
					<-time.After(20 * time.Second)
					b.change("2")
					<-time.After(5 * time.Second)
					b.change("1")
				})
				if c.restart {
					got = append(got[:3:3], at("1", b.memory).run(t, time.Minute, nil)...)
				}
				story(t, got[3:], c.want...)
			})
		})
	}
}

// After the device was started anew everything is sent once.
func TestAnotherEra(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		for _, c := range []struct {
			era  string
			sent int
		}{{"boot 1", 1}, {"boot 1", 0}, {"boot 2", 1}, {"boot 2", 0}} {
			b := at("1", m)
			b.era = c.era
			if got := b.run(t, time.Minute, nil); len(got) != c.sent {
				t.Errorf("%s: %v", c.era, got)
			}
		}
	})
}

// Only the temperature changes: nothing for five minutes. Something else changes:
// the metrics go along. Values that flutter stay in their bucket.
func TestMetricsTravelInASlowLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m atomic.Pointer[Metrics]
		m.Store(&Metrics{CPUUsage: new(10), MemoryUsage: new(105), CPUTemp: new(41)})
		b := at("1", nil)
		b.metrics = func() Metrics { return *m.Load() }
		got := b.run(t, 30*time.Minute, func() {
			<-time.After(30 * time.Second)
			m.Store(&Metrics{CPUUsage: new(39), MemoryUsage: new(109), CPUTemp: new(44)})
			<-time.After(6*time.Minute + 5*time.Second)
			m.Store(&Metrics{CPUUsage: new(20), MemoryUsage: new(100), CPUTemp: new(-1)})
			b.change("2")
			<-time.After(12*time.Minute + 5*time.Second)
			m.Store(&Metrics{})
		})
		story(t, got[1:],
			`5m0s sent {"u":{"cpu_usage":39}}`,
			`6m35s sent {"u":{"cpu_temp":-1,"ip_address":"2"}}`,
			`19m5s sent {"u":{"cpu_temp":null,"cpu_usage":null,"memory_usage":null}}`)
	})
}

func TestARestartSendsOnlyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		first := at("1", m)
		first.run(t, time.Minute, nil)
		second := at("2", m)
		story(t, second.run(t, time.Minute, nil), `0s sent {"u":{"ip_address":"2"}}`)
		third := at("2", m)
		story(t, third.run(t, time.Minute, nil))
	})
}

func TestADamagedMemoryMeansAFullReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, m := range []*memory{{last: []byte(`{"u":`)}, {last: []byte(`[]`)}} {
			b := at("1", m)
			got := b.run(t, time.Minute, nil)
			if len(got) != 2 || got[1] != `0s sent {"u":{"ip_address":"1","is_undervolted":false,"provisioning_progress":null,"provisioning_state":"",`+rest {
				t.Errorf("story %v", got)
			}
		}
		b := at("1", &memory{err: errors.New("disk")})
		got := b.run(t, time.Minute, nil)
		if len(got) != 3 || got[2] != "0s error remember the report: disk, next in 30s" {
			t.Errorf("story %v", got)
		}
	})
}
