//go:build engine && interop && linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"deckhand/supervisor"
	"deckhand/test/dockerd"
	"deckhand/test/system"
)

// peers is where balena's own programs are.
const peers = "../interop/node_modules/.bin"

// official is one command of balena's own CLI, while it runs.
type official struct {
	*bench
	command string
	log     *system.Log
	process *system.Process
}

// balena starts a command of balena's own CLI.
func (b *bench) balena(args ...string) *official {
	b.Helper()
	return b.balenaOn(nil, args...)
}

// balenaOn starts it on a machine; nil: this one.
func (b *bench) balenaOn(m *machine, args ...string) *official {
	b.Helper()
	dir, err := filepath.Abs(peers)
	b.must(err)
	if _, err := os.Stat(filepath.Join(dir, "balena")); err != nil {
		b.Fatalf("balena's CLI is not installed, run: make interop-peers (%v)", err)
	}
	o := &official{bench: b, command: "balena " + strings.Join(args, " "), log: system.NewLog(nil)}
	env := []string{
		"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + b.dir, "BALENARC_DATA_DIRECTORY=" + filepath.Join(b.dir, "balena"),
		"BALENARC_NO_SENTRY=1", "BALENARC_NO_ANALYTICS=1", "BALENARC_UNSUPPORTED=1",
		"BALENA_DISABLE_AUTOUPDATE=1", // it would go on in the background, after the test
	}
	command := append([]string{filepath.Join(dir, "balena")}, args...)
	if m != nil {
		command = m.command(command...)
	}
	o.process, err = system.Run(o.log, env, command[0], command[1:]...)
	b.must(err)
	b.Cleanup(func() {
		o.process.Kill()
		b.Logf("$ %s\n%s", o.command, o.log)
	})
	return o
}

// says waits until the command has printed a line with all the parts since a mark.
func (o *official) says(mark int, parts ...string) {
	o.Helper()
	ctx, cancel := o.ctx()
	defer cancel()
	go func() { // waiting for one that has ended is in vain
		select {
		case <-o.process.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err := o.log.Wait(ctx, mark, fmt.Sprintf("%q", parts), func(l system.Line) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l.Text, p) })
	})
	if err != nil {
		o.Fatalf("$ %s: %v", o.command, err)
	}
}

// ends waits for the command's end and gives its code.
func (o *official) ends() int {
	o.Helper()
	o.within("the end of "+o.command, func(context.Context) error {
		if o.process.Running() {
			return fmt.Errorf("it runs")
		}
		return nil
	})
	return o.process.ExitCode()
}

// interrupt is the owner's Ctrl-C.
func (o *official) interrupt() int {
	o.Helper()
	o.process.Signal(syscall.SIGINT)
	return o.ends()
}

// live is the source of a project whose service web prints a text.
func (b *bench) live(text string) map[string][]byte {
	b.Helper()
	b.engine.Busybox(b, "base:latest")
	return map[string][]byte{
		"docker-compose.yml": []byte("version: '2.1'\nservices:\n  web:\n    build: web\n  other:\n    build: other\n"),
		"web/words":          []byte(text + "\n"),
		"web/Dockerfile":     fmt.Appendf(nil, liveDockerfile, dockerd.Idle),
		"other/Dockerfile":   []byte("FROM base:latest\nCMD " + talk + "\n"),
	}
}

// The words become the mark in a stage of their own, as a program is compiled.
const liveDockerfile = `FROM base:latest AS stage
COPY words /words
RUN cp /words /mark
FROM base:latest
COPY --from=stage /mark /mark
CMD ["/bin/sh","-c","cat /mark; %s"]
`

// talk is what a service runs that always has something to say.
const talk = `["/bin/sh","-c","trap 'exit 0' TERM; while :; do echo here is $HOSTNAME; sleep 1 & wait $!; done"]`

// home is an address of this machine that no other test uses.
func home() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.48", 1+pid>>8&0x7f, pid&0xff)
}

// officialBench is a device in local mode at the ports that balena's CLI expects.
func officialBench(t *testing.T) (b *bench, address string) {
	t.Helper()
	address = home()
	b = workbench(t, address+":48484")
	b.openEngine(address + ":2375")
	b.image = "local_web:latest"
	return b, address
}

// An owner pushes with balena's own CLI, changes the source and pushes again.
func TestOfficialPush(t *testing.T) {
	b, address := officialBench(t)
	dir := filepath.Join(b.dir, "source")
	b.write(dir, b.source("first"))
	push := b.balena("push", address, "--source", dir, "--nolive")
	push.says(0, "[web] first")
	first := b.marked("first")
	push.interrupt()
	b.write(dir, b.source("second"))
	if code := b.balena("push", address, "--source", dir, "--nolive", "--detached").ends(); code != 0 {
		t.Errorf("a detached push ended with code %d", code)
	}
	if second := b.marked("second"); second == first {
		t.Error("the container is the old one")
	}
	b.leave()
}

