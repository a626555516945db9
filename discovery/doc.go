// Package discovery announces the device in its own network, so that tools find
// it without being told an address.
//
// On balenaOS the host's Avahi announces every device by itself; there the
// package only starts and stops it. On other hosts it asks their Avahi to
// announce the device too, and answers itself where there is none.
//
// Lookup is the other direction: it finds a name that ends in .local.
package discovery
