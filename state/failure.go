package state

import (
	"errors"
	"fmt"
	"time"
)

// Class sorts failures by what helps against them. It is stored and reported.
type Class string

// The classes. Each has a back-off rule in reconcile/run and a sentence here.
const (
	ClassAuth      Class = "auth"       // the registry or cloud refused our credentials
	ClassNotFound  Class = "not-found"  // the image or object does not exist
	ClassSpace     Class = "space"      // the disk is full
	ClassNetwork   Class = "network"    // connection refused, reset, lost
	ClassDNS       Class = "dns"        // a name does not resolve
	ClassTLS       Class = "tls"        // a certificate is not accepted
	ClassClock     Class = "clock"      // the device's clock is wrong
	ClassRateLimit Class = "rate-limit" // asked to slow down
	ClassEngine    Class = "engine"     // the engine refused or is away
	ClassInvalid   Class = "invalid"    // the request itself is wrong; only a new release helps
	ClassTimeout   Class = "timeout"    // no answer, or a condition not reached in time
	ClassCancelled Class = "cancelled"  // we stopped it ourselves
	ClassLocked    Class = "locked"     // somebody holds an update lock
)

// Advice tells a person what to do about a failure of this class.
func (c Class) Advice() string {
	switch c {
	case ClassAuth:
		return "check that the device's key is valid and may read this image"
	case ClassNotFound:
		return "check that the release's images are still in the registry"
	case ClassSpace:
		return "free disk space or use smaller images"
	case ClassNetwork:
		return "check the device's connection"
	case ClassDNS:
		return "check the device's DNS servers and the host name"
	case ClassTLS:
		return "check the device's clock and its root certificates"
	case ClassClock:
		return "set the device's clock, or let it reach a time server"
	case ClassRateLimit:
		return "wait; the server asked for fewer requests"
	case ClassEngine:
		return "see the engine's log"
	case ClassInvalid:
		return "correct the release and push it again"
	case ClassTimeout:
		return "see the log of the service that is waited for"
	case ClassLocked:
		return "wait until the lock is given up, or override it"
	case ClassCancelled:
		return "nothing: it was replaced by something newer"
	}
	return ""
}

// Error is an error with a class.
type Error struct {
	Class Class
	Err   error
}

// Error is the text with the class in front.
func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Class, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Classify wraps err with a class; nil stays nil and a class already there wins.
func Classify(c Class, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e != nil {
		return err
	}
	return &Error{Class: c, Err: err}
}

// ClassOf is the class of an error; ClassEngine when it has none.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return ClassEngine
}

// Failure is what is remembered of a step that went wrong.
type Failure struct {
	Class   Class     `json:"class"`
	Text    string    `json:"text"`
	Attempt int       `json:"attempt"` // how often it failed in a row
	Next    time.Time `json:"next"`    // not tried again before
}

// Identity is what containers are told about the device they run on.
type Identity struct {
	UUID       string `json:"uuid"`
	Name       string `json:"name"`
	DeviceType string `json:"deviceType"`
	Arch       string `json:"arch"`
	OSVersion  string `json:"osVersion"`
}