// In a live push the CLI changes files in the containers, behind the
// supervisor's back, and has a service made anew when its Dockerfile changes.
func TestOfficialLivePush(t *testing.T) {
	b, address := officialBench(t)
	dir := filepath.Join(b.dir, "source")
	b.write(dir, b.live("first"))
	push := b.balena("push", address, "--source", dir, "--debug")
	push.says(0, "[web] first")
	push.says(0, "[Live]", "Device state settled")
	first, other := b.marked("first"), b.service("other")

	mark := push.log.Len()
	push.notices(dir, "web/words", []byte("second\n"))
	push.says(mark, "[web] second")
	if second := b.marked("second"); second != first {
		t.Error("the container was replaced, and not changed")
	}

	mark = push.log.Len()
	push.notices(dir, "web/Dockerfile", fmt.Appendf(nil, liveDockerfile, "echo made anew; "+dockerd.Idle))
	push.says(mark, "[web] made anew")
	third := b.marked("second")
	if third == first {
		t.Error("the container is the old one")
	}
	b.same(other, b.service("other"))
	b.status("the device settles", func(v supervisor.View) error {
		if v.State != supervisor.StateSettled {
			return fmt.Errorf("the device is %s", system.Describe(v))
		}
		return nil
	})

	push.interrupt()
	if said := push.log.String(); !strings.Contains(said, "Cleaning up done") {
		t.Error("the session did not clean up")
	}
	b.runs("other", "web")
	if last := b.marked("second"); last != third {
		t.Error("the end of the session replaced the container")
	}
	if list, err := b.engine.Client.ContainerList(t.Context(), container.ListOptions{All: true}); err != nil || len(list) != 2 {
		t.Errorf("%d containers are left, want the two services (%v)", len(list), err)
	}
	b.leave()
}

// notices saves a file until a live push has noticed: it does not say from when on
// it watches.
func (o *official) notices(dir, name string, content []byte) {
	o.Helper()
	mark := o.log.Len()
	ctx, cancel := o.ctx()
	defer cancel()
	for ctx.Err() == nil {
		o.write(dir, map[string][]byte{name: content})
		patience, enough := context.WithTimeout(ctx, 5*time.Second)
		_, err := o.log.Wait(patience, mark, "a change", func(l system.Line) bool {
			return strings.Contains(l.Text, "[Live]") && strings.Contains(l.Text, "Detected")
		})
		enough()
		if err == nil {
			return
		}
	}
	o.Fatalf("$ %s: no change of %s was noticed", o.command, name)
}

// The logs of a device in the owner's network, all of them or a choice.
func TestOfficialLogs(t *testing.T) {
	b, address := officialBench(t)
	dir := filepath.Join(b.dir, "source")
	src := b.live("")
	src["web/Dockerfile"] = src["other/Dockerfile"]
	b.write(dir, src)
	if code := b.balena("push", address, "--source", dir, "--nolive", "--detached").ends(); code != 0 {
		t.Fatalf("the push ended with code %d", code)
	}
	const web, other, system = "[web] here is", "[other] here is", "Started service 'other"
	sessions := []struct {
		flags    []string
		has, not []string
		run      *official
	}{
		{nil, []string{web, other, system}, nil, nil},
		{[]string{"--service", "web"}, []string{web}, []string{other, system}, nil},
		{[]string{"--system"}, []string{system}, []string{web, other}, nil},
		{[]string{"--system", "--service", "other"}, []string{system, other}, []string{web}, nil},
	}
	for i, s := range sessions {
		sessions[i].run = b.balena(append([]string{"device", "logs", address}, s.flags...)...)
		begun := "Streaming logs"
		if slices.Contains(s.not, system) {
			begun = s.has[0]
		}
		sessions[i].run.says(0, begun)
	}
	_, err := b.deckhand("restart", "localapp/other", "--data-dir", b.unit.DataDir)
	b.must(err)
	for _, s := range sessions {
		for _, text := range s.has {
			s.run.says(0, text)
		}
	}
	b.within("lines of web go on", func(context.Context) error { // after all that was to be rejected
		if shown := strings.Count(sessions[1].run.log.String(), web); shown < 5 {
			return fmt.Errorf("%d are shown", shown)
		}
		return nil
	})
	for _, s := range sessions {
		for _, text := range s.not {
			if strings.Contains(s.run.log.String(), text) {
				t.Errorf("%s shows %q", s.run.command, text)
			}
		}
	}
	b.leave()
}

