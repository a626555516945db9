// Package e2e tests the main job on real programs and a real engine: an owner
// pushes, the cloud builds, the device converges and reports. A test reads as
// the story of one device; its words are in scene_test.go.
//
//	s := begin(t)                     an empty device engine
//	fleet := s.fleet()                at the cloud of the package
//	release := s.push(fleet, …)       build, store, offer
//	s.device(fleet)                   a supervisor as a process of its own
//	s.settles(release)                wait until the device runs it
//	web := s.service("web")           look at the engine, not at the supervisor
//	s.same(web, s.service("web"))     nobody touched it
//
// The rules: a step waits for a condition and never for a time; it looks at the
// engine and at the cloud, not at the supervisor's word; one test, one intent.
// All tests of the package share a cloud and two engines, one that builds and
// one that is the device's, and run one after the other: a supervisor rules
// over its whole engine. Without the paper cloud (paper_test.go) nothing is
// simulated. Run them with "go test -tags engine ./test/e2e".
package e2e
