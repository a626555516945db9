package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	domain    = "local."
	ttl       = 120 // seconds that others may remember us
	hops      = 255 // what receivers may insist on
	mostBytes = 9000

	cacheFlush = dnsmessage.Class(1 << 15) // in answers: this is all there is of it
	unicast    = dnsmessage.Class(1 << 15) // in questions: answer me alone
)

var groups = [...]netip.AddrPort{netip.MustParseAddrPort("224.0.0.251:5353"), netip.MustParseAddrPort("[ff02::fb]:5353")}

// responder answers multicast questions about the device, one listener for each
// network and address family.
type responder struct {
	c    Config
	name string
	all  []*listener
	wg   sync.WaitGroup
	seen string // of interfaces, when it began
}

type listener struct {
	r     *responder
	conn  *net.UDPConn
	iface net.Interface
	group netip.AddrPort
}

// answer begins to answer ourselves.
func (c Config) answer() (announcement, error) {
	r := &responder{c: c, name: c.Name()}
	list, err := c.networks()
	if err != nil {
		return nil, err
	}
	r.seen = fingerprint(list)
	var errs []error
	for _, i := range list {
		for _, g := range groups {
			l, err := r.listen(i, g)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			r.all = append(r.all, l)
		}
	}
	if len(r.all) == 0 && len(errs) > 0 {
		return nil, fmt.Errorf("answer in the network: %w", errs[0])
	}
	for _, l := range r.all {
		r.wg.Go(l.serve)
		l.announce(ttl)
	}
	return r, nil
}

// networks are the interfaces to be found on.
func (c Config) networks() ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	return slices.DeleteFunc(all, func(i net.Interface) bool {
		if c.Interfaces != nil {
			return !slices.Contains(c.Interfaces, i.Name)
		}
		const need = net.FlagUp | net.FlagMulticast
		return i.Flags&need != need || i.Flags&net.FlagLoopback != 0 || virtual(i.Name)
	}), nil
}

// virtual tells the engine's own networks: nobody looks for devices there.
func virtual(name string) bool {
	for _, prefix := range []string{"docker", "balena", "br-", "veth", "supervisor", "resin-vpn"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// fingerprint changes with the interfaces and their addresses.
func fingerprint(list []net.Interface) string {
	var b strings.Builder
	for _, i := range list {
		fmt.Fprintf(&b, "%d %s", i.Index, i.Name)
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			b.WriteString(" " + a.String())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (r *responder) listen(i net.Interface, g netip.AddrPort) (*listener, error) {
	network := "udp4"
	if g.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenMulticastUDP(network, &i, net.UDPAddrFromAddrPort(g))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", i.Name, err)
	}
	if err := tune(conn, g.Addr().Is6()); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s: %w", i.Name, err)
	}
	return &listener{r, conn, i, g}, nil
}

// tune sets how far answers go, and that programs on this machine get them too.
func tune(conn *net.UDPConn, six bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	level, ttlName, loopName := syscall.IPPROTO_IP, syscall.IP_MULTICAST_TTL, syscall.IP_MULTICAST_LOOP
	if six {
		level, ttlName, loopName = syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_HOPS, syscall.IPV6_MULTICAST_LOOP
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(
			os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), level, ttlName, hops)),
			os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), level, loopName, 1)))
	})
	return errors.Join(err, failed)
}

// Alive reports whether the networks are those it began with.
func (r *responder) Alive() bool {
	list, err := r.c.networks()
	return err == nil && fingerprint(list) == r.seen && r.name == r.c.Name()
}

// Close says good-bye, so that nobody finds us any more.
func (r *responder) Close() {
	for _, l := range r.all {
		l.announce(0)
		_ = l.conn.Close()
	}
	r.wg.Wait()
}

// serve answers until the socket is closed.
func (l *listener) serve() {
	buf := make([]byte, mostBytes)
	for {
		n, from, err := l.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if reply, to := l.reply(buf[:n], from); reply != nil {
			_, _ = l.conn.WriteToUDPAddrPort(reply, to)
		}
	}
}

