// Command caller is both ends of a conversation that a test interrupts: a server
// that can be replaced, and a client that counts the questions nobody answered.
//
//	caller serve                 answers on port 80 and says that it has taken over
//	caller call http://web/      asks without a pause until it is told to end
//
// A question counts as lost when none of the addresses behind the name gives a
// whole answer. The client writes what it counted to /tmp/calls.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const patience = 5 * time.Second // with one address

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = serve(ctx)
	case len(os.Args) == 3 && os.Args[1] == "call":
		err = call(ctx, os.Args[2])
	default:
		err = errors.New("use: caller serve | caller call URL")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

// serve answers, and finishes what it has begun when it is told to end.
func serve(ctx context.Context) error {
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	name, _ := os.Hostname()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, name)
	})}
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ended <- server.Shutdown(context.Background())
	}()
	if path := os.Getenv("BALENA_SERVICE_HANDOVER_COMPLETE_PATH"); path != "" {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-ended
}

// call asks, one question after the other, each on a connection of its own.
func call(ctx context.Context, to string) error {
	u, err := url.Parse(to)
	if err != nil {
		return err
	}
	var asked, lost int
	var gap time.Duration
	last := time.Now()
	for ctx.Err() == nil {
		why := ask(u.Hostname())
		if asked++; why != nil {
			lost++
			fmt.Println("lost:", why)
		} else {
			gap, last = max(gap, time.Since(last)), time.Now()
		}
		if err := write(fmt.Sprintf("%d %d %d\n", asked, lost, gap.Milliseconds())); err != nil {
			return err
		}
	}
	return nil
}

// write replaces the file in one step: somebody may be reading it.
func write(text string) error {
	if err := os.WriteFile("/tmp/calls.new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename("/tmp/calls.new", "/tmp/calls")
}

// ask tries one address after the other, as programs do that use a name.
func ask(host string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return err
	}
	var failed error
	for _, a := range addresses {
		err := one(a)
		if err == nil {
			return nil
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

func one(address string) error {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + net.JoinHostPort(address, "80") + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || len(b) == 0) {
		err = fmt.Errorf("answer %s with %d bytes", resp.Status, len(b))
	}
	return err
}
