//go:build size

package architecture

import (
	"os"
	"path/filepath"
	"testing"
)

// What the device's binary may weigh, stripped, for arm v6. A field update is
// paid for by the megabyte, on both ends.
const budget = 14_000_000

func TestSizeOfDeviceBinary(t *testing.T) {
	skipWithoutDevice(t)
	file := filepath.Join(t.TempDir(), "deckhand")
	run(t, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", file, device)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s for arm v6: %d bytes of %d", device, info.Size(), budget)
	if info.Size() > budget {
		t.Errorf("over budget by %d bytes; see what grew: go tool nm -size -sort size", info.Size()-budget)
	}
}
