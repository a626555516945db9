package uplink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

const (
	tagSpacing  = 10 * time.Second // between the starts of two requests
	tagsAtATime = 100
)

// SendTags sets tags of the device.
func (c *Client) SendTags(ctx context.Context, tags map[string]string) error {
	err := c.write(ctx, http.MethodPatch, "/device/v3/tags", map[string]any{c.uuid: tags})
	if err != nil {
		return fmt.Errorf("send tags to the cloud: %w", err)
	}
	return nil
}

// TagQueue keeps the tags that the device wants to have. What its methods write
// is on the disk when they return.
type TagQueue interface {
	// Wanted are the tags that the cloud has not confirmed.
	Wanted() (map[string]string, error)
	// Confirm records that the cloud has these values. What was asked for since
	// they were sent stays wanted.
	Confirm(sent map[string]string) error
	// Drop forgets these wishes, unless others took their place.
	Drop(tags map[string]string) error
}

// TagConfig says which tags to send and how.
type TagConfig struct {
	Queue   TagQueue
	Changed <-chan struct{} // there may be more in the queue
	// Send is Client.SendTags.
	Send func(ctx context.Context, tags map[string]string) error
	// MaxBackoff bounds the pause after failures.
	MaxBackoff func() time.Duration

	// OnError is told why a request failed and when the next one comes; OnDrop
	// that the cloud will never take a tag. Both may be nil.
	OnError func(err error, next time.Duration)
	OnDrop  func(name string, err error)
}

// RunTags sends the queued tags until ctx ends, and returns its error. There is
// at most one request every ten seconds. When the cloud refuses some tags they
// are sent one by one, so that only the bad ones are given up.
func RunTags(ctx context.Context, c TagConfig) error {
	t := tagger{c: c}
	for {
		pending, err := c.Queue.Wanted()
		wait := tagSpacing
		switch {
		case err != nil:
			wait = t.failed(fmt.Errorf("read the queue of tags: %w", err))
		case len(pending) == 0:
			t.suspect, t.failures = nil, 0
			select {
			case <-c.Changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			wait = t.send(ctx, pending)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

type tagger struct {
	c        TagConfig
	failures int
	suspect  map[string]bool // names that are sent alone, since the cloud refused them with others
}

// send sends what is due; it returns the pause before the next request.
func (t *tagger) send(ctx context.Context, pending map[string]string) time.Duration {
	batch := t.batch(pending)
	err := t.c.Send(ctx, batch)
	if ctx.Err() != nil {
		return 0
	}
	if err == nil {
		t.failures = 0
		err = t.c.Queue.Confirm(batch)
		t.cleared(batch)
	} else if e, ok := errors.AsType[*StatusError](err); ok && (e.Status == http.StatusBadRequest || e.Status == http.StatusRequestEntityTooLarge) {
		t.failures = 0
		err = t.refused(batch, err)
	}
	if err != nil {
		return t.failed(err)
	}
	return tagSpacing
}

// batch is what to send next: the first suspect alone, or all others.
func (t *tagger) batch(pending map[string]string) map[string]string {
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(pending)) {
		if t.suspect[name] {
			return map[string]string{name: pending[name]}
		}
		if len(out) < tagsAtATime {
			out[name] = pending[name]
		}
	}
	return out
}

// refused notes which tags are to be sent alone; one that was alone is given up.
func (t *tagger) refused(batch map[string]string, reason error) error {
	if len(batch) > 1 {
		t.suspect = map[string]bool{}
		for name := range batch {
			t.suspect[name] = true
		}
		return nil
	}
	t.cleared(batch)
	if err := t.c.Queue.Drop(batch); err != nil {
		return err
	}
	for name := range batch {
		if t.c.OnDrop != nil {
			t.c.OnDrop(name, reason)
		}
	}
	return nil
}

func (t *tagger) cleared(batch map[string]string) {
	for name := range batch {
		delete(t.suspect, name)
	}
}

func (t *tagger) failed(err error) time.Duration {
	wait := max(backoff(t.failures, t.c.MaxBackoff(), RetryAfter(err)), tagSpacing)
	t.failures++
	if t.c.OnError != nil {
		t.c.OnError(err, wait)
	}
	return wait
}
