package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"deckhand/state"
)

// symptom is a piece of an error text, in lower case, and what it means. The
// engine passes on what a registry or the kernel said and gives no codes.
type symptom struct {
	text  string
	class state.Class
}

// symptoms are tried in order; the first one found counts.
func symptoms() []symptom {
	return []symptom{
		{"toomanyrequests", state.ClassRateLimit},
		{"too many requests", state.ClassRateLimit},
		{"parsing http 429 response", state.ClassRateLimit},
		{"no space left on device", state.ClassSpace},
		{"disk quota exceeded", state.ClassSpace},
		{"no such host", state.ClassDNS},
		{"server misbehaving", state.ClassDNS},
		{"temporary failure in name resolution", state.ClassDNS},
		{"dial tcp: lookup", state.ClassDNS},
		{"tls handshake timeout", state.ClassNetwork},
		{"x509:", state.ClassTLS},
		{"tls:", state.ClassTLS},
		{"server gave http response to https client", state.ClassTLS},
		{"no matching manifest", state.ClassInvalid},
		{"invalid reference format", state.ClassInvalid},
		{"unsupported media type", state.ClassInvalid},
		{"manifest unknown", state.ClassNotFound},
		{"manifest for ", state.ClassNotFound},
		{"name unknown", state.ClassNotFound},
		{"parsing http 404 response", state.ClassNotFound},
		{"permission denied", state.ClassEngine}, // the engine's own files
		{"unauthorized", state.ClassAuth},
		{"authentication required", state.ClassAuth},
		{"access denied", state.ClassAuth},
		{"access to the resource is denied", state.ClassAuth},
		{"no basic auth credentials", state.ClassAuth},
		{"denied:", state.ClassAuth},
		{"parsing http 401 response", state.ClassAuth},
		{"parsing http 403 response", state.ClassAuth},
		{"connection refused", state.ClassNetwork},
		{"connection reset", state.ClassNetwork},
		{"no route to host", state.ClassNetwork},
		{"network is unreachable", state.ClassNetwork},
		{"i/o timeout", state.ClassNetwork},
		{"client.timeout exceeded", state.ClassNetwork},
		{"request canceled while waiting for connection", state.ClassNetwork},
		{"unexpected eof", state.ClassNetwork},
		{"broken pipe", state.ClassNetwork},
		{"received unexpected http status: 5", state.ClassNetwork},
		{"received unexpected http status: 4", state.ClassNetwork},
		{"invalid character ", state.ClassNetwork}, // a web page or garbage instead of a registry
		{"manifest verification failed", state.ClassNetwork},
		{"stopped after 10 redirects", state.ClassNetwork},
		{"filesystem layer verification failed", state.ClassNetwork},
		{"no such image", state.ClassNotFound},
	}
}

// classify sorts an error of any call by its kind alone.
func classify(err error) error {
	err = plain(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return state.Classify(state.ClassTimeout, fmt.Errorf("the engine did not answer in time: %w", err))
	case errors.Is(err, context.Canceled):
		return state.Classify(state.ClassCancelled, err)
	case client.IsErrConnectionFailed(err):
		return state.Classify(state.ClassEngine, err)
	case strings.Contains(err.Error(), "no space left on device"):
		return state.Classify(state.ClassSpace, err)
	case errdefs.IsInvalidArgument(err):
		return state.Classify(state.ClassInvalid, err)
	}
	return state.Classify(state.ClassEngine, err)
}

// classifyPull sorts what the engine says about a download.
func classifyPull(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || client.IsErrConnectionFailed(err) {
		return classify(err)
	}
	err = plain(err)
	text := strings.ToLower(err.Error())
	for _, s := range symptoms() {
		if strings.Contains(text, s.text) {
			return state.Classify(s.class, err)
		}
	}
	switch {
	case errdefs.IsNotFound(err):
		return state.Classify(state.ClassNotFound, err)
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return state.Classify(state.ClassAuth, err)
	case strings.HasSuffix(text, "eof"):
		return state.Classify(state.ClassNetwork, err)
	}
	return classify(err)
}

// classifyStart explains why a container does not start.
func classifyStart(err error) error {
	err = plain(err)
	text := strings.ToLower(err.Error())
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("exec format error"):
		return state.Classify(state.ClassInvalid, fmt.Errorf("its program is not for this kind of processor: %w", err))
	case has("executable file not found"), has("exec:") && has("no such file or directory"), has("exec:") && has("permission denied"):
		return state.Classify(state.ClassInvalid, fmt.Errorf("its command is not an executable file of the image: %w", err))
	case has("error gathering device information"):
		return state.Classify(state.ClassEngine, fmt.Errorf("a device it asks for is missing: %w", err))
	case has("port is already allocated"), has("address already in use"):
		return state.Classify(state.ClassEngine, fmt.Errorf("a port it publishes is taken by another program: %w", err))
	case has("cannot assign requested address"):
		return state.Classify(state.ClassEngine, fmt.Errorf("the host has no address it publishes a port on: %w", err))
	}
	return classify(err)
}

// said is an error without the client's announcement that it came from the
// engine: whoever reads it knows whom we talk to.
type said struct{ error }

// Error is the engine's own text.
func (s said) Error() string {
	return strings.ReplaceAll(s.error.Error(), "Error response from daemon: ", "")
}

// Unwrap gives the client's error.
func (s said) Unwrap() error { return s.error }

func plain(err error) error {
	if _, done := errors.AsType[said](err); done {
		return err
	}
	return said{err}
}
