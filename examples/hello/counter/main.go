// Command counter keeps a number in a volume and counts it up for everyone who
// asks: one connection, one line with the new number.
//
//	counter          serves on port 7000
//	counter health   exits 0 if the one in this container answers
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const port = "7000"

// version is set by the linker; a new one makes a new image.
var version = "1"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "health" {
		return health()
	}
	// The first process of a container gets no default for SIGTERM: without
	// this the engine would wait out its grace period and then kill.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	file := filepath.Join(dataDir(), "count")
	count, err := load(file)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	fmt.Printf("counter: version %s, going on from %d\n", version, count)

	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			fmt.Printf("counter: stopped at %d\n", count)
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		count, err = serve(conn, file, count)
		if err != nil {
			return err
		}
	}
}

// serve answers one connection. "next" counts up, anything else only looks.
func serve(conn net.Conn, file string, count int) (int, error) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return count, nil
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return count, nil // the other side left; no reason to stop
	}
	if strings.TrimSpace(line) == "next" {
		count++
		if err := save(file, count); err != nil {
			return count, err
		}
	}
	fmt.Fprintln(conn, count)
	return count, nil
}

func health() error {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintln(conn, "look")
	_, err = bufio.NewReader(conn).ReadString('\n')
	return err
}

func dataDir() string {
	if dir := os.Getenv("DATA_DIR"); dir != "" {
		return dir
	}
	return "/data"
}

func load(file string) (int, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read count: %w", err)
	}
	count, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("read count from %s: %w", file, err)
	}
	return count, nil
}

// save writes beside the file and renames, so that a power cut leaves the old
// number or the new one.
func save(file string, count int) error {
	next := file + ".next"
	if err := os.WriteFile(next, []byte(strconv.Itoa(count)+"\n"), 0o644); err != nil {
		return fmt.Errorf("write count: %w", err)
	}
	if err := os.Rename(next, file); err != nil {
		return fmt.Errorf("write count: %w", err)
	}
	return nil
}
