package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

const (
	askAgain  = time.Second            // a question may get lost
	askAtMost = 3 * time.Second        // then nobody has the name
	askMore   = 200 * time.Millisecond // what else comes after the first answer
)

// IsLocal reports whether a name is one that the network itself resolves.
func IsLocal(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return strings.HasSuffix(host, "."+strings.TrimSuffix(domain, ".")) && len(host) > len(domain)
}

// Lookup asks the device's networks who has a name that ends in .local. It fails
// with a *net.DNSError when nobody says so within some seconds.
func Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	list, err := Config{}.networks()
	if err != nil {
		return nil, err
	}
	return lookup(ctx, list, host)
}

func lookup(ctx context.Context, list []net.Interface, host string) ([]netip.Addr, error) {
	none := &net.DNSError{Err: "nobody in the network has the name", Name: host, IsNotFound: true}
	question, err := questionAbout(host)
	if err != nil {
		none.Err = err.Error()
		return nil, none
	}
	ctx, cancel := context.WithTimeout(ctx, askAtMost)
	defer cancel()
	found, asked := make(chan netip.Addr), 0
	var all sync.WaitGroup
	for _, i := range list {
		for _, g := range groups {
			a, err := newAsker(i, g)
			if err != nil {
				continue // the family or the interface is not in use
			}
			asked++
			all.Go(func() { a.ask(ctx, question, host, found) })
		}
	}
	go func() { all.Wait(); close(found) }()
	var out []netip.Addr
	for addr := range found {
		if len(out) == 0 {
			time.AfterFunc(askMore, cancel)
		}
		out = append(out, addr)
	}
	if len(out) == 0 {
		if asked == 0 {
			none.Err = "there is no network to ask in"
		}
		return nil, none
	}
	return unique(out), nil
}

func unique(all []netip.Addr) (out []netip.Addr) {
	seen := map[netip.Addr]bool{}
	for _, a := range all {
		if !seen[a] {
			out = append(out, a)
		}
		seen[a] = true
	}
	return out
}

func questionAbout(host string) ([]byte, error) {
	name, err := dnsmessage.NewName(strings.TrimSuffix(host, ".") + ".")
	if err != nil {
		return nil, err
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		if err := b.Question(dnsmessage.Question{Name: name, Type: kind, Class: dnsmessage.ClassINET | unicast}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// asker asks in one network over one family of addresses.
type asker struct {
	conn  *net.UDPConn
	iface net.Interface
	group netip.AddrPort
}

func newAsker(i net.Interface, g netip.AddrPort) (asker, error) {
	network := "udp4"
	if g.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return asker{}, err
	}
	if err := errors.Join(tune(conn, g.Addr().Is6()), through(conn, i, g.Addr().Is6())); err != nil {
		_ = conn.Close()
		return asker{}, fmt.Errorf("ask on %s: %w", i.Name, err)
	}
	return asker{conn, i, g}, nil
}

// through sends to a group by an interface, whatever the routes say.
func through(conn *net.UDPConn, i net.Interface, six bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if six {
			failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, i.Index))
			return
		}
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(i.Index)}))
	})
	return errors.Join(err, failed)
}

// ask hands over what comes until ctx ends.
func (a asker) ask(ctx context.Context, question []byte, host string, found chan<- netip.Addr) {
	stop := context.AfterFunc(ctx, func() { _ = a.conn.Close() })
	defer stop()
	defer func() { _ = a.conn.Close() }()
	buf := make([]byte, mostBytes)
	for ctx.Err() == nil {
		if _, err := a.conn.WriteToUDPAddrPort(question, a.group); err != nil {
			return
		}
		_ = a.conn.SetReadDeadline(time.Now().Add(askAgain))
		for {
			n, from, err := a.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break // ask again, or the end
			}
			if from.Port() == a.group.Port() { // else it is no responder
				a.tell(ctx, addressesIn(buf[:n], host), found)
			}
		}
	}
}

func (a asker) tell(ctx context.Context, all []netip.Addr, found chan<- netip.Addr) {
	for _, addr := range all {
		if addr.Is6() && addr.IsLinkLocalUnicast() {
			addr = addr.WithZone(a.iface.Name)
		}
		select {
		case found <- addr:
		case <-ctx.Done():
			return
		}
	}
}

// addressesIn are the addresses that an answer gives for a name. Of the other kinds
// of records nothing is read: that would link a reader for each.
func addressesIn(packet []byte, host string) (out []netip.Addr) {
	var p dnsmessage.Parser
	h, err := p.Start(packet)
	if err != nil || !h.Response || p.SkipAllQuestions() != nil {
		return nil
	}
	out = addressesOf(p.AnswerHeader, p.SkipAnswer, &p, host)
	if p.SkipAllAuthorities() != nil { // also when an answer could not be read
		return out
	}
	return append(out, addressesOf(p.AdditionalHeader, p.SkipAdditional, &p, host)...)
}

// addressesOf reads one section of an answer.
func addressesOf(next func() (dnsmessage.ResourceHeader, error), skip func() error, p *dnsmessage.Parser, host string) (out []netip.Addr) {
	for {
		h, err := next()
		if err != nil {
			return out // the end of the section, or nothing that can be read
		}
		addr, err := address(h, skip, p)
		if err != nil {
			return out
		}
		if addr.IsValid() && h.TTL > 0 && strings.EqualFold(strings.TrimSuffix(h.Name.String(), "."), strings.TrimSuffix(host, ".")) {
			out = append(out, addr)
		}
	}
}

// address reads one record; the zero address: it has none.
func address(h dnsmessage.ResourceHeader, skip func() error, p *dnsmessage.Parser) (netip.Addr, error) {
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A), err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA).Unmap(), err
	default:
		return netip.Addr{}, skip()
	}
}
