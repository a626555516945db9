package uplink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

// script is a cloud that answers by plan and writes down what happened when.
type script struct {
	mu     sync.Mutex
	start  time.Time
	answer func(n int, etag string, wait time.Duration) (Answer, time.Duration, error) // and how long it takes
	calls  int
	story  []string
}

func (s *script) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.story = append(s.story, fmt.Sprintf("%v ", time.Since(s.start).Round(time.Second))+fmt.Sprintf(format, args...))
}

func (s *script) Target(ctx context.Context, etag string, wait time.Duration) (Answer, error) {
	s.calls++
	n := s.calls
	s.note("ask etag=%s wait=%v", etag, wait)
	a, takes, err := s.answer(n, etag, wait)
	select {
	case <-time.After(takes):
		return a, err
	case <-ctx.Done():
		s.note("given up")
		return Answer{}, ctx.Err()
	}
}

var (
	unchanged = Answer{ETag: "e"}
	document  = Answer{Modified: true, Body: []byte("{}"), ETag: "e"}
	errDown   = state.Classify(state.ClassNetwork, errors.New("down"))
)

// play runs a poller against a script for some time and returns the story.
func play(t *testing.T, s *script, c PollConfig, long time.Duration, during func(*Poller)) []string {
	t.Helper()
	s.start = time.Now()
	c.Source = s
	if c.Interval == nil {
		c.Interval = func() time.Duration { return 10 * time.Minute }
	}
	if c.Jitter == 0 {
		c.Jitter = -1
	}
	if c.OnTarget == nil {
		c.OnTarget = func(_ context.Context, body []byte, etag string) error {
			s.note("target %s %s", body, etag)
			return nil
		}
	}
	c.OnTrigger = func(t Trigger) { s.note("triggered force=%v cancel=%v own=%v", t.Force, t.Cancel, t.Own) }
	c.OnError = func(err error, next time.Duration) { s.note("error %v, next in %v", err, next.Round(time.Second)) }
	p := NewPoller(c)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	if during != nil {
		during(p)
	}
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run ended with %v", err)
	}
	return s.story
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("story (-want +got):\n%s", diff)
	}
}

func TestPollEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(n int, _ string, _ time.Duration) (Answer, time.Duration, error) {
			if n == 1 {
				return document, 0, nil
			}
			return unchanged, 0, nil
		}}
		check(t, play(t, s, PollConfig{}, 25*time.Minute, nil),
			"0s ask etag= wait=0s", "0s target {} e", "10m0s ask etag=e wait=0s", "20m0s ask etag=e wait=0s")
	})
}

func TestFirstPollLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(int, string, time.Duration) (Answer, time.Duration, error) { return unchanged, 0, nil }}
		check(t, play(t, s, PollConfig{Later: true, ETag: "e"}, 15*time.Minute, nil), "10m0s ask etag=e wait=0s")
	})
}

func TestJitterStaysInItsRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		s := &script{answer: func(int, string, time.Duration) (Answer, time.Duration, error) {
			at = append(at, time.Now())
			return unchanged, 0, nil
		}}
		play(t, s, PollConfig{ETag: "e", Jitter: time.Minute}, 10*time.Hour, nil)
		different := false
		for i := 1; i < len(at); i++ {
			gap := at[i].Sub(at[i-1])
			if gap < 10*time.Minute || gap >= 11*time.Minute {
				t.Errorf("gap %v", gap)
			}
			different = different || i > 1 && gap != at[1].Sub(at[0])
		}
		if len(at) < 50 || !different {
			t.Errorf("%d polls, different gaps: %v", len(at), different)
		}
	})
}

func TestFailuresBackOffToTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(n int, _ string, _ time.Duration) (Answer, time.Duration, error) {
			switch n {
			case 8:
				return document, 0, nil
			case 9:
				return Answer{}, 0, state.Classify(state.ClassRateLimit, &StatusError{Status: 503, Method: "GET", URL: "u", After: 2 * time.Minute})
			case 10:
				return Answer{}, 0, state.Classify(state.ClassRateLimit, &StatusError{Status: 503, Method: "GET", URL: "u", After: 12 * time.Hour})
			}
			return Answer{}, 0, errDown
		}}
		var last []time.Duration
		begin := time.Now()
		story := play(t, s, PollConfig{}, 46*time.Minute, func(p *Poller) {
			for range 2 {
				<-time.After(20 * time.Minute)
				last = append(last, p.LastSuccess().Sub(begin))
			}
		})
		check(t, story,
			"0s ask etag= wait=0s", "0s error network: down, next in 15s",
			"15s ask etag= wait=0s", "15s error network: down, next in 30s",
			"45s ask etag= wait=0s", "45s error network: down, next in 1m0s",
			"1m45s ask etag= wait=0s", "1m45s error network: down, next in 2m0s",
			"3m45s ask etag= wait=0s", "3m45s error network: down, next in 4m0s",
			"7m45s ask etag= wait=0s", "7m45s error network: down, next in 8m0s",
			"15m45s ask etag= wait=0s", "15m45s error network: down, next in 10m0s",
			"25m45s ask etag= wait=0s", "25m45s target {} e",
			"35m45s ask etag=e wait=0s", "35m45s error rate-limit: GET u: the cloud answered 503 Service Unavailable, next in 2m0s",
			"37m45s ask etag=e wait=0s", "37m45s error rate-limit: GET u: the cloud answered 503 Service Unavailable, next in 10m0s")
		if diff := cmp.Diff([]time.Duration{0, 25*time.Minute + 45*time.Second}, last); diff != "" {
			t.Errorf("last success after 20 and 40 minutes (-want +got):\n%s", diff)
		}
	})
}

