package park_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/cloud/park"
)

const patience = 20 * time.Second

// place is a server which parks each request to /park, and answers it when it is back.
type place struct {
	*testing.T
	lot    *park.Lot
	server *httptest.Server
	until  time.Duration
	answer http.HandlerFunc // instead of who waited how

	parked, left, answered atomic.Int64

	mu    sync.Mutex
	spots map[string]*park.Spot // by the request's name
	came  chan string           // names of those that are parked
}

// guest is who waits with a request.
type guest struct {
	*place
	name string
	once atomic.Bool
}

func (g *guest) Left() {
	if g.once.Swap(true) {
		g.Error("left twice")
	}
	g.left.Add(1)
}

func open(t *testing.T, secure bool) *place { return openFor(t, secure, time.Minute) }

// openFor closes connections that rest for so long.
func openFor(t *testing.T, secure bool, idle time.Duration) *place {
	t.Helper()
	p := &place{T: t, until: time.Minute, spots: map[string]*park.Spot{}, came: make(chan string, 10_000)}
	p.lot = park.New(nil)
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.server.Config.IdleTimeout = idle
	p.lot.Attach(p.server.Config)
	if secure {
		p.server.StartTLS()
	} else {
		p.server.Start()
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := p.server.Config.Serve(p.lot.Listener()); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.lot.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := p.server.Config.Close(); err != nil {
			t.Error(err)
		}
		p.server.Close()
		serving.Wait()
		if p.parked.Load() != p.left.Load() || p.lot.Len() != 0 {
			t.Errorf("%d were parked, %d left, %d are parked", p.parked.Load(), p.left.Load(), p.lot.Len())
		}
	})
	return p
}

// serve answers with the name, the method and how the request waited.
func (p *place) serve(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	back := park.BackOf(r)
	how := "at once"
	switch {
	case back != nil && back.Early:
		how = "early"
	case back != nil:
		how = "back"
		if g, ok := back.Waiter.(*guest); !ok || g.name != name {
			p.Errorf("%q came back as somebody else: %+v", name, back)
		}
	case r.URL.Path == "/park":
		p.parked.Add(1)
		if spot, ok := p.lot.Park(w, r, time.Now().Add(p.until), &guest{place: p, name: name}); ok {
			p.mu.Lock()
			p.spots[name] = spot
			p.mu.Unlock()
			p.came <- name
			return
		}
		p.parked.Add(-1)
		how = "not parked"
	}
	p.answered.Add(1)
	if p.answer != nil {
		p.answer(w, r)
		return
	}
	fmt.Fprintf(w, "%s %s %s %s", name, r.Method, how, r.Header.Get("X-Word"))
}

func (p *place) spot(name string) *park.Spot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spots[name]
}

// wait waits until somebody is parked.
func (p *place) wait() string {
	p.Helper()
	select {
	case name := <-p.came:
		return name
	case <-time.After(patience):
		p.Fatal("nobody was parked")
		return ""
	}
}

// dial is a connection that speaks plain HTTP/1.1.
func (p *place) dial() *wire {
	p.Helper()
	var conn net.Conn
	var err error
	if address := p.server.Listener.Addr().String(); p.server.TLS != nil {
		conn, err = tls.Dial("tcp", address, p.server.Client().Transport.(*http.Transport).TLSClientConfig)
	} else {
		conn, err = net.Dial("tcp", address)
	}
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		p.Fatal(err)
	}
	return &wire{p.T, conn, bufio.NewReader(conn)}
}

type wire struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func request(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: lot.test\r\nX-Word: Käse\r\n\r\n"
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Error(err)
	}
}

