// Package bench measures deckhand beside the raw engine in one run. The machine
// may be busy, so ratios within a run are what counts: bare calls go to an engine
// of their own, in turns with deckhand's. "make bench" prints the tables; BENCH
// names some of them.
//
//	times       install, update and one variable, beside the engine's own best
//	strategies  how long services are down, by strategy
//	calls       what the engine is asked, and what it costs to do nothing
//	memory      10,000 passes
//	planner, locks, size
//	idle        only on request, since it takes minutes: bytes and work while nothing
//	            happens
//	trace       only on request: where the time of one small change goes
package bench
