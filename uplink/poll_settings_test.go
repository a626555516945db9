package uplink

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Where nobody may make a device poll, the cloud cannot either: it is asked when
// the interval is over, and holds nothing. The switch counts at once.
func TestWithoutInstantUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(_ int, _ string, wait time.Duration) (Answer, time.Duration, error) {
			return Answer{ETag: "e", Held: wait > 0}, wait, nil
		}}
		var instant atomic.Bool
		got := play(t, s, PollConfig{ETag: "e", Later: true, Wait: 50 * time.Second, Instant: instant.Load}, 21*time.Minute,
			func(*Poller) { <-time.After(15 * time.Minute); instant.Store(true) })
		want := []string{"10m0s ask etag=e wait=0s", "20m0s ask etag=e wait=50s", "20m50s ask etag=e wait=1m40s", "21m0s given up"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// silent never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

// The patience with a silent cloud may change between two requests.
func TestPatienceIsAskedForEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		patience := 7 * time.Second
		c, err := New(Config{Endpoint: "https://cloud.test", Transport: silent{}, Patience: func() time.Duration { return patience }})
		must(t, err)
		for _, want := range []time.Duration{7 * time.Second, 20 * time.Second, DefaultTimeout} {
			if patience = want; want == DefaultTimeout {
				patience = 0
			}
			started := time.Now()
			if err := c.Report(t.Context(), []byte("{}")); err == nil {
				t.Fatal("no error")
			}
			if took := time.Since(started); took != want {
				t.Errorf("it waited for %v, want %v", took, want)
			}
		}
	})
}
