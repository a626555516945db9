package locks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOneInstance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "deckhand.lock")
	first, err := Instance(path)
	must(t, err)
	_, err = Instance(path)
	use, ok := errors.AsType[*InUseError](err)
	if !ok {
		t.Fatalf("second instance: %v, want an InUseError", err)
	}
	if use.PID != os.Getpid() || time.Since(use.Since) > time.Minute || use.Folder != filepath.Dir(path) {
		t.Errorf("holder %+v", use)
	}
	want := fmt.Sprintf("another deckhand (pid %d, since ", os.Getpid())
	if !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), ") is using "+filepath.Dir(path)) {
		t.Errorf("message %q", err)
	}
	must(t, first.Release())
	second, err := Instance(path)
	must(t, err)
	must(t, second.Release())
}

func TestAStaleFileBlocksNobody(t *testing.T) {
	for _, content := range []string{"", "1\n2020-01-01T00:00:00Z\n", "not a pid", strings.Repeat("x", 10000)} {
		path := filepath.Join(t.TempDir(), "lock")
		must(t, os.WriteFile(path, []byte(content), 0o600))
		l, err := Instance(path)
		must(t, err)
		must(t, l.Release())
	}
}

func TestAnUnreadableHolderIsStillAHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Instance(path)
	must(t, err)
	defer func() { must(t, l.Release()) }()
	must(t, os.WriteFile(path, []byte("\x00junk"), 0o600))
	_, err = Instance(path)
	if err == nil || !strings.HasPrefix(err.Error(), "another deckhand is using ") {
		t.Errorf("message %v", err)
	}
}

func TestAPathThatCannotBeALock(t *testing.T) {
	dir := t.TempDir()
	if _, err := Instance(dir); err == nil {
		t.Error("a folder was locked")
	}
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	if _, err := Instance(filepath.Join(dir, "file", "lock")); err == nil {
		t.Error("a lock inside a file was taken")
	}
}

// A killed process holds nothing.
func TestKillReleasesTheLock(t *testing.T) {
	if p := os.Getenv("LOCKS_TEST_HOLD"); p != "" {
		l, err := Instance(p)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		_, _ = io.ReadAll(os.Stdin) // until killed
		_ = l.Release()
		return
	}
	path := filepath.Join(t.TempDir(), "lock") // not before: a killed child clears nothing up
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestKillReleasesTheLock")
	cmd.Env = append(os.Environ(), "LOCKS_TEST_HOLD="+path)
	in, err := cmd.StdinPipe()
	must(t, err)
	defer func() { _ = in.Close() }()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	if line != "held\n" {
		t.Fatalf("child: %s", line)
	}
	if _, err := Instance(path); err == nil || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("while the other process runs: %v", err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	l, err := Instance(path)
	must(t, err)
	must(t, l.Release())
}
