// Command demo runs the main job of deckhand on a real engine and tells what
// happens: a cloud starts, an owner pushes a project, a device runs it, a second
// release follows, waits for an update lock, and moves each service by its own
// strategy without a lost request. Afterwards the machine is as it was. "make
// demo" builds what it needs and starts it in the project's folder.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	runtime.LockOSThread() // what we start ends with this thread, see stage.spawn
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	begin := time.Now()
	s, err := openStage(ctx)
	if ctx.Err() != nil && s == nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		title("The end: everything is stopped and the machine is as it was")
		if ctx.Err() != nil {
			err = nil // who presses Ctrl-C wants an end, not an error
		}
		err = errors.Join(err, s.close())
		if err == nil {
			say("done in %s", time.Since(begin).Round(time.Second))
		}
	}()
	acts := []func(context.Context, *stage) error{startCloud, firstPush, startDevice, firstRelease, preview, secondRelease, reasons, lookBack}
	for _, act := range acts {
		if err := act(ctx, s); err != nil {
			return err
		}
	}
	return linger(ctx, s)
}

func title(format string, a ...any) { fmt.Printf("\n== "+format+"\n\n", a...) }

func say(format string, a ...any) {
	fmt.Println(strings.TrimRight(fmt.Sprintf("   "+format, a...), " "))
}

// linger keeps everything up on a terminal, for people to try things.
func linger(ctx context.Context, s *stage) error {
	if !term.IsTerminal(int(os.Stdout.Fd())) {
		return nil
	}
	title("Everything stays up until Ctrl-C")
	say("the cloud's page    %s   (user %s, password %s)", s.api, s.user, s.password)
	say("the example         %s/", front)
	say("")
	say("to try next, as root in another terminal in this folder:")
	here := filepath.Dir(filepath.Dir(s.dir))
	for _, v := range []string{"XDG_CONFIG_HOME=" + s.path("owner"), "DECKHAND_DATA_DIR=" + s.path("device"), "DOCKER_HOST=" + s.engineHost} {
		say("  export %s", strings.ReplaceAll(v, here+"/", "$PWD/"))
	}
	say("  bin/deckhand status                                 # or plan, explain worker")
	say("  bin/deckhand restart hello/web                      # is a hand-over, too")
	say("  docker rm -f $(docker ps -q --filter name=worker_)  # the supervisor repairs it")
	say("  curl -X POST '%s/work?for=1m'    # a lock that the next one waits for", front)
	say("  bin/deckctl push hello examples/hello               # back to the first release")
	<-ctx.Done()
	fmt.Println()
	return nil
}
