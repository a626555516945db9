// Package localapi is the HTTP API on the device. New serves users' containers,
// the owner on the local network and the cloud; Control serves deckhand's own
// commands over a unix socket. routes.go lists every route of both.
//
// The API decides nothing: it reads values and passes wishes on through the
// narrow interfaces that it declares.
package localapi
