package localapi

import (
	"net"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// strange is a connection that says it comes from somewhere.
type strange struct {
	net.Conn
	from string
}

func (s strange) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s.from))
}

// visitors is a listener to which everybody on a list connects.
type visitors struct {
	net.Listener
	from []string
}

func (v *visitors) Accept() (net.Conn, error) {
	if len(v.from) == 0 {
		return nil, net.ErrClosed
	}
	near, far := net.Pipe()
	_ = far.Close()
	c := strange{near, v.from[0]}
	v.from = v.from[1:]
	return c, nil
}

// ownAddress is one of this machine beside loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr().String()
		}
	}
	return "127.0.0.2"
}

// The device itself may connect, its network only while it may.
func TestWhoReachesTheAPI(t *testing.T) {
	own := ownAddress(t)
	far := []string{"192.0.2.1:999", "[2001:db8::1]:999", "[::ffff:192.0.2.1]:999"}
	near := []string{"127.0.0.1:999", "[::1]:999", "127.9.9.9:1", "[::ffff:127.0.0.1]:999", own + ":999", "[::ffff:" + own + "]:999"}
	for _, open := range []bool{false, true} {
		var refused, in []string
		g := Guard(&visitors{from: append(append([]string{}, far...), near...)}, Reach{
			Network: func() bool { return open }, Refused: func(a netip.Addr) { refused = append(refused, a.String()) },
		})
		for {
			c, err := g.Accept()
			if err != nil {
				break
			}
			in = append(in, c.RemoteAddr().String())
		}
		want := len(near)
		if open {
			want += len(far)
		}
		if len(in) != want || len(in)+len(refused) != len(near)+len(far) {
			t.Errorf("open %v: in %v, refused %v", open, in, refused)
		}
	}
}

// Wrong keys are counted by address; the right one opens all the same.
func TestWrongKeysAreLimited(t *testing.T) {
	d := &device{status: Status{Commits: map[int64]string{}}}
	s := d.serve(t)
	codes := map[int]int{}
	for range strangerTokens + 20 {
		code, _, header := call(t, "GET", s.URL+"/v2/version?apikey=wrong", "")
		codes[code]++
		if code == 429 && header.Get("Retry-After") == "" {
			t.Error("nobody says when to come back")
		}
	}
	if codes[401] < strangerTokens || codes[429] == 0 || codes[401]+codes[429] != strangerTokens+20 {
		t.Errorf("%v", codes)
	}
	for _, k := range []string{key, "servicetwo"} {
		if code, _, _ := call(t, "GET", s.URL+"/v2/version?apikey="+k, ""); code != 200 {
			t.Errorf("with a right key: %d", code)
		}
	}
	if code, _, _ := call(t, "GET", s.URL+"/v2/version", ""); code != 401 {
		t.Errorf("without a key: %d", code)
	}
}

func TestStrangersAreForgotten(t *testing.T) {
	s := newStrangers()
	now := time.Unix(0, 0)
	s.now = func() time.Time { return now }
	for range strangerTokens {
		if !s.may("192.0.2.1:5") {
			t.Fatal("refused too early")
		}
	}
	if s.may("192.0.2.1:6") || !s.may("192.0.2.2:5") || !s.may("@") {
		t.Error("an address is not counted by itself")
	}
	now = now.Add(strangerEvery)
	if !s.may("192.0.2.1:7") || s.may("192.0.2.1:7") {
		t.Error("one token comes back")
	}
	for i := range 3 * strangersKnown {
		s.may(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1).String())
	}
	if len(s.seen) > strangersKnown {
		t.Errorf("%d addresses are remembered", len(s.seen))
	}
}

// Only so many requests wait for their actions.
func TestHeldRequestsAreLimited(t *testing.T) {
	d := &device{status: runs()}
	a := &api{c: d.config(), waiting: make(chan struct{}, 1)}
	a.waiting <- struct{}{}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/restart", nil)
	if err := a.act(r, Action{App: 1}); err != errTooMany { //nolint:errorlint // exactly that
		t.Errorf("%v", err)
	}
	<-a.waiting
	if err := a.act(r, Action{App: 1}); err != nil {
		t.Errorf("%v", err)
	}
}
