package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"deckhand/state"
)

// UnreachableError says that a request got no answer. Its text is whole: whoever shows it
// to people needs nothing of what wraps it.
type UnreachableError struct {
	URL    string // scheme and host that were called
	Reason string // why there was no answer
	Advice string // what to look at, as a question
	Err    error
}

// Error names the cloud, the reason and what to look at.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the cloud at %s cannot be reached: %s; %s", e.URL, e.Reason, e.Advice)
}

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// unanswered sorts what went wrong with a request before there was an answer.
func unanswered(called *url.URL, err error) error {
	if classed, ok := errors.AsType[*state.Error](err); ok {
		return classed // ours: what was to be sent could not be read
	}
	class := classOf(err)
	if class == state.ClassCancelled {
		return state.Classify(class, err)
	}
	e := &UnreachableError{URL: called.Scheme + "://" + called.Host, Err: err}
	e.Reason, e.Advice = explain(class, err)
	return state.Classify(class, e)
}

// cutOff sorts what went wrong while an answer was read.
func cutOff(called *url.URL, err error) error {
	return state.Classify(classOf(err), fmt.Errorf("the answer of the cloud at %s://%s was cut off: %w", called.Scheme, called.Host, err))
}

func classOf(err error) state.Class {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return state.ClassCancelled
	case errors.As(err, &dns):
		return state.ClassDNS
	case certificate(err) != nil, notTLS(err):
		return state.ClassTLS
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return state.ClassTimeout
	}
	return state.ClassNetwork
}

// certificate finds what is wrong with a certificate; nil when that is not the matter.
func certificate(err error) error {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority):
		return authority
	case errors.As(err, &hostname):
		return hostname
	case errors.As(err, &invalid):
		return invalid
	}
	return nil
}

// notTLS says whether the other side answered https with something else.
func notTLS(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record)
}

// explain leaves out of an error what the network's layers say of themselves.
func explain(class state.Class, err error) (reason, advice string) {
	const running = "is it running, and is the address right?"
	var dns *net.DNSError
	var number syscall.Errno
	var request *url.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "there is no host " + dns.Name, "is the address right?"
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %s cannot be looked up: %s", dns.Name, dns.Err), "is this machine connected?"
	case notTLS(err):
		return "it does not speak https", "is it an address with http://?"
	case class == state.ClassTLS:
		return strings.TrimPrefix(certificate(err).Error(), "x509: "),
			"is the address right, and does this machine trust who signed the certificate?"
	case class == state.ClassTimeout:
		return "no answer came in time", running
	case errors.As(err, &number):
		return number.Error(), running
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed", running
	case errors.As(err, &request):
		return request.Err.Error(), running
	}
	return err.Error(), running
}