// A document that is refused is not fetched again and again, and is no failure
// of the poll; one that could not be stored is.
func TestRefusedAndFailedDocuments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(_ int, etag string, _ time.Duration) (Answer, time.Duration, error) {
			if etag == "e" {
				return unchanged, 0, nil
			}
			return document, 0, nil
		}}
		n := 0
		story := play(t, s, PollConfig{OnTarget: func(context.Context, []byte, string) error {
			n++
			if n == 1 {
				return state.Classify(state.ClassSpace, errors.New("disk full"))
			}
			return state.Classify(state.ClassInvalid, errors.New("no such field"))
		}}, 15*time.Minute, nil)
		check(t, story,
			"0s ask etag= wait=0s", "0s error space: disk full, next in 15s",
			"15s ask etag= wait=0s", "15s error invalid: no such field, next in 10m0s",
			"10m15s ask etag=e wait=0s")
	})
}

func TestACloudWithoutETags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(int, string, time.Duration) (Answer, time.Duration, error) {
			return Answer{Modified: true, Body: []byte("{}")}, 0, nil
		}}
		check(t, play(t, s, PollConfig{Wait: time.Minute}, 15*time.Minute, nil),
			"0s ask etag= wait=0s", "0s target {} ", "10m0s ask etag= wait=0s")
	})
}

func TestTriggers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(n int, _ string, _ time.Duration) (Answer, time.Duration, error) {
			if n == 4 {
				return Answer{}, 0, errDown
			}
			return unchanged, 5 * time.Second, nil
		}}
		story := play(t, s, PollConfig{ETag: "e"}, 20*time.Minute, func(p *Poller) {
			<-time.After(2 * time.Second)
			p.Trigger(Trigger{Force: true}) // while a request runs: its answer may be too old
			p.Trigger(Trigger{Cancel: true, Own: true})
			<-time.After(58 * time.Second)
			p.Trigger(Trigger{Own: true})
			<-time.After(time.Minute)
			p.Trigger(Trigger{}) // this one fails; the plan stays
		})
		check(t, story,
			"0s ask etag=e wait=0s",
			"5s ask etag=e wait=0s", "10s triggered force=true cancel=true own=false",
			"1m0s ask etag=e wait=0s", "1m5s triggered force=false cancel=false own=true",
			"2m0s ask etag=e wait=0s", "2m0s error network: down, next in 9m5s",
			"11m5s ask etag=e wait=0s")
	})
}

func TestManyTriggersDoNotHammerTheCloud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(int, string, time.Duration) (Answer, time.Duration, error) { return unchanged, 0, nil }}
		play(t, s, PollConfig{ETag: "e"}, time.Minute, func(p *Poller) {
			for range 5900 {
				p.Trigger(Trigger{})
				<-time.After(10 * time.Millisecond)
			}
		})
		if s.calls > 61 {
			t.Errorf("%d requests in a minute", s.calls)
		}
	})
}

// A cloud that holds requests is asked again at once; a trigger does not wait
// for the held one.
func TestHeldRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(n int, _ string, wait time.Duration) (Answer, time.Duration, error) {
			switch {
			case n == 1:
				return document, 0, nil
			case n == 3:
				return Answer{Modified: true, Body: []byte("[2]"), ETag: "e2", Held: true}, 90 * time.Second, nil
			case wait > 0:
				return Answer{ETag: "e2", Held: true}, wait, nil
			}
			return unchanged, 0, nil
		}}
		story := play(t, s, PollConfig{Wait: 4 * time.Minute}, 10*time.Minute, func(p *Poller) {
			<-time.After(9 * time.Minute)
			p.Trigger(Trigger{Force: true})
		})
		check(t, story,
			"0s ask etag= wait=0s", "0s target {} e",
			"1s ask etag=e wait=4m0s",
			"4m1s ask etag=e wait=4m0s", "5m31s target [2] e2",
			"5m31s ask etag=e2 wait=4m0s", "9m0s given up",
			"9m0s ask etag=e2 wait=0s", "9m0s triggered force=true cancel=false own=false",
			"9m1s ask etag=e2 wait=4m0s", "10m0s given up")
	})
}

