package answer_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"

	"deckhand/cloud/answer"
)

// What could not be done because the cloud stops must not look done: an answer that
// nobody writes is a 200.
func TestAFailureWhileTheCloudStops(t *testing.T) {
	for _, c := range []struct {
		cause  error
		status int
		retry  string
		body   bool
	}{
		{answer.ErrStopping, 503, "5", true},
		{errors.New("the client left"), 200, "", false}, // nobody reads it
		{nil, 500, "", true},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if c.cause != nil {
			cancel(c.cause)
		}
		r := httptest.NewRequestWithContext(ctx, "PATCH", "/device/v3/state", nil)
		w := httptest.NewRecorder()
		answer.Failure(w, r, context.Canceled)
		if w.Code != c.status || w.Header().Get("Retry-After") != c.retry || (w.Body.Len() > 0) != c.body {
			t.Errorf("%v: %d %v %s", c.cause, w.Code, w.Header(), w.Body)
		}
		cancel(nil)
	}
}
