package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	front       = "http://127.0.0.1:8090"
	visitsEvery = 20 * time.Millisecond
)

// visitor asks for the page all the time, each time on a new connection, and
// never a second time for the same answer.
type visitor struct {
	begin  time.Time // of the clock that people see
	client *http.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	sent    int
	lost    []string // what went wrong
	slowest time.Duration
	seen    []*sight // in the order in which they appeared
}

// sight is a kind of answer: a greeting.
type sight struct {
	text        string
	first, last time.Duration
}

func startVisitor(ctx context.Context, begin time.Time) *visitor {
	until, cancel := context.WithCancel(ctx)
	v := &visitor{
		begin: begin, cancel: cancel, done: make(chan struct{}),
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	go v.run(ctx, until)
	return v
}

// run does not wait for one answer before it asks for the next: a slow one would
// hide what comes after it. It begins no visit after until, and ends all with ctx.
func (v *visitor) run(ctx, until context.Context) {
	defer close(v.done)
	var visits sync.WaitGroup
	defer visits.Wait()
	tick := time.NewTicker(visitsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			visits.Go(func() { v.visit(ctx) })
		case <-until.Done():
			return
		}
	}
}

func (v *visitor) visit(ctx context.Context) {
	begin := time.Now()
	text, err := fetch(ctx, v.client, http.MethodGet, front+"/")
	took := time.Since(begin)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sent++
	v.slowest = max(v.slowest, took)
	if err != nil {
		v.lost = append(v.lost, err.Error())
		return
	}
	greeting, _, _ := strings.Cut(text, "!")
	at := time.Since(v.begin)
	for _, s := range v.seen {
		if s.text == greeting {
			s.last = max(s.last, at)
			return
		}
	}
	v.seen = append(v.seen, &sight{greeting, at, at})
}

// stop ends the visits and waits for the last answer.
func (v *visitor) stop() {
	v.cancel()
	<-v.done
}

// print tells what the visitor saw; a lost request is an error.
func (v *visitor) print() error {
	v.stop()
	say("a visitor asked %s every %d ms all the while:", front, visitsEvery.Milliseconds())
	say("  requests %d, lost %d, slowest %d ms", v.sent, len(v.lost), v.slowest.Milliseconds())
	for _, s := range v.seen {
		say("  %-22q from %6.2fs to %6.2fs", s.text, s.first.Seconds(), s.last.Seconds())
	}
	if len(v.lost) > 0 {
		return fmt.Errorf("%d of %d requests were lost, the first one so: %s", len(v.lost), v.sent, v.lost[0])
	}
	return nil
}

// fetch does one request and reads its whole answer.
func fetch(ctx context.Context, client *http.Client, method, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	text := strings.TrimSpace(string(b))
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status + ": " + text)
	}
	return text, err
}
