package engine

import "time"

// Impatient makes the engine give up early, so that tests need not wait.
func (e *Engine) Impatient(d time.Duration) { e.limits = limits{stop: d, force: d, ask: d} }
