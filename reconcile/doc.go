// Package reconcile is the planner: it compares what a device runs with what it
// should run and returns the steps in between as a graph with reasons.
//
// Make is pure: no clock, no I/O, no randomness; the same arguments give the
// same plan. It works in passes, one file each:
//
//	diff.go    which steps, and why
//	images.go  the same for images, which belong to no app alone
//	facts.go   edges that the engine demands
//	wishes.go  edges that the update strategies ask for
//	finish.go  what comes last: commit, then clearing up
//
// Nobody carries a plan out from front to back. The runner starts the steps
// that wait for nothing, looks at the device again and plans again; the rest of
// the graph is there for people.
package reconcile
