// Command front is the door of the project: it has the published port and passes
// every request on to web. While web is handed over from one container to the
// next, both answer to that name; front takes whichever answers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	port       = "8080"
	patience   = 5 * time.Second        // for one request, over all tries
	perTry     = 2 * time.Second        // for one answer
	perDial    = 200 * time.Millisecond // a container that is gone does not refuse, it is silent
	pause      = 20 * time.Millisecond  // before the name is looked up again
	longAnswer = 1 << 20                // bytes
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "front:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	web := os.Getenv("WEB")
	if web == "" {
		web = "web:8080"
	}
	host, webPort, err := net.SplitHostPort(web)
	if err != nil {
		return fmt.Errorf("WEB is %q; want a name and a port like web:8080", web)
	}
	server := &http.Server{Addr: ":" + port, Handler: newDoor(host, webPort), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Printf("front: passes requests on to %s\n", web)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// door passes requests on to the containers behind a name.
type door struct {
	host, port string
	client     *http.Client

	mu   sync.Mutex
	last netip.Addr // who answered last
}

func newDoor(host, webPort string) *door {
	return &door{host: host, port: webPort, client: &http.Client{
		Timeout: perTry,
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{Timeout: perDial}).DialContext,
			DisableKeepAlives: true, // a kept connection would lead to the old container
		},
	}}
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	for {
		status, body, err := d.pass(ctx, r)
		if err == nil {
			w.WriteHeader(status)
			_, _ = w.Write(body)
			return
		}
		if ctx.Err() != nil || !mayRepeat(r, err) {
			log.Printf("front: %s %s: %v", r.Method, r.URL.Path, err)
			http.Error(w, "web does not answer", http.StatusBadGateway)
			return
		}
		time.Sleep(pause)
	}
}

// pass tries every address that the name has now, first the one that answered
// last: a new one is in the engine's DNS a little before it can be reached.
func (d *door) pass(ctx context.Context, r *http.Request) (int, []byte, error) {
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", d.host)
	if err != nil {
		return 0, nil, err
	}
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	if i := slices.Index(addresses, last); i > 0 {
		addresses[0], addresses[i] = addresses[i], addresses[0]
	}
	err = errors.New("the name has no address")
	for _, a := range addresses {
		var status int
		var body []byte
		if status, body, err = d.try(ctx, r, a); err == nil {
			d.mu.Lock()
			d.last = a
			d.mu.Unlock()
		}
		if err == nil || !mayRepeat(r, err) {
			return status, body, err
		}
	}
	return 0, nil, err
}

// try reads the whole answer before any of it is passed on, so that one that
// breaks off can be asked for again.
func (d *door) try(ctx context.Context, r *http.Request, a netip.Addr) (int, []byte, error) {
	url := *r.URL
	url.Scheme, url.Host = "http", net.JoinHostPort(a.String(), d.port)
	req, err := http.NewRequestWithContext(ctx, r.Method, url.String(), nil)
	if err != nil {
		return 0, nil, err
	}
	answer, err := d.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, longAnswer))
	return answer.StatusCode, body, err
}

// mayRepeat reports whether a request does no harm when it is sent again: it only
// reads, or nobody has got it.
func mayRepeat(r *http.Request, err error) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	var failed *net.OpError
	var unknown *net.DNSError
	return errors.As(err, &failed) && failed.Op == "dial" || errors.As(err, &unknown)
}
