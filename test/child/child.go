//go:build linux

// Package child starts programs that end with the test process, however that ends.
package child

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a program that gets the signal when this process dies. How it ended comes
// once.
func Start(cmd *exec.Cmd, signal syscall.Signal) (ended <-chan error, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = signal
	started, end := make(chan error, 1), make(chan error, 1)
	go func() {
		// The signal comes when the thread that started the program ends.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			end <- cmd.Wait()
		}
	}()
	return end, <-started
}
