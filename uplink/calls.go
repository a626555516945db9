package uplink

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"deckhand/state"
)

// Where there is no way from the cloud to the device, people can call the device's
// API all the same: a cloud that knows us ends the request that it holds, we fetch
// the calls, carry them out and send the answers. The header says on both sides that
// this is understood; other clouds take no notice of it.

// callsHeader is sent with each question for the target; in the answer it is how many
// calls wait.
const callsHeader = "Deckhand-Actions"

const (
	// callTime bounds how long a call may take; nobody waits longer for its answer.
	callTime = time.Minute
	// callsAtATime bounds the calls that are carried out side by side.
	callsAtATime = 8
)

// Call is a call of the device's API that somebody made through the cloud.
type Call struct {
	ID     int64           `json:"id"`
	Method string          `json:"method"`
	Path   string          `json:"path"` // with query
	Body   json.RawMessage `json:"body"` // may be nil
}

// CallAnswer is what the API answered.
type CallAnswer struct {
	ID     int64  `json:"id"`
	Status int    `json:"status"`
	Type   string `json:"type"` // of the body; empty: there is none
	Body   string `json:"body"`
}

// called reads how many calls wait; said is false when the cloud does not speak of
// calls.
func called(h http.Header) (n int, said bool) {
	text := h.Get(callsHeader)
	n, err := strconv.Atoi(text)
	return max(n, 0), text != "" && err == nil
}

func (c *Client) callsPath() string { return "/device/v3/" + url.PathEscape(c.uuid) + "/actions" }

// Calls fetches the calls that wait. Each is handed out once.
func (c *Client) Calls(ctx context.Context) ([]Call, error) {
	res, err := c.do(ctx, request{method: http.MethodGet, path: c.callsPath(), limit: maxAnswer})
	if err == nil && res.status != http.StatusOK {
		err = res.failure()
	}
	if err != nil {
		return nil, fmt.Errorf("fetch calls: %w", err)
	}
	var calls []Call
	if err := json.Unmarshal(res.body, &calls); err != nil {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("fetch calls: %w", err))
	}
	return calls, nil
}

// AnswerCalls sends what the API answered.
func (c *Client) AnswerCalls(ctx context.Context, answers []CallAnswer) error {
	if err := c.write(ctx, http.MethodPatch, c.callsPath(), answers); err != nil {
		return fmt.Errorf("answer calls: %w", err)
	}
	return nil
}

// CallConfig says who makes calls and who carries them out.
type CallConfig struct {
	// Waiting gets a value when calls may wait.
	Waiting <-chan struct{}
	// Fetch and Answer are Client.Calls and Client.AnswerCalls.
	Fetch  func(ctx context.Context) ([]Call, error)
	Answer func(ctx context.Context, answers []CallAnswer) error
	// Carry carries a call out. It may be called several times at once.
	Carry func(ctx context.Context, c Call) CallAnswer
	// OnError is told what was given up. May be nil.
	OnError func(err error)
}

// RunCalls carries calls out until ctx ends, and returns its error when all have
// ended.
func RunCalls(ctx context.Context, c CallConfig) error {
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, callsAtATime)
	for {
		select {
		case <-c.Waiting:
		case <-ctx.Done():
			return ctx.Err()
		}
		calls, err := c.Fetch(ctx)
		if err != nil {
			c.failed(ctx, err)
		}
		for _, call := range calls {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			running.Go(func() {
				defer func() { <-places }()
				c.carry(ctx, call)
			})
		}
	}
}

func (c *CallConfig) carry(ctx context.Context, call Call) {
	limited, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer := c.Carry(limited, call)
	answer.ID = call.ID
	if err := c.Answer(limited, []CallAnswer{answer}); err != nil {
		c.failed(ctx, err)
	}
}

func (c *CallConfig) failed(ctx context.Context, err error) {
	if c.OnError != nil && ctx.Err() == nil {
		c.OnError(err)
	}
}
