package supervisor

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// statusEvery is how often systemd is told what the supervisor does, without a
// watchdog.
const statusEvery = time.Minute

// notify tells systemd something, if it started us and wants to know. What cannot
// be told is not told: systemd then does what it does for a program that is silent.
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte(state))
}

// watchdogPeriod is how long systemd waits for a sign of life; 0: it does not.
func watchdogPeriod() time.Duration {
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || us <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

// watchdog tells systemd that the supervisor is up, what it does, and that its loop
// is alive, until ctx ends. A loop that is not gets no sign of life, and systemd
// starts the supervisor anew; an engine or a cloud that is away is no reason.
func (s *Supervisor) watchdog(ctx context.Context) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	notify("READY=1")
	defer notify("STOPPING=1\nSTATUS=stopping; containers go on")
	every := statusEvery
	if period := watchdogPeriod(); period > 0 {
		every = min(every, period/3)
	}
	for {
		sign := "STATUS=" + view(s.runner.Status()).State
		if since := s.runner.Pulse().Stalled(time.Now(), loopPatience); since.IsZero() {
			sign += "\nWATCHDOG=1"
		} else {
			sign += "; the loop has stalled"
		}
		notify(sign)
		if !pause(ctx, every) {
			return
		}
	}
}
