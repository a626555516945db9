package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"deckhand/state"
)

// StatusError is an answer of the cloud that is not a success.
type StatusError struct {
	Method string
	URL    string
	Status int
	Text   string        // start of the body, one line
	After  time.Duration // the cloud's Retry-After; 0: none
}

// Error is the request, the status and what the cloud said.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %s: the cloud answered %d", e.Method, e.URL, e.Status)
	if name := http.StatusText(e.Status); name != "" {
		s += " " + name
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// RetryAfter is how long the cloud asked to be left alone; 0 when it did not.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.After
	}
	return 0
}

// Refusal reads from an error what HTTP status the cloud answered, 0 if it did
// not, and how long it asked to be left alone, 0 if it did not say.
func (*Client) Refusal(err error) (status int, after time.Duration) {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.Status, e.After
	}
	return 0, 0
}

// failure is the classified error of an answer.
func (r *response) failure() error {
	e := &StatusError{Method: r.method, URL: r.url, Status: r.status, Text: shown(r.body), After: retryAfter(r.header)}
	return state.Classify(statusClass(e), e)
}

func statusClass(e *StatusError) state.Class {
	switch {
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return state.ClassAuth
	case e.Status == http.StatusNotFound:
		return state.ClassNotFound
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable && e.After > 0:
		return state.ClassRateLimit
	case e.Status == http.StatusRequestTimeout, e.Status == http.StatusGatewayTimeout:
		return state.ClassTimeout
	case e.Status >= 500:
		return state.ClassNetwork
	}
	return state.ClassInvalid
}

// longestAfter bounds what Retry-After can ask for.
const longestAfter = 24 * time.Hour

// retryAfter reads the header, in seconds or as a date. A date counts from that of
// the answer: the device's own clock may be wrong.
func retryAfter(h http.Header) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(s, 0), int64(longestAfter/time.Second))) * time.Second
	}
	then, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(then.Sub(now), 0), longestAfter)
}

// classify gives an error without an answer its class.
func (c *Client) classify(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return state.Classify(state.ClassTimeout, fmt.Errorf("%s: %w", c.base.Host, errSilent))
	}
	return state.Classify(errorClass(err), err)
}

func errorClass(err error) state.Class {
	if errors.Is(err, context.Canceled) {
		return state.ClassCancelled
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return state.ClassDNS
	}
	if isTLS(err) {
		return state.ClassTLS
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return state.ClassTimeout
	}
	return state.ClassNetwork
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func isTLS(err error) bool {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok
}

// shown is the start of a body as one line without control characters.
func shown(body []byte) string {
	if len(body) > maxShown {
		body = body[:maxShown]
	}
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(body), ""))
	return strings.Join(strings.Fields(s), " ")
}
