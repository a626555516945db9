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
//	tape := s.record()                what the engine says from now on
//	tape.order("create web 2", "kill web 1", "start web 2")
//
// The rules: a step waits for a condition and never for a time; it looks at the
// engine and at the cloud, not at the supervisor's word; one test, one intent.
// All tests of the package share a cloud and the engine that builds. Those that
// begin(t) also share the device's engine and run one after the other, because a
// supervisor rules over its whole engine and because they may cut the cloud or
// its registry off. Those that run beside(t) others have an engine of their own
// and leave alone what is shared. Without the paper cloud (paper_test.go) nothing
// is simulated. In what order things happened is asked of the tape
// (tape_test.go), which holds the engine's own events; how long something took is
// shown, and asserted only where a container must have been given its time. Run
// them with "go test -tags engine ./test/e2e".
package e2e
