// Package dockerd gives tests a private, real Docker Engine.
//
// Each engine has its own data, runtime state, socket and address range, so
// engines of parallel tests and parallel test binaries do not meet. They live
// in numbered slots below the temporary folder; a slot whose owner was killed
// is cleaned by the next one that takes it.
//
// What is needed: Linux, root, and dockerd, containerd and runc in PATH. Images
// are made from a static busybox, so nothing is downloaded. Tests which use the
// package carry the build tag "engine".
//
// The engine runs without touching the machine's firewall, except for one rule
// which lets containers of its own range talk to each other. Published ports
// work through the engine's proxy; containers cannot reach the internet.
package dockerd