func (w *wire) want(text string) {
	w.t.Helper()
	res, err := http.ReadResponse(w.in, nil)
	if err != nil {
		w.t.Errorf("want %q: %v", text, err)
		return
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || strings.TrimSpace(string(b)) != text {
		w.t.Errorf("got %q, %v; want %q", b, err, text)
	}
}

func bothWays(t *testing.T, do func(t *testing.T, p *place)) {
	t.Run("plain", func(t *testing.T) { do(t, open(t, false)) })
	t.Run("TLS", func(t *testing.T) { do(t, open(t, true)) })
}

// One connection is used many times, with requests that wait and others between them.
func TestAConnectionGoesOn(t *testing.T) {
	bothWays(t, func(_ *testing.T, p *place) {
		c := p.dial()
		for i := range 50 {
			name := fmt.Sprint(i)
			c.send(request("/park?name=" + name))
			p.wait()
			p.spot(name).Wake()
			c.want(name + " GET back Käse")
			p.spot(name).Wake() // too late for anybody
			c.send(request("/other?name=" + name))
			c.want(name + " GET at once Käse")
		}
	})
}

func TestAWaitIsOver(t *testing.T) {
	bothWays(t, func(t *testing.T, p *place) {
		p.until = 50 * time.Millisecond
		c := p.dial()
		for range 5 {
			began := time.Now()
			c.send(request("/park?name=a"))
			c.want("a GET back Käse")
			if took := time.Since(began); took < p.until {
				t.Errorf("it waited for %s", took)
			}
		}
	})
}

// What follows a request is not lost, whether it comes with it, while it waits, in
// pieces, or is longer than buffers are.
func TestPipelinedRequests(t *testing.T) {
	bothWays(t, func(_ *testing.T, p *place) {
		c := p.dial()
		c.send(request("/park?name=a") + request("/other?name=b") + request("/park?name=c"))
		c.want("a GET early Käse")
		c.want("b GET at once Käse")
		p.wait()
		p.wait()
		next := request("/other?name=d")
		c.send(next[:1])
		c.want("c GET early Käse")
		c.send(next[1:])
		c.want("d GET at once Käse")
		long := strings.Replace(request("/park?name=e"), "X-Word", "X-Long: "+strings.Repeat("x", 20_000)+"\r\nX-Word", 1)
		c.send(long + strings.Repeat(request("/other?name=f"), 300))
		c.want("e GET early Käse")
		for range 300 {
			c.want("f GET at once Käse")
		}
		c.send(long)
		p.wait()
		p.wait()
		p.spot("e").Wake()
		c.want("e GET back Käse")
	})
}

func TestWhatCannotBeParked(t *testing.T) {
	p := open(t, false)
	c := p.dial()
	c.send("GET /park?name=a HTTP/1.1\r\nHost: lot.test\r\nContent-Length: 2\r\n\r\nhi")
	c.want("a GET not parked")
	c.send("GET /park?name=b HTTP/1.1\r\nHost: lot.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	c.want("b GET not parked")
	recorder := httptest.NewRecorder()
	p.serve(recorder, httptest.NewRequest("GET", "/park?name=c", nil))
	if recorder.Body.String() != "c GET not parked " {
		t.Error(recorder.Body)
	}
	// Another server's request.
	other := httptest.NewServer(http.HandlerFunc(p.serve))
	defer other.Close()
	res, err := http.Get(other.URL + "/park?name=d")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "d GET not parked " {
		t.Errorf("%s %v", b, err)
	}
}

// Who leaves is noticed: the request comes back, and the connection ends.
func TestAClientLeaves(t *testing.T) {
	bothWays(t, func(t *testing.T, p *place) {
		c := p.dial()
		c.send(request("/park?name=a"))
		p.wait()
		c.Close()
		within(t, "the request came back", func() bool { return p.left.Load() == 1 && p.answered.Load() == 1 })
	})
}

func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// When a server stops, all are answered, those too that come while it does.
func TestDrain(t *testing.T) {
	bothWays(t, func(t *testing.T, p *place) {
		const n = 100
		var clients sync.WaitGroup
		for i := range n {
			clients.Go(func() {
				name := fmt.Sprint(i)
				c := p.dial()
				if i >= n/2 {
					<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond)
				}
				c.send(request("/park?name=" + name))
				res, err := http.ReadResponse(c.in, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				if b, err := io.ReadAll(res.Body); err != nil || !strings.HasPrefix(string(b), name+" GET ") {
					t.Errorf("%s: %s %v", name, b, err)
				}
			})
		}
		for range n / 2 {
			p.wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := p.lot.Drain(ctx); err != nil {
			t.Error(err)
		}
		clients.Wait()
	})
}

// Wakes, ends of waits, clients that leave or say more: at any moment, all at once,
// and each request that somebody waits for is answered exactly once.
func TestEverythingAtOnce(t *testing.T) {
	bothWays(t, func(t *testing.T, p *place) {
		p.until = 3 * time.Millisecond
		stop := make(chan struct{})
		var waking sync.WaitGroup
		for range 2 {
			waking.Go(func() {
				for {
					select {
					case name := <-p.came:
						if spot := p.spot(name); rand.IntN(2) == 0 {
							<-time.After(time.Duration(rand.IntN(4000)) * time.Microsecond)
							spot.Wake()
						}
					case <-stop:
						return
					}
				}
			})
		}
		var clients sync.WaitGroup
		for i := range 16 {
			clients.Go(func() { p.visits(i) })
		}
		clients.Wait()
		close(stop)
		waking.Wait()
		within(t, "all left", func() bool { return p.left.Load() == p.parked.Load() && p.lot.Len() == 0 })
	})
}

// visits asks many times, on connections that it leaves now and then.
func (p *place) visits(client int) {
	c := p.dial()
	for i := range 60 {
		name := fmt.Sprintf("%d-%d", client, i)
		c.send(request("/park?name=" + name))
		switch rand.IntN(4) {
		case 0:
			<-time.After(time.Duration(rand.IntN(4000)) * time.Microsecond)
			c.Close()
			c = p.dial()
			continue
		case 1:
			<-time.After(time.Duration(rand.IntN(4000)) * time.Microsecond)
			c.send(request("/other?name=more"))
			c.one(name)
			c.want("more GET at once Käse")
			continue
		}
		c.one(name)
	}
}

// one takes an answer to a request of that name, however it waited.
func (w *wire) one(name string) {
	w.t.Helper()
	res, err := http.ReadResponse(w.in, nil)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || !strings.HasPrefix(string(b), name+" GET ") {
		w.t.Errorf("%s: got %q, %v", name, b, err)
	}
}

// Many that wait take little, and leave nothing behind.
func TestParkedRequestsAreCheap(t *testing.T) {
	p := open(t, false)
	const n = 400
	before := goroutines(t)
	var all []*wire
	for i := range n {
		c := p.dial()
		c.send(request(fmt.Sprintf("/park?name=%d", i)))
		all = append(all, c)
	}
	for range n {
		p.wait()
	}
	within(t, "one goroutine for each", func() bool { return runtime.NumGoroutine() <= before+n })
	for i, c := range all {
		p.spot(fmt.Sprint(i)).Wake()
		c.want(fmt.Sprintf("%d GET back Käse", i))
	}
	within(t, "one goroutine for each that rests", func() bool { return runtime.NumGoroutine() <= before+n })
	for _, c := range all {
		c.send(request("/other?name=a"))
		c.want("a GET at once Käse")
		c.Close()
	}
	within(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// An answer is the same whether its request has waited or not.
func TestAnswersAreAlike(t *testing.T) {
	bothWays(t, func(t *testing.T, p *place) {
		p.answer = answerAs
		for _, c := range []struct{ method, as, header string }{
			{"GET", "200 10", ""},
			{"GET", "0 2000", ""},
			{"GET", "200 0", ""},
			{"GET", "304 0", ""},
			{"GET", "204 0", ""},
			{"GET", "404 20", ""},
			{"GET", "200 1000000", ""},
			{"HEAD", "200 10", ""},
			{"GET", "200 10", "Connection: close\r\n"},
		} {
			var got [2]string
			for i, path := range []string{"/other", "/park"} {
				w := p.dial()
				w.send(c.method + " " + path + "?name=" + c.method + "&as=" + strings.ReplaceAll(c.as, " ", "+") + " HTTP/1.1\r\nHost: lot.test\r\n" + c.header + "\r\n")
				if path == "/park" {
					p.spot(p.wait()).Wake()
				}
				got[i] = w.all(c.method, c.header != "")
			}
			if got[0] != got[1] || !strings.Contains(got[1], "X-Two: b") {
				t.Errorf("%s %q: at once\n%.600s\nafter a wait\n%.600s", c.method, c.as, got[0], got[1])
			}
		}
	})
}

// answerAs answers with a status and so many bytes; 0: with no status.
func answerAs(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"x"`)
	w.Header()["X-Two"] = []string{"a", "b"}
	status, size := 0, 0
	fmt.Sscan(r.URL.Query().Get("as"), &status, &size) //nolint:errcheck // the answer shows it
	if size > 4000 {                                   // else the server sends it in chunks
		w.Header().Set("Content-Length", strconv.Itoa(size))
	}
	if status != 0 {
		w.WriteHeader(status)
	}
	for range size / 10 {
		w.Write([]byte("0123456789")) //nolint:errcheck // the client says
	}
}

// all is an answer without its date, and whether the connection ends with it.
func (w *wire) all(method string, ends bool) string {
	w.t.Helper()
	res, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		w.t.Error(err)
		return ""
	}
	defer res.Body.Close()
	res.Header.Del("Date")
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Error(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s %d %v %v\n", res.Status, res.ContentLength, res.TransferEncoding, res.Close)
	res.Header.Write(&text) //nolint:errcheck // a builder takes everything
	if ends {
		_, err := w.in.ReadByte()
		fmt.Fprintf(&text, "%v\n", err)
	}
	text.Write(b)
	return text.String()
}

// A connection that rests is closed when it has rested for as long as the server allows,
// or when that stops.
func TestARestEnds(t *testing.T) {
	for _, stops := range []bool{false, true} {
		idle := 50 * time.Millisecond
		if stops {
			idle = time.Minute
		}
		p := openFor(t, false, idle)
		c := p.dial()
		c.send(request("/park?name=a"))
		p.spot(p.wait()).Wake()
		c.want("a GET back Käse")
		if stops {
			if err := p.lot.Drain(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if b, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("stops %v: %c %v", stops, b, err)
		}
	}
}

// A handler that gives up drops the connection.
func TestAHandlerGivesUp(t *testing.T) {
	p := open(t, false)
	p.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("half")) //nolint:errcheck // it is not sent
		panic(http.ErrAbortHandler)
	}
	c := p.dial()
	c.send(request("/park?name=a"))
	p.spot(p.wait()).Wake()
	if b, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("%c %v", b, err)
	}
	if err := p.lot.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func goroutines(t *testing.T) int {
	t.Helper()
	last, since := runtime.NumGoroutine(), time.Now()
	within(t, "quiet", func() bool {
		if now := runtime.NumGoroutine(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 50*time.Millisecond
	})
	return last
}
