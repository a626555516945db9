//go:build engine && linux

package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"

	"deckhand/engine"
	"deckhand/logs"
	"deckhand/state"
)

// Lines of a real engine come once each, over drivers, terminals and resumptions.
func TestLogsOfARealEngine(t *testing.T) {
	e := open(t, nil)
	for _, driver := range []string{"json-file", "local"} {
		for _, tty := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s tty=%v", driver, tty), func(t *testing.T) { readPrinted(t, e, driver, tty) })
		}
	}
	if _, err := e.LogState(t.Context(), "never-there"); state.ClassOf(err) != state.ClassNotFound {
		t.Errorf("of no container: %v", err)
	}
}

// printing runs a container that prints, and gives its ID.
func printing(t *testing.T, driver string, tty bool) string {
	t.Helper()
	const program = `echo one; echo two >&2; head -c 20000 /dev/zero | tr '\0' x; echo; printf '\377ab\n'; for i in 1 2 3 4 5; do echo $i; done`
	c, err := docker().Client.ContainerCreate(t.Context(),
		&container.Config{Image: docker().Busybox(t, "logs"), Cmd: []string{"sh", "-c", program}, Tty: tty, Env: []string{"BALENA_LOGS_LEVEL=err"}},
		&container.HostConfig{LogConfig: container.LogConfig{Type: driver}}, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = docker().Client.ContainerRemove(t.Context(), c.ID, container.RemoveOptions{Force: true})
	})
	if err := docker().Client.ContainerStart(t.Context(), c.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	return c.ID
}

func readPrinted(t *testing.T, e *engine.Engine, driver string, tty bool) {
	t.Helper()
	id := printing(t, driver, tty)
	all := readAll(t, e, id, logs.Request{TTY: tty, Follow: true})
	until(t, "end", func() bool { s, err := e.LogState(t.Context(), id); return err == nil && !s.Running })
	s, err := e.LogState(t.Context(), id)
	if err != nil || s.TTY != tty || s.Level != "err" || time.Since(time.Unix(0, s.Run)) > time.Minute {
		t.Errorf("state %+v, %v", s, err)
	}
	texts := make([]string, 0, len(all))
	for _, r := range all {
		texts = append(texts, fmt.Sprintf("%v %s", r.Stderr, logs.Clean(r.Text)))
	}
	slices.Sort(texts) // two outputs are two writers
	want := []string{"false 1", "false 2", "false 3", "false 4", "false 5", "false \uFFFDab", "false one",
		"false " + strings.Repeat("x", 9995) + "[...]", fmt.Sprintf("%v two", !tty)}
	slices.Sort(want)
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Fatal(diff)
	}
	again := readAll(t, e, id, logs.Request{TTY: tty, Since: time.Unix(0, all[4].At)})
	if !slices.ContainsFunc(again, func(r logs.Record) bool { return r.At == all[4].At }) || len(again) > 5 || len(again) < 4 {
		t.Errorf("%d lines from the fifth of %d on", len(again), len(all))
	}
	var last, end []string
	for _, r := range all[len(all)-2:] { // two outputs end in any order
		end = append(end, logs.Clean(r.Text))
	}
	err = e.ReadExcerpt(t.Context(), id, engine.Excerpt{Last: 2}, func(r logs.Record) error {
		last = append(last, logs.Clean(r.Text))
		return nil
	})
	if diff := cmp.Diff(end, last); diff != "" || err != nil {
		t.Errorf("the last two: %v %s", err, diff)
	}
}

func readAll(t *testing.T, e *engine.Engine, id string, r logs.Request) (all []logs.Record) {
	t.Helper()
	err := e.ReadLog(t.Context(), id, r, func(x logs.Record) error {
		x.Text = slices.Clone(x.Text)
		all = append(all, x)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
