//go:build linux

package dockerd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const slots = 120

// slot is a folder and an address range that one engine uses at a time. The
// claim is a file lock, which ends with the process that holds it.
type slot struct {
	n    int
	dir  string
	lock *os.File
}

// claim takes the first free slot and clears what its last owner left. The slot
// keeps its files in dir, or in a folder of its own; its number is unique on the
// machine all the same, because addresses and bridges go by it.
func claim(dir string) (*slot, error) {
	const longest = 60 // a socket path holds 107 bytes
	base := filepath.Join(os.TempDir(), "deckhand-dockerd")
	if len(base) > longest {
		base = "/tmp/deckhand-dockerd"
	}
	if len(dir) > longest {
		dir = ""
	}
	if err := os.MkdirAll(base, 0o711); err != nil {
		return nil, err
	}
	for n := range slots {
		lock, err := os.OpenFile(filepath.Join(base, strconv.Itoa(n)+".lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			lock.Close()
			continue
		}
		s := &slot{n: n, dir: filepath.Join(base, strconv.Itoa(n)), lock: lock}
		if dir != "" {
			s.dir = dir
		}
		if err := s.prepare(); err != nil {
			lock.Close()
			return nil, err
		}
		return s, nil
	}
	return nil, fmt.Errorf("all %d slots in %s are taken", slots, base)
}

func (s *slot) prepare() error {
	if err := s.clean(); err != nil {
		return err
	}
	if err := os.Mkdir(s.dir, 0o711); err != nil {
		return err
	}
	if err := s.share(); err != nil {
		return err
	}
	return s.firewall("-C", "-I")
}

// share makes the folder a shared mount, as everything is where systemd boots. On
// a private one dockerd binds its data over itself and lets go of that when it
// ends, while a start may still be under way: what this one mounts is then hidden
// below the next dockerd's own bind, and its container can never be removed.
func (s *slot) share() error {
	err := syscall.Mount(s.dir, s.dir, "", syscall.MS_BIND, "")
	if err == nil {
		err = syscall.Mount("", s.dir, "", syscall.MS_SHARED, "")
	}
	if err != nil {
		return fmt.Errorf("share the mount %s: %w", s.dir, err)
	}
	return nil
}

// release gives the slot back, empty.
func (s *slot) release() error {
	defer s.lock.Close()
	return s.clean()
}

// pool is the address range of the slot's networks.
func (s *slot) pool() string { return fmt.Sprintf("10.%d.0.0/16", 64+s.n) }

// firewall runs iptables with the slot's rule, the second action only if the
// first one fails. A machine on which Docker ran once drops forwarded packets,
// also those between two containers of one bridge.
func (s *slot) firewall(first, second string) error {
	rule := func(action string) ([]byte, error) {
		return exec.Command("iptables", "-w", action, "FORWARD", "-s", s.pool(), "-d", s.pool(), "-j", "ACCEPT").CombinedOutput()
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		return nil // nothing filters then
	}
	if _, err := rule(first); err == nil || second == "" {
		return nil
	}
	if out, err := rule(second); err != nil {
		return fmt.Errorf("allow traffic in %s: %w: %s", s.pool(), err, out)
	}
	return nil
}

// clean ends the processes of the slot, unmounts and deletes its folder, its
// bridges and its firewall rule.
func (s *slot) clean() error {
	s.killAll()
	for _, m := range s.mounts() {
		_ = syscall.Unmount(m, syscall.MNT_DETACH)
	}
	s.removeBridges()
	_ = s.firewall("-D", "")
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("clear %s: %w", s.dir, err)
	}
	return nil
}

// killAll ends what is left of an engine: dockerd first, so that it restarts
// nothing, then whatever remains.
func (s *slot) killAll() {
	ids, _ := os.ReadDir(s.path("data/containers"))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		left := s.processes(ids)
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// processes are those of the engine (they name the slot's folder in their
// arguments) and of its containers (in a control group of that name).
func (s *slot) processes(containers []os.DirEntry) []int {
	var out []int
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if s.isEngine(string(args)) {
			out = append(out, pid)
			continue
		}
		group, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cgroup"))
		if len(args) > 0 && slices.ContainsFunc(containers, func(c os.DirEntry) bool {
			return strings.Contains(string(group), "/"+c.Name())
		}) {
			out = append(out, pid)
		}
	}
	return out
}

func (s *slot) isEngine(cmdline string) bool {
	program, args, _ := strings.Cut(cmdline, "\x00")
	switch filepath.Base(program) {
	case "dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v2", "runc":
		return strings.Contains(args, s.dir+"/")
	}
	return false
}

// mounts are the slot's folder and the mount points below it, innermost first.
func (s *slot) mounts() []string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && (f[4] == s.dir || strings.HasPrefix(f[4], s.dir+"/")) {
			out = append(out, f[4])
		}
	}
	slices.Reverse(out)
	return out
}

func (s *slot) removeBridges() {
	_, pool, err := net.ParseCIDR(s.pool())
	if err != nil {
		return
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		addrs, _ := l.Addrs()
		ours := slices.ContainsFunc(addrs, func(a net.Addr) bool {
			ip, _, err := net.ParseCIDR(a.String())
			return err == nil && pool.Contains(ip)
		})
		if ours && strings.HasPrefix(l.Name, "br-") {
			_ = exec.Command("ip", "link", "delete", l.Name).Run()
		}
	}
}
