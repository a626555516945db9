// Package state holds the plain data that the rest of deckhand talks about.
//
//	Target   what the owner asked for: apps, their release, services, networks, volumes
//	World    what one look at the device found, joined with what the store remembers
//	Spec     one service's container settings in canonical form
//	App      the wanted side; AppNow the found side; the same for Network and Volume
//
// Everything here is a value: no clock, no I/O, no engine types. Two values that
// mean the same compare as equal, because package compose writes each setting in
// exactly one form before it gets here.
package state