// One that ignores the wish is polled as usual, and so is one that only pretends to
// hold, once that is sure.
func TestACloudThatDoesNotHold(t *testing.T) {
	for name, c := range map[string]struct {
		held bool
		asks []string
	}{
		"ignores":  {false, []string{"1s", "10m1s"}},
		"pretends": {true, []string{"1s", "2s", "3s", "10m3s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answer: func(n int, _ string, _ time.Duration) (Answer, time.Duration, error) {
					if n == 1 {
						return document, 0, nil
					}
					return Answer{ETag: "e", Held: c.held}, 0, nil
				}}
				want := []string{"0s ask etag= wait=0s", "0s target {} e"}
				for _, at := range c.asks {
					want = append(want, at+" ask etag=e wait=4m0s")
				}
				check(t, play(t, s, PollConfig{Wait: 4 * time.Minute}, 15*time.Minute, nil), want...)
			})
		})
	}
}

// A cloud that stops answers what it holds; the one that comes up is asked at once.
func TestACloudThatIsRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(n int, _ string, wait time.Duration) (Answer, time.Duration, error) {
			if n%2 == 1 {
				return Answer{ETag: "e", Held: true}, 5 * time.Second, nil
			}
			return Answer{ETag: "e", Held: true}, wait, nil
		}}
		check(t, play(t, s, PollConfig{ETag: "e", Wait: 50 * time.Second}, 2*time.Minute, nil),
			"0s ask etag=e wait=50s", "5s ask etag=e wait=50s", "55s ask etag=e wait=1m40s", "1m0s ask etag=e wait=1m40s", "2m0s given up")
	})
}

// The target changes while nothing holds: the answer comes at once and says
// nothing about whether the cloud would have waited.
func TestNewsAtOnceDoNotEndHolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(n int, _ string, wait time.Duration) (Answer, time.Duration, error) {
			if n <= 3 {
				return Answer{Modified: true, Body: fmt.Appendf(nil, `{"n":%d}`, n), ETag: fmt.Sprint(n)}, 0, nil
			}
			return Answer{ETag: "3", Held: true}, wait, nil
		}}
		got := play(t, s, PollConfig{Wait: 50 * time.Second}, 5*time.Minute, nil)
		if s.calls < 6 {
			t.Errorf("%d requests in five minutes, want one held after the other:\n%q", s.calls, got)
		}
	})
}

// holding is a cloud that holds requests for as long as it may, behind something
// that cuts them off; 0: nothing does.
func holding(cut time.Duration) *script {
	return &script{answer: func(_ int, _ string, wait time.Duration) (Answer, time.Duration, error) {
		if cut > 0 && wait > cut {
			return Answer{}, cut, errDown
		}
		return Answer{ETag: "e", Held: wait > 0}, wait, nil
	}}
}

// Requests that are held to the end are held longer and longer: a device at rest
// asks a few times an hour.
func TestHoldsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check(t, play(t, holding(0), PollConfig{ETag: "e", Wait: 50 * time.Second}, 12*time.Minute, nil),
			"0s ask etag=e wait=50s", "50s ask etag=e wait=1m40s", "2m30s ask etag=e wait=3m20s",
			"5m50s ask etag=e wait=4m0s", "9m50s ask etag=e wait=4m0s", "12m0s given up")
	})
}

// A proxy that cuts long requests off is noticed once, and is no failure.
func TestHoldsThatAreCutOffStayShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story := play(t, holding(time.Minute), PollConfig{ETag: "e", Wait: 50 * time.Second}, 11*time.Hour, nil)
		check(t, story[:4], "0s ask etag=e wait=50s", "50s ask etag=e wait=1m40s", "1m50s ask etag=e wait=50s", "2m40s ask etag=e wait=50s")
		for _, line := range story[2:] {
			if strings.Contains(line, "error") || strings.Contains(line, "wait=1m40s") {
				t.Errorf("%s: want short holds from now on", line)
			}
		}
	})
}

// Who polls often is told of a dead connection soon: a hold grows to the interval
// at most.
func TestHoldsGrowToTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		interval := func() time.Duration { return time.Minute }
		check(t, play(t, holding(0), PollConfig{ETag: "e", Wait: 50 * time.Second, Interval: interval}, 3*time.Minute, nil),
			"0s ask etag=e wait=50s", "50s ask etag=e wait=1m0s", "1m50s ask etag=e wait=1m0s", "2m50s ask etag=e wait=1m0s", "3m0s given up")
	})
}

func TestAChangedIntervalCountsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(int, string, time.Duration) (Answer, time.Duration, error) { return unchanged, 0, nil }}
		interval := time.Minute
		check(t, play(t, s, PollConfig{ETag: "e", Interval: func() time.Duration { interval *= 2; return interval }}, 10*time.Minute, nil),
			"0s ask etag=e wait=0s", "2m0s ask etag=e wait=0s", "6m0s ask etag=e wait=0s")
	})
}
