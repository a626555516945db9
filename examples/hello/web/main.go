// Command web greets everyone who comes by and tells how far the counter is. Two
// of them may run at the same time: that is how one hands over to the next.
//
//	web          serves on port 8080
//	web health   exits 0 if the one in this container answers
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	port     = "8080"
	askEvery = 500 * time.Millisecond // the counter
	brief    = 300 * time.Millisecond // for its answer
)

// version is set by the linker; a new one makes a new image.
var version = "1"

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

	w := &web{greeting: variable("GREETING", "Hello"), counter: variable("COUNTER", "counter:7000"), worker: variable("WORKER", "worker:7001")}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", w.greet)
	mux.HandleFunc("POST /work", w.work)
	mux.HandleFunc("DELETE /work", w.work)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })

	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	w.look(ctx)
	go w.watch(ctx)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("web: version %s greets with %q\n", version, w.greeting)
	if err := takeOver(); err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// Whoever has been let in gets an answer; who comes now is refused at once
	// and tries the next container.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return server.Shutdown(ctx)
}

// takeOver says that the old container may go: this one answers.
func takeOver() error {
	if err := health(); err != nil {
		return fmt.Errorf("do not answer: %w", err)
	}
	file := variable("BALENA_SERVICE_HANDOVER_COMPLETE_PATH", "/tmp/balena/handover-complete")
	err := os.WriteFile(file, nil, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		return nil // there is no such folder: the health check has to do
	}
	return err
}

type web struct {
	greeting, counter, worker string

	mu   sync.Mutex
	last string // what is known of the counter
	away bool   // and that is not from just now
}

func (w *web) greet(out http.ResponseWriter, _ *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.last == "":
		fmt.Fprintf(out, "%s! The counter is away.\n", w.greeting)
	case w.away:
		fmt.Fprintf(out, "%s! The counter was at %s.\n", w.greeting, w.last)
	default:
		fmt.Fprintf(out, "%s! The counter is at %s.\n", w.greeting, w.last)
	}
}

// watch keeps in mind what the counter says. No greeting waits for it.
func (w *web) watch(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look(ctx)
		}
	}
}

func (w *web) look(ctx context.Context) {
	number, err := ask(ctx, w.counter)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away = err != nil; !w.away {
		w.last = number
	}
}

func ask(ctx context.Context, counter string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", counter)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(brief)); err != nil {
		return "", err
	}
	fmt.Fprintln(conn, "look")
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// work passes on what somebody wants of the worker, who is seen by nobody else.
func (w *web) work(out http.ResponseWriter, r *http.Request) {
	url := "http://" + w.worker + "/work?" + r.URL.RawQuery
	req, err := http.NewRequestWithContext(r.Context(), r.Method, url, nil)
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	client := http.Client{Timeout: time.Second}
	answer, err := client.Do(req)
	if err != nil {
		http.Error(out, "worker does not answer", http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	out.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(out, answer.Body)
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

func variable(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
