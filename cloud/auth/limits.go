package auth

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"deckhand/cloud/answer"
)

// TooManyAttempts refuses for a while: answer 429 with Retry-After.
type TooManyAttempts struct{ Wait time.Duration }

func (e *TooManyAttempts) Error() string {
	return fmt.Sprintf("Too many attempts; try again in %s.", e.Wait.Truncate(time.Second)+time.Second)
}

// answerTooMany is the 429.
func answerTooMany(w http.ResponseWriter, e *TooManyAttempts) {
	w.Header().Set("Retry-After", strconv.Itoa(int(e.Wait/time.Second)+1))
	answer.JSON(w, http.StatusTooManyRequests, e.Error())
}

// maxRemembered bounds the memory that made-up names and addresses can take,
// for each kind of limit.
const maxRemembered = 10_000

// attempts closes a name for a pause after a number of failures in a window.
type attempts struct {
	limit         int
	window, pause time.Duration

	mu    sync.Mutex
	tries map[string]tries
}

type tries struct {
	failed       int
	since, until time.Time
}

// wait is how long the name stays closed; 0 or less: it is open.
func (a *attempts) wait(name string, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tries[name].until.Sub(now)
}

// failed counts a failure.
func (a *attempts) failed(name string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tries[name]
	if t.since.IsZero() || now.Sub(t.since) > a.window {
		a.makeRoom(now)
		t = tries{since: now, until: t.until}
	}
	if t.failed++; t.failed >= a.limit {
		t = tries{until: now.Add(a.pause)}
	}
	a.tries[name] = t
}

// forget opens a name that succeeded.
func (a *attempts) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tries, name)
}

// makeRoom drops what no longer counts, and then any: rather a guesser gets
// new attempts than the cloud all memory taken.
func (a *attempts) makeRoom(now time.Time) {
	if a.tries == nil {
		a.tries = map[string]tries{}
	}
	if len(a.tries) < maxRemembered {
		return
	}
	for name, t := range a.tries {
		if t.until.Before(now) && now.Sub(t.since) > a.window {
			delete(a.tries, name)
		}
	}
	for name := range a.tries {
		if len(a.tries) < maxRemembered*9/10 {
			return
		}
		delete(a.tries, name)
	}
}

// Rate is how often something may happen: so many at once, and so many a
// second in the long run.
type Rate struct {
	Burst     float64
	PerSecond float64
}

// bucket holds what is left of a rate; a bucket that is full is not kept.
type bucket struct {
	left float64
	at   time.Time
}

// buckets limits each of many names to a rate.
type buckets struct {
	mu    sync.Mutex
	names map[string]bucket
}

// take takes one; wait is how long until there is one again, 0 when it was
// there.
func (b *buckets) take(name string, rate Rate, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.left(name, rate, now)
	if left < 1 {
		return missing(left, rate)
	}
	if _, known := b.names[name]; !known {
		b.makeRoom()
	}
	b.names[name] = bucket{left - 1, now}
	return 0
}

// wait is how long until there is one, without taking it.
func (b *buckets) wait(name string, rate Rate, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if left := b.left(name, rate, now); left < 1 {
		return missing(left, rate)
	}
	return 0
}

func missing(left float64, rate Rate) time.Duration {
	return time.Duration((1 - left) / rate.PerSecond * float64(time.Second))
}

func (b *buckets) left(name string, rate Rate, now time.Time) float64 {
	had, known := b.names[name]
	if !known {
		return rate.Burst
	}
	return min(rate.Burst, had.left+max(0, now.Sub(had.at).Seconds())*rate.PerSecond)
}

// makeRoom drops some names, whichever, when there are too many.
func (b *buckets) makeRoom() {
	if b.names == nil {
		b.names = map[string]bucket{}
	}
	if len(b.names) < maxRemembered {
		return
	}
	for name := range b.names {
		if len(b.names) < maxRemembered*9/10 {
			return
		}
		delete(b.names, name)
	}
}
