//go:build engine

package crash

import "testing"

// Every crash point and every fault of every scenario. It needs no engine, only
// a minute.
func TestEverything(t *testing.T) {
	everything(t, sample{scenarios: 1, crashes: 1, twice: 2, faults: 1, forEver: 1})
}