// reply answers a packet of questions; nil: none of them is about us.
func (l *listener) reply(packet []byte, from netip.AddrPort) ([]byte, netip.AddrPort) {
	var p dnsmessage.Parser
	h, err := p.Start(packet)
	if err != nil || h.Response || h.OpCode != 0 {
		return nil, from
	}
	to, ours, id := l.target(), false, uint16(0)
	for {
		q, err := p.Question()
		if err != nil {
			break // the end, or nonsense
		}
		if !l.about(q) {
			continue
		}
		ours = true
		if q.Class&unicast != 0 {
			to = from
		}
	}
	if !ours {
		return nil, from
	}
	if from.Port() != l.group.Port() { // a simple client that does not listen to the group
		to, id = from, h.ID
	}
	reply, err := l.message(id, ttl)
	if err != nil {
		return nil, from
	}
	return reply, to
}

// about reports whether we know something about what is asked.
func (l *listener) about(q dnsmessage.Question) bool {
	if class := q.Class &^ unicast; class != dnsmessage.ClassINET && class != dnsmessage.ClassANY {
		return false
	}
	name := strings.ToLower(q.Name.String())
	for _, known := range append(types(), l.r.instance(), l.r.hostName(), "_services._dns-sd._udp."+domain) {
		if name == strings.ToLower(known) {
			return true
		}
	}
	return false
}

// types are the names under which services are listed: all and devices only.
func types() []string {
	return []string{Service + "." + domain, Subtype + "." + Service + "." + domain, OldTypes + "." + Service + "." + domain}
}

func (r *responder) instance() string { return label(r.name) + "." + Service + "." + domain }

func (r *responder) hostName() string { return label(r.name) + "." + domain }

// label is a name as one part of another: it has no dots.
func label(name string) string {
	name = strings.ReplaceAll(name, ".", "-")
	return name[:min(len(name), 63)]
}

func (l *listener) target() netip.AddrPort {
	if l.group.Addr().Is4() {
		return l.group
	}
	return netip.AddrPortFrom(l.group.Addr().WithZone(l.iface.Name), l.group.Port())
}

// announce tells everybody unasked; seconds 0 says that we are gone.
func (l *listener) announce(seconds uint32) {
	if m, err := l.message(0, seconds); err == nil {
		_, _ = l.conn.WriteToUDPAddrPort(m, l.target())
	}
}

// message is all there is to say: clients ignore answers in which the address is
// missing.
func (l *listener) message(id uint16, seconds uint32) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, Response: true, Authoritative: true})
	b.EnableCompression()
	w := writer{b: &b, ttl: seconds}
	w.err = b.StartAnswers()
	instance := w.name(l.r.instance())
	for _, t := range types() {
		w.ptr(t, instance)
	}
	w.ptr("_services._dns-sd._udp."+domain, w.name(Service+"."+domain))
	host := w.name(l.r.hostName())
	w.add(func() error {
		return b.SRVResource(w.header(instance, cacheFlush), dnsmessage.SRVResource{Port: l.r.c.Port, Target: host})
	})
	text := l.r.c.Text
	if len(text) == 0 {
		text = []string{""}
	}
	w.add(func() error { return b.TXTResource(w.header(instance, cacheFlush), dnsmessage.TXTResource{TXT: text}) })
	w.addresses(host, l.iface)
	if w.err != nil {
		return nil, w.err
	}
	return b.Finish()
}

// writer notes the first error of many records.
type writer struct {
	b   *dnsmessage.Builder
	ttl uint32
	err error
}

func (w *writer) add(record func() error) {
	if w.err == nil {
		w.err = record()
	}
}

func (w *writer) name(s string) dnsmessage.Name {
	n, err := dnsmessage.NewName(s)
	w.add(func() error { return err })
	return n
}

func (w *writer) header(name dnsmessage.Name, flags dnsmessage.Class) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET | flags, TTL: w.ttl}
}

func (w *writer) ptr(from string, to dnsmessage.Name) {
	name := w.name(from)
	w.add(func() error { return w.b.PTRResource(w.header(name, 0), dnsmessage.PTRResource{PTR: to}) })
}

// addresses are those on the network on which is asked.
func (w *writer) addresses(host dnsmessage.Name, i net.Interface) {
	addrs, err := i.Addrs()
	w.add(func() error { return err })
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if four := ip.IP.To4(); four != nil {
			w.add(func() error {
				return w.b.AResource(w.header(host, cacheFlush), dnsmessage.AResource{A: [4]byte(four)})
			})
			continue
		}
		w.add(func() error {
			return w.b.AAAAResource(w.header(host, cacheFlush), dnsmessage.AAAAResource{AAAA: [16]byte(ip.IP.To16())})
		})
	}
}
