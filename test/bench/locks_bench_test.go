//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"deckhand/locks"
)

// lockFolders measures the files of update locks, without an engine.
func lockFolders(t *testing.T, b *bench) {
	out := b.table("Update locks, milliseconds (medians)", "what", "services", "took")
	for _, n := range b.sizes(20, 50) {
		dir, err := os.MkdirTemp(b.dir, "locks-")
		if err != nil {
			t.Fatal(err)
		}
		var services []string
		for i := range n {
			services = append(services, name(i))
		}
		f := locks.Open(locks.Config{RunDir: dir})
		var take, release, free, held []time.Duration
		for range 50 {
			take = append(take, timed(t, func() error { return f.Take(t.Context(), 1, services, false) }))
			held = append(held, timed(t, func() error { _, err := f.Observe(t.Context()); return err }))
			release = append(release, timed(t, func() error { return f.Release(t.Context(), 1) }))
			free = append(free, timed(t, func() error { _, err := f.Observe(t.Context()); return err }))
		}
		if folders, err := os.ReadDir(filepath.Join(dir, "services", "1")); err != nil || len(folders) != n {
			t.Fatalf("%d lock folders, %v", len(folders), err)
		}
		ms := func(all []time.Duration) string { return fmt.Sprintf("%.2f", float64(median(all).Microseconds())/1000) }
		out.row("take all", n, ms(take))
		out.row("release all", n, ms(release))
		out.row("a look while we hold all", n, ms(held))
		out.row("a look while nobody holds any", n, ms(free))
	}
}

func timed(t *testing.T, do func() error) time.Duration {
	t.Helper()
	began := time.Now()
	if err := do(); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}
