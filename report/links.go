package report

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
)

// WatchAddresses calls changed whenever an interface of this host may have got or
// lost an address, until ctx ends. It costs nothing in between. The kernel tells
// it; an error means that it does not, and that somebody has to look now and then.
func WatchAddresses(ctx context.Context, changed func()) error {
	const (
		groupIPv4 = 0x10  // RTMGRP_IPV4_IFADDR
		groupIPv6 = 0x100 // RTMGRP_IPV6_IFADDR
	)
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watch addresses: %w", os.NewSyscallError("socket", err))
	}
	// The runtime waits for it, and a close ends the wait.
	f := os.NewFile(uintptr(fd), "netlink")
	defer func() { _ = f.Close() }()
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: groupIPv4 | groupIPv6}); err != nil {
		return fmt.Errorf("watch addresses: %w", os.NewSyscallError("bind", err))
	}
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	buffer := make([]byte, 16<<10)
	for {
		n, err := f.Read(buffer) // what changed is looked up; too many messages at once are one as well
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return fmt.Errorf("watch addresses: %w", err)
		}
		if err != nil || tells(buffer[:n]) {
			changed()
		}
	}
}

// tells reports whether messages of the kernel may be about an address that counts.
// Each start and stop of a container makes and removes a link-local IPv6 address.
func tells(b []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	return err != nil || slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
		if len(m.Data) < syscall.SizeofIfAddrmsg {
			return true
		}
		family, scope := m.Data[0], m.Data[3] // of struct ifaddrmsg
		return family != syscall.AF_INET6 || scope != syscall.RT_SCOPE_LINK
	})
}