// Two machines in one network: the owner's, and a device that has no cloud. The
// owner finds the device and pushes to what was found.
func TestOfficialDetect(t *testing.T) {
	n := newLAN(t)
	b := &bench{scene: begin(t), image: "local_web:latest"}
	b.programs.Deckhand = n.device.program(b, b.programs.Deckhand)
	b.deviceWith(map[string]any{"deviceType": "generic-amd64", "hostname": "kitchen", "developmentMode": true})
	b.unit.Listen = deviceAddress + ":48484"
	b.boot()
	n.device.do(t, func() { b.openEngine(deviceAddress + ":2375") })
	b.within("the owner finds the device", func(context.Context) error {
		detect := b.balenaOn(&n.owner, "device", "detect", "--json", "--timeout", "2")
		if code := detect.ends(); code != 0 {
			return fmt.Errorf("code %d: %s", code, detect.log)
		}
		var found []struct{ Host, Address string }
		_, list, _ := strings.Cut(detect.log.String(), "results\n") // what comes before is for people
		if err := json.Unmarshal([]byte(list), &found); err != nil {
			return fmt.Errorf("%w: %s", err, detect.log)
		}
		if len(found) != 1 || found[0].Host != "kitchen.local" || found[0].Address != deviceAddress {
			return fmt.Errorf("found %+v", found)
		}
		return nil
	})
	dir := filepath.Join(b.dir, "source")
	b.write(dir, b.live("first"))
	if code := b.balenaOn(&n.owner, "push", deviceAddress, "--source", dir, "--nolive", "--detached").ends(); code != 0 {
		t.Errorf("the push ended with code %d", code)
	}
	b.marked("first")
}

const (
	deviceAddress = "192.168.48.1"
	ownerAddress  = "192.168.48.2"
)

// lan is a network of two machines: each is a network namespace.
type lan struct{ device, owner machine }

// machine is a process that keeps a network namespace.
type machine struct{ keeper *system.Process }

func newLAN(t *testing.T) lan {
	t.Helper()
	n := lan{newMachine(t), newMachine(t)}
	n.device.run(t, "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", strconv.Itoa(n.owner.keeper.PID))
	n.device.up(t, deviceAddress)
	n.owner.up(t, ownerAddress)
	return n
}

func newMachine(t *testing.T) machine {
	t.Helper()
	log := system.NewLog(nil)
	keeper, err := system.Run(log, nil, "unshare", "--net", "sh", "-c", "echo ready; exec sleep 3600")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keeper.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := log.Wait(ctx, 0, "a machine of its own", func(l system.Line) bool { return l.Text == "ready" }); err != nil {
		t.Fatalf("%v: %s", err, log)
	}
	return machine{keeper}
}

func (m machine) up(t *testing.T, address string) {
	t.Helper()
	m.run(t, "ip", "link", "set", "lo", "up")
	m.run(t, "ip", "address", "add", address+"/24", "dev", "lan0")
	m.run(t, "ip", "link", "set", "lan0", "up")
	m.run(t, "ip", "route", "add", "default", "dev", "lan0")
}

// command puts a command onto the machine.
func (m machine) command(args ...string) []string {
	return append([]string{"nsenter", "--net=" + m.namespace(), "--"}, args...)
}

func (m machine) namespace() string { return fmt.Sprintf("/proc/%d/ns/net", m.keeper.PID) }

func (m machine) run(t *testing.T, args ...string) {
	t.Helper()
	all := m.command(args...)
	if out, err := exec.CommandContext(t.Context(), all[0], all[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// do does something on the machine; sockets that it opens stay there.
func (m machine) do(t *testing.T, what func()) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		var ns *os.File
		if ns, err = os.Open(m.namespace()); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			what()
		}
	}()
	<-done
	if err != nil {
		t.Fatalf("enter the device's network: %v", err)
	}
}

// program is one that runs on the machine, which has no Avahi of ours.
func (m machine) program(b *bench, path string) string {
	b.Helper()
	there := filepath.Join(b.dir, filepath.Base(path))
	script := fmt.Sprintf("#!/bin/sh\nexport DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent\nexec %s \"$@\"\n", strings.Join(m.command(path), " "))
	b.must(os.WriteFile(there, []byte(script), 0o755))
	return there
}

// openEngine lets the engine be reached over TCP, as that of a device under
// development is.
func (b *bench) openEngine(addr string) {
	b.Helper()
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.pipe(c)
		}
	}()
}

func (b *bench) pipe(c net.Conn) {
	defer c.Close()
	e, err := net.Dial("unix", strings.TrimPrefix(b.engine.Host, "unix://"))
	if err != nil {
		return
	}
	defer e.Close()
	go func() {
		_, _ = io.Copy(e, c)
		_ = e.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(c, e)
}
