package system

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Programs are the paths of the three programs.
type Programs struct{ Deckhand, Cloud, Deckctl string }

// In are the programs of a folder, such as bin/ after make build.
func In(dir string) Programs {
	return Programs{filepath.Join(dir, "deckhand"), filepath.Join(dir, "deckhand-cloud"), filepath.Join(dir, "deckctl")}
}

// Build builds the programs into a folder, static as they are shipped.
func Build(ctx context.Context, dir string) (Programs, error) {
	if err := BuildOne(ctx, "./cmd/...", dir+"/"); err != nil {
		return Programs{}, err
	}
	return In(dir), nil
}

// BuildOne builds a package of the module into a file, static: it runs in an
// image that holds nothing else. A folder, with a slash at its end, takes several.
func BuildOne(ctx context.Context, pkg, into string) error {
	root, err := Root(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", into, pkg)
	cmd.Dir, cmd.Env = root, append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Builder builds the programs once, however often it is asked.
type Builder struct {
	once sync.Once
	dir  string
	made Programs
	err  error
}

// Programs builds them, or gives those that were built before.
func (b *Builder) Programs(ctx context.Context) (Programs, error) {
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "deckhand-bin-"); b.err == nil {
			b.made, b.err = Build(ctx, b.dir)
		}
	})
	return b.made, b.err
}

// Close removes what was built.
func (b *Builder) Close() error {
	if b.dir == "" {
		return nil
	}
	return os.RemoveAll(b.dir)
}

// Root is the folder of the module.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
