package uplink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

// queue is a TagQueue in memory.
type queue struct {
	mu       sync.Mutex
	wanted   map[string]string
	reported map[string]string
	changed  chan struct{}
}

func newQueue() *queue {
	return &queue{wanted: map[string]string{}, reported: map[string]string{}, changed: make(chan struct{}, 1)}
}

func (q *queue) set(name, value string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wanted[name] = value
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

func (q *queue) Wanted() (map[string]string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.wanted), nil
}

func (q *queue) Confirm(sent map[string]string) error {
	maps.Copy(q.reported, sent)
	return q.Drop(sent)
}

func (q *queue) Drop(tags map[string]string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, value := range tags {
		if q.wanted[name] == value {
			delete(q.wanted, name)
		}
	}
	return nil
}

// tagStory runs a sender for some time and says what was sent when. answer may
// refuse.
func tagStory(t *testing.T, q *queue, long time.Duration, answer func(n int, tags map[string]string) error, during func(elapse func(time.Duration))) []string {
	t.Helper()
	var story []string
	started, n := time.Now(), 0
	note := func(format string, args ...any) {
		story = append(story, fmt.Sprintf("%v ", time.Since(started).Round(time.Second))+fmt.Sprintf(format, args...))
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = RunTags(ctx, TagConfig{
			Queue: q, Changed: q.changed, MaxBackoff: func() time.Duration { return 15 * time.Minute },
			Send: func(_ context.Context, tags map[string]string) error {
				n++
				var all []string
				for _, name := range slices.Sorted(maps.Keys(tags)) {
					all = append(all, name+"="+tags[name])
				}
				note("send %s", strings.Join(all, " "))
				return answer(n, tags)
			},
			OnError: func(_ error, next time.Duration) { note("error, next in %v", next) },
			OnDrop:  func(name string, _ error) { note("drop %s", name) },
		})
	}()
	if during != nil {
		during(func(d time.Duration) { <-time.After(d); synctest.Wait() })
	}
	<-done
	return story
}

func status(code int, after time.Duration) error {
	e := &StatusError{Status: code, After: after}
	return state.Classify(statusClass(e), e)
}

func TestTagsAreSentEveryTenSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		got := tagStory(t, q, time.Minute, func(int, map[string]string) error { return nil }, func(elapse func(time.Duration)) {
			q.set("a", "1")
			elapse(time.Second)
			q.set("a", "2")
			q.set("b", "1")
			elapse(3 * time.Second)
			q.set("a", "3")
			elapse(26 * time.Second)
			q.set("c", "1")
		})
		if d := cmp.Diff([]string{"0s send a=1", "10s send a=3 b=1", "30s send c=1"}, got); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(map[string]string{"a": "3", "b": "1", "c": "1"}, q.reported); d != "" {
			t.Error(d)
		}
	})
}

// A value that is set while another is on its way is sent after it.
func TestTheLastValueOfATagWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		cloud := map[string]string{}
		got := tagStory(t, q, time.Minute, func(n int, tags map[string]string) error {
			if n == 1 {
				q.set("k", "B") // in the middle of the request
			}
			maps.Copy(cloud, tags)
			return nil
		}, func(func(time.Duration)) { q.set("k", "A") })
		if d := cmp.Diff([]string{"0s send k=A", "10s send k=B"}, got); d != "" {
			t.Error(d)
		}
		if cloud["k"] != "B" || q.reported["k"] != "B" {
			t.Errorf("the cloud has %v, recorded %v", cloud, q.reported)
		}
	})
}

func TestABadTagDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		for _, name := range []string{"a", "b", "c"} {
			q.set(name, "1")
		}
		got := tagStory(t, q, 2*time.Minute, func(_ int, tags map[string]string) error {
			if _, bad := tags["b"]; bad {
				return status(http.StatusBadRequest, 0)
			}
			return nil
		}, nil)
		want := []string{"0s send a=1 b=1 c=1", "10s send a=1", "20s send b=1", "20s drop b", "30s send c=1"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if len(q.wanted) != 0 {
			t.Errorf("left in the queue: %v", q.wanted)
		}
	})
}

func TestTagsDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		got := tagStory(t, q, 10*time.Minute, func(n int, _ map[string]string) error {
			switch n {
			case 1:
				return errors.New("no network")
			case 2:
				return status(http.StatusInternalServerError, 0)
			case 3:
				return status(http.StatusServiceUnavailable, 120*time.Second)
			}
			return nil
		}, func(func(time.Duration)) { q.set("a", "1") })
		want := []string{
			"0s send a=1", "0s error, next in 15s", "15s send a=1", "15s error, next in 30s",
			"45s send a=1", "45s error, next in 2m0s", "2m45s send a=1",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}
