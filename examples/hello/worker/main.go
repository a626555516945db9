// Command worker asks the counter for the next number again and again. At times
// it has something to do that must not be interrupted; then it holds the update
// lock of its service:
//
//	POST   /work?for=30s   on port 7001: begin, and end by itself after that time
//	DELETE /work           end now
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const port = "7001"

// version is set by the linker; a new one makes a new image.
var version = "1"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	every := 2 * time.Second
	if text := os.Getenv("EVERY"); text != "" {
		var err error
		if every, err = time.ParseDuration(text); err != nil || every <= 0 {
			return fmt.Errorf("EVERY is %q; want a time like 2s", text)
		}
	}
	important := &work{path: lockPath()}
	if err := important.forget(); err != nil {
		return err
	}
	defer important.end()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /work", important.post)
	mux.HandleFunc("DELETE /work", important.delete)
	server := &http.Server{Addr: ":" + port, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	go count(ctx, every)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// count counts up until ctx ends.
func count(ctx context.Context, every time.Duration) {
	counter := os.Getenv("COUNTER")
	if counter == "" {
		counter = "counter:7000"
	}
	fmt.Printf("worker: version %s, every %s\n", version, every)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if number, err := next(ctx, counter); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
		} else {
			fmt.Printf("worker: version %s got %s\n", version, number)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func next(ctx context.Context, counter string) (string, error) {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", counter)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	fmt.Fprintln(conn, "next")
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}
