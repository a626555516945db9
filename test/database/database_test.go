// Package database tests what the cloud's databases promise as a whole: moving
// the data of one container to many, and keeping what was acknowledged, through
// kill -9 of a real process.
package database

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the "pgx" driver

	"deckhand/cloud/model"
	"deckhand/test/postgres"
)

// The environment of a child process: what it does, and with which database.
const (
	childTask     = "DECKHAND_TEST_TASK"
	childPath     = "DECKHAND_TEST_PATH"
	childDatabase = "DECKHAND_TEST_URL"
)

func TestMain(m *testing.M) {
	cfg := model.Config{Path: os.Getenv(childPath), Database: os.Getenv(childDatabase)}
	var err error
	switch os.Getenv(childTask) {
	case "":
		postgres.Main(m)
	case "migrate":
		err = migrate(cfg)
	case "write":
		err = write(cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// place is an empty database of the kind that the tests run on.
func place(t *testing.T) model.Config {
	t.Helper()
	if postgres.Wanted() {
		return model.Config{Database: postgres.Database(t, nil)}
	}
	return model.Config{Path: filepath.Join(t.TempDir(), "cloud.db")}
}

func kind(cfg model.Config) string {
	if cfg.Database != "" {
		return "PostgreSQL"
	}
	return "SQLite"
}

// raw opens the database beside the model.
func raw(t *testing.T, cfg model.Config) *sql.DB {
	t.Helper()
	driver, name := "sqlite", cfg.Path
	if cfg.Database != "" {
		driver, name = "pgx", cfg.Database
	}
	db, err := sql.Open(driver, name)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// child starts this program again with a task; lines is what it prints.
func child(t *testing.T, task string, cfg model.Config) (cmd *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childTask+"="+task, childPath+"="+cfg.Path, childDatabase+"="+cfg.Database)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

// memory is the most that this process has held, in MiB.
func memory() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib >> 10
		}
	}
	return 0
}

// writers is how many goroutines of the child write at once.
const writers = 16

// write writes without end and prints the name of each user once it is acknowledged.
func write(cfg model.Config) error {
	ctx := context.Background()
	db, err := model.Open(ctx, cfg)
	if err != nil {
		return err
	}
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("w%d_%d_%d", os.Getpid(), w, i)
				if _, err := db.CreateUser(ctx, name, "x"); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				os.Stdout.WriteString(name + "\n")
			}
		})
	}
	wait.Wait()
	return nil
}

// kills is how often the writing process is killed, each time a moment later.
const kills = 3

func TestKilledUnderWriteLoadNothingAcknowledgedIsLost(t *testing.T) {
	cfg := place(t)
	var acknowledged []string
	for round := range kills {
		cmd, lines := child(t, "write", cfg)
		enough := len(acknowledged) + 100*(round+1)
		for len(acknowledged) < enough && lines.Scan() {
			acknowledged = append(acknowledged, lines.Text())
		}
		must(t, cmd.Process.Kill())
		for lines.Scan() { // acknowledged before the kill, read after it
			acknowledged = append(acknowledged, lines.Text())
		}
		cmd.Wait() //nolint:errcheck // it was killed
		if len(acknowledged) < enough {
			t.Fatalf("the child ended by itself after %d writes", len(acknowledged))
		}
	}
	db := opened(t, cfg)
	for _, name := range acknowledged {
		if _, err := db.UserByName(t.Context(), name); err != nil {
			t.Errorf("acknowledged and lost: %v", err)
		}
	}
	t.Logf("%s: killed %d times by SIGKILL, %d acknowledged writes, all there", kind(cfg), kills, len(acknowledged))
}

// opened opens the database; after a kill the locks of the dead are let go soon.
func opened(t *testing.T, cfg model.Config) *model.DB {
	t.Helper()
	db, err := model.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// TestSmallWritesShareTheDisk counts durable writes of 64 writers.
func TestSmallWritesShareTheDisk(t *testing.T) {
	const writers, each = 64, 20
	cfg := place(t)
	db := opened(t, cfg)
	u, err := db.CreateUser(t.Context(), "owner", "x")
	must(t, err)
	fleet, err := db.CreateFleet(t.Context(), model.NewFleet{Name: "fleet", DeviceType: "generic-amd64", User: u.ID})
	must(t, err)
	d, err := db.RegisterDevice(t.Context(), model.NewDevice{Fleet: fleet.ID, DeviceType: "generic-amd64", Key: "device-key-0000000"})
	must(t, err)
	started := time.Now()
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for i := range each {
				if err := db.SetTags(t.Context(), d.ID, map[string]string{fmt.Sprintf("t%d", w): fmt.Sprint(i)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	took := time.Since(started)
	if n := count(t, raw(t, cfg), fmt.Sprintf("device_tag WHERE value = '%d'", each-1)); n != writers {
		t.Errorf("%d of %d writers have their last write", n, writers)
	}
	t.Logf("%d writers: %d durable writes in %v, %.0f/s (GOMAXPROCS %d)", writers, writers*each, took.Round(time.Millisecond),
		float64(writers*each)/took.Seconds(), runtime.GOMAXPROCS(0))
}
