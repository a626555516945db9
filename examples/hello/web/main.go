// Command web greets everyone who comes by and tells how far the counter is.
//
//	web          serves on port 8080
//	web health   exits 0 if the one in this container answers
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

const port = "8080"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "health" {
		return health()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	greeting := os.Getenv("GREETING")
	if greeting == "" {
		greeting = "Hello"
	}
	counter := os.Getenv("COUNTER")
	if counter == "" {
		counter = "counter:7000"
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s! The counter is at %s.\n", greeting, look(counter))
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})

	server := &http.Server{Addr: ":" + port, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Printf("web: greets with %q\n", greeting)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// look reads the number, or says that it is not to be had now: the greeting
// does not depend on it.
func look(counter string) string {
	conn, err := net.DialTimeout("tcp", counter, time.Second)
	if err != nil {
		return "an unknown number"
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "an unknown number"
	}
	fmt.Fprintln(conn, "look")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "an unknown number"
	}
	return strings.TrimSpace(line)
}

func health() error {
	client := http.Client{Timeout: time.Second}
	answer, err := client.Get("http://127.0.0.1:" + port + "/health")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("health answered %s", answer.Status)
	}
	return nil
}
