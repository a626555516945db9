// Command demo runs the main job of deckhand on a real engine and tells what
// happens: a cloud starts, an owner pushes a project, a device runs it, a second
// release follows. Afterwards the machine is as it was. "make demo" builds what
// it needs and starts it in the project's folder.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if errors.Is(err, context.Canceled) {
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	begin := time.Now()
	s, err := openStage(ctx)
	if err != nil {
		return err
	}
	defer func() {
		title("The end: everything is stopped and the machine is as it was")
		err = errors.Join(err, s.close())
		if err == nil {
			say("done in %s", time.Since(begin).Round(time.Second))
		}
	}()
	acts := []func(context.Context, *stage) error{startCloud, firstPush, startDevice, firstRelease, preview, secondRelease, lookBack}
	for _, act := range acts {
		if err := act(ctx, s); err != nil {
			return err
		}
	}
	return linger(ctx, s)
}

func title(format string, a ...any) { fmt.Printf("\n== "+format+"\n\n", a...) }
func say(format string, a ...any)   { fmt.Printf("   "+format+"\n", a...) }

// linger keeps everything up on a terminal, for people to try things.
func linger(ctx context.Context, s *stage) error {
	if !term.IsTerminal(int(os.Stdout.Fd())) {
		return nil
	}
	title("Everything stays up until Ctrl-C")
	say("the cloud's page    %s   (user %s, password %s)", s.api, s.user, s.password)
	say("the example         http://127.0.0.1:8090/")
	say("")
	say("to try next, in another terminal:")
	say("  export XDG_CONFIG_HOME=%s DECKHAND_DATA_DIR=%s DOCKER_HOST=%s", s.path("owner"), s.path("device"), s.engineHost)
	say("  bin/deckhand status")
	say("  bin/deckctl device list")
	say("  docker ps                                    # what the engine runs")
	say("  docker rm -f $(docker ps -q --filter name=web_)    # the supervisor repairs it")
	say("  edit examples/hello/docker-compose.yml, then: bin/deckctl push hello examples/hello")
	<-ctx.Done()
	fmt.Println()
	return nil
}
