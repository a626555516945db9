// Package device serves the routes that devices call: registration, target
// state, reports and logs; and the route on which their owner reads the logs.
//
// A device asks for its target state again and again, and the answer is
// nearly always "as before". So the encoded answer of every device is kept
// with a version number of all that decides it, and a poll costs a look at
// that number. A device that understands it may ask to be held until the
// target changes ("Prefer: wait=50"): then an update begins at once.
package device
