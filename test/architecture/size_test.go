//go:build size

package architecture

import (
	"os"
	"path/filepath"
	"testing"
)

// What a binary may weigh, stripped, for arm v6.
var budgets = map[string]int64{
	// A field update is paid for by the megabyte, on both ends.
	device: 14_000_000,
	// What people download to push to a device. The loader of compose files is most of it.
	owner: 15_000_000,
}

func TestSizeOfBinaries(t *testing.T) {
	skipWithoutDevice(t)
	for program, budget := range budgets {
		file := filepath.Join(t.TempDir(), filepath.Base(program))
		run(t, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", file, program)
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s for arm v6: %d bytes of %d", program, info.Size(), budget)
		if info.Size() > budget {
			t.Errorf("%s is over budget by %d bytes; see what grew: go tool nm -size -sort size", program, info.Size()-budget)
		}
	}
}
