//go:build linux

package system

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// stopTimeout is how long a program may take to end after SIGTERM.
const stopTimeout = 30 * time.Second

// Process is a running program.
type Process struct {
	PID  int
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

// Run starts a program in the calling process's environment plus env. It dies
// with the calling process, however that ends.
func Run(out io.Writer, env []string, program string, args ...string) (*Process, error) {
	return RunWith(nil, out, env, program, args...)
}

// RunWith is Run for a program that reads; nil: it has nothing to read.
func RunWith(in *os.File, out io.Writer, env []string, program string, args ...string) (*Process, error) {
	cmd := exec.Command(program, args...)
	if in != nil { // a nil file in an interface would not be nil
		cmd.Stdin = in
	}
	cmd.Env = append(cmd.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	p := &Process{name: filepath.Base(program), cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the death signal belongs to the thread
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its code is asked for with ExitCode
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.PID = cmd.Process.Pid
	return p, nil
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the program has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode is how the program ended; -1 while it runs and after a signal.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the program at once, as a power cut would.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks the program to end and waits for it.
func (p *Process) Stop() error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.Kill()
		return fmt.Errorf("stop %s: still there %v after SIGTERM, killed", p.name, stopTimeout)
	}
	if code := p.ExitCode(); code != 0 {
		return fmt.Errorf("stop %s: exit code %d after SIGTERM", p.name, code)
	}
	return nil
}

// Signal sends a signal and does not wait; to a program that has ended it does
// nothing. A follower of the program's log may call it, but not Kill or Stop:
// they wait for the end of the log.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }
