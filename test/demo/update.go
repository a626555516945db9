package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// secondRelease changes three of the four services, each by its own strategy,
// with an update lock in the way and somebody who visits the page all the time.
func secondRelease(ctx context.Context, s *stage) error {
	title("Worker has something to do that must not be interrupted: it takes its update lock")
	if err := s.curl(ctx, http.MethodPost, "/work?for=10m"); err != nil {
		return err
	}
	downtime, err := s.watchDowntime()
	if err != nil {
		return err
	}
	defer downtime.cancel()
	visits := startVisitor(ctx, s.supervisor.first)
	defer visits.stop()

	for _, act := range []func(context.Context, *stage) error{secondPush, blocked, released} {
		if err := act(ctx, s); err != nil {
			return err
		}
	}
	if err := s.curl(ctx, http.MethodGet, "/"); err != nil {
		return err
	}
	fmt.Println()
	lost := visits.print()
	fmt.Println()
	target, err := s.target(ctx)
	if err != nil {
		return err
	}
	strategies, err := strategiesOf(target)
	if err != nil {
		return err
	}
	downtime.print(strategies)
	return lost
}

// strategiesOf reads how each service of a target is updated.
func strategiesOf(target []byte) (map[string]string, error) {
	var devices map[string]struct {
		Apps map[string]struct {
			Releases map[string]struct {
				Services map[string]struct{ Labels map[string]string }
			}
		}
	}
	if err := json.Unmarshal(target, &devices); err != nil {
		return nil, fmt.Errorf("read the target: %w", err)
	}
	out := map[string]string{}
	for _, d := range devices {
		for _, a := range d.Apps {
			for _, r := range a.Releases {
				for name, s := range r.Services {
					out[name] = s.Labels["io.balena.update.strategy"]
				}
			}
		}
	}
	return out, nil
}

func secondPush(ctx context.Context, s *stage) error {
	title("The owner pushes a second release: other images of web, counter and worker")
	return s.deckctl(ctx, "", "push", "hello", ".run/hello-2")
}

func blocked(ctx context.Context, s *stage) error {
	title("The device goes as far as the lock allows: it stops nothing")
	if err := s.supervisor.untilLocked(ctx, s); err != nil {
		return err
	}
	fmt.Println()
	if err := s.deckhand(ctx, all, "plan"); err != nil {
		return err
	}
	fmt.Println()
	return s.deckhand(ctx, 12, "explain", "worker")
}

func released(ctx context.Context, s *stage) error {
	title("Worker is done and gives the lock up: the update goes on")
	if err := s.curl(ctx, http.MethodDelete, "/work"); err != nil {
		return err
	}
	fmt.Println()
	if err := s.supervisor.until(ctx, s, "commit"); err != nil {
		return err
	}
	fmt.Println()
	return nil
}

// reasons asks why the services were restarted.
func reasons(ctx context.Context, s *stage) error {
	title("Why were they restarted?")
	if err := s.deckhand(ctx, 14, "explain", "web"); err != nil {
		return err
	}
	fmt.Println()
	return s.deckhand(ctx, 14, "explain", "worker")
}
