// Package system runs the real programs as real processes: a cloud, devices,
// and the projects that are pushed to them. The end-to-end tests, the demo and
// the benchmarks build on it.
//
// It is no test vocabulary: it returns errors and knows no testing.T. Whoever
// starts something here stops it; what is still there when the calling process
// dies goes down with it. Nothing here sleeps for a while and hopes: see Until.
package system
