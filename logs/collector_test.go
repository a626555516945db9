package logs_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/logs"
	"deckhand/state"
)

// fakeEngine keeps logs of containers in memory.
type fakeEngine struct {
	mu         sync.Mutex
	containers map[string]*fakeContainer
	changed    chan struct{}
	broken     bool // follows break off
	reads      int
}

type fakeContainer struct {
	state   logs.Container
	records []logs.Record
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{containers: map[string]*fakeContainer{}, changed: make(chan struct{})}
}

func (f *fakeEngine) edit(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// start begins a run of a container.
func (f *fakeEngine) start(id string) {
	f.edit(func() {
		c := f.containers[id]
		if c == nil {
			c = &fakeContainer{}
			f.containers[id] = c
		}
		c.state.Running, c.state.Run = true, time.Now().UnixNano()
	})
}

func (f *fakeEngine) stop(id string)   { f.edit(func() { f.containers[id].state.Running = false }) }
func (f *fakeEngine) remove(id string) { f.edit(func() { delete(f.containers, id) }) }

func (f *fakeEngine) print(id string, lines ...string) {
	f.edit(func() {
		for _, l := range lines {
			f.containers[id].records = append(f.containers[id].records, logs.Record{At: time.Now().UnixNano(), Text: []byte(l + "\n"), Stderr: l[0] == '!'})
		}
	})
}

func (f *fakeEngine) LogState(_ context.Context, id string) (logs.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	if c == nil {
		return logs.Container{}, state.Classify(state.ClassNotFound, errors.New("no such container"))
	}
	return c.state, nil
}

func (f *fakeEngine) Ready(context.Context) error { return nil }

func (f *fakeEngine) ReadLog(ctx context.Context, id string, r logs.Request, take func(logs.Record) error) error {
	f.edit(func() { f.reads++ })
	for next := 0; ; {
		f.mu.Lock()
		c, changed, broken := f.containers[id], f.changed, f.broken
		if c == nil {
			f.mu.Unlock()
			return nil
		}
		records, running := c.records[next:], c.state.Running
		next = len(c.records)
		f.mu.Unlock()
		for _, x := range records {
			if x.At < r.Since.UnixNano() && !r.Since.IsZero() {
				continue
			}
			if err := take(x); err != nil {
				return err
			}
		}
		switch {
		case broken:
			return state.Classify(state.ClassEngine, errors.New("connection reset"))
		case !r.Follow || !running:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// memory is a store of cursors.
type memory struct {
	mu    sync.Mutex
	all   map[string]logs.Cursor
	saves int
}

func (m *memory) All() (map[string]logs.Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]logs.Cursor{}
	for k, v := range m.all {
		out[k] = v
	}
	return out, nil
}

func (m *memory) Save(moved map[string]logs.Cursor, gone []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string]logs.Cursor{}
	}
	for k, v := range moved {
		m.all[k] = v
	}
	for _, k := range gone {
		delete(m.all, k)
	}
	m.saves++
	return nil
}

// rig is a collector with all around it.
type rig struct {
	engine  *fakeEngine
	cursors *memory
	outbox  *logs.Outbox
	*logs.Collector
	stop func()
}

func collect(t *testing.T, e *fakeEngine, m *memory, dir string) rig {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := rig{engine: e, cursors: m, outbox: open(dir, logs.Limits{})}
	r.Collector = logs.NewCollector(logs.CollectorConfig{Engine: e, Cursors: m, Outbox: r.outbox, Log: zerolog.Nop()})
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); <-done; r.outbox.Close(); r.Save() })
	t.Cleanup(r.stop)
	return r
}

func source(id string) logs.Source {
	return logs.Source{Container: id, Service: id, ServiceID: 1, Up: true}
}

func TestReadersGoOnWhereTheLastOneEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, m, e := t.TempDir(), &memory{}, newFakeEngine()
		e.start("a")
		e.print("a", "before logs were ever read")
		<-time.After(time.Hour)
		r := collect(t, e, m, dir)
		r.Sync([]logs.Source{source("a")})
		<-time.After(time.Second)
		e.print("a", "1", "2", "3") // with one and the same time
		synctest.Wait()
		s := r.outbox.Open()
		next := s.Next()
		s.Settle(2)
		r.stop()

		e.print("a", "4")
		again := collect(t, e, m, dir)
		again.Sync([]logs.Source{source("a")})
		e.print("a", "5")
		synctest.Wait()
		got := append([]string{next[0].Message, next[1].Message}, drain(again.outbox.Open())...)
		if diff := cmp.Diff([]string{"1", "2", "3", "4", "5"}, got); diff != "" {
			t.Error(diff)
		}
		again.stop()
	})
}

func TestAfterACrashLinesHaveTheSamePositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine()
		began := memory{all: map[string]logs.Cursor{"begin": {At: time.Now().UnixNano()}}}
		e.start("a")
		e.print("a", "1", "2")
		<-time.After(time.Second)
		e.print("a", "3", "4")
		read := func() (marks []string) {
			r := collect(t, e, &memory{all: began.all}, "")
			r.Sync([]logs.Source{source("a")})
			synctest.Wait()
			for _, p := range r.outbox.Open().Next() {
				marks = append(marks, p.Mark())
			}
			return marks
		}
		first := read()
		if diff := cmp.Diff(first, read()); diff != "" || len(first) != 4 {
			t.Errorf("%d marks; %s", len(first), diff)
		}
	})
}

func TestShortLivesAreReadToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine()
		r := collect(t, e, &memory{}, "")
		var all []logs.Source
		for i := range 20 {
			id := fmt.Sprint("c", i)
			e.start(id)
			e.print(id, "hello from "+id)
			e.stop(id)
			all = append(all, source(id))
		}
		r.Sync(all)
		for i := range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			id := fmt.Sprint("c", i)
			synctest.Wait()
			r.Finish(ctx, id)
			if ctx.Err() != nil {
				t.Error("nobody said that it is read")
			}
			cancel()
			e.remove(id)
		}
		if got := drain(r.outbox.Open()); len(got) != 20 {
			t.Errorf("%d lines of 20: %v", len(got), got)
		}
		r.Sync(nil)
		r.stop()
		if left, _ := r.cursors.All(); len(left) != 1 {
			t.Errorf("cursors of containers that are gone: %v", left)
		}
	})
}

func TestARestartedContainerIsReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine()
		r := collect(t, e, &memory{}, "")
		e.start("a")
		r.Sync([]logs.Source{source("a")})
		e.print("a", "first run")
		<-time.After(time.Second)
		e.stop("a")
		<-time.After(time.Minute)
		e.start("a")
		e.print("a", "second run")
		e.stop("a") // before anybody looked
		r.Started("a")
		synctest.Wait()
		e.edit(func() { e.broken = true })
		e.start("a")
		e.print("a", "third run")
		r.Started("")
		<-time.After(10 * time.Second)
		e.edit(func() { e.broken = false })
		e.print("a", "after a break")
		<-time.After(time.Minute)
		if diff := cmp.Diff([]string{"first run", "second run", "third run", "after a break"}, drain(r.outbox.Open())); diff != "" {
			t.Error(diff)
		}
		reads := e.reads
		<-time.After(time.Hour)
		if e.reads != reads {
			t.Errorf("%d reads while nothing happened", e.reads-reads)
		}
		r.stop()
	})
}

func TestLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine()
		r := collect(t, e, &memory{}, "")
		var all []logs.Source
		for id, level := range map[string]string{"all": "debug", "err": "ERROR", "no": "none"} {
			e.start(id)
			e.edit(func() { e.containers[id].state.Level = level })
			e.print(id, id, "!"+id)
			all = append(all, source(id))
		}
		r.Sync(all)
		synctest.Wait()
		got := map[string]bool{}
		for _, m := range drain(r.outbox.Open()) {
			got[m] = true
		}
		if diff := cmp.Diff(map[string]bool{"all": true, "!all": true, "!err": true}, got); diff != "" {
			t.Error(diff)
		}
		r.stop()
	})
}

func TestCursorsAreWrittenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, m := newFakeEngine(), &memory{}
		r := collect(t, e, m, "")
		e.start("a")
		r.Sync([]logs.Source{source("a")})
		s := r.outbox.Open()
		for range 600 {
			e.print("a", "x")
			synctest.Wait()
			drain(s)
			<-time.After(100 * time.Millisecond)
		}
		if m.saves > 4 || m.all["a"].Pos == 0 {
			t.Errorf("%d writes in a minute; %+v", m.saves, m.all)
		}
		r.stop()
	})
}

func TestAClockThatWasSetBackLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine()
		ahead := time.Now().Add(time.Hour).UnixNano()
		m := &memory{all: map[string]logs.Cursor{"begin": {At: 1}, "a": {Run: ahead - 10, At: ahead, Count: 1, Pos: ahead}}}
		e.start("a") // after a reboot, by a clock that is an hour behind
		e.print("a", "boot")
		r := collect(t, e, m, "")
		r.Sync([]logs.Source{source("a")})
		synctest.Wait()
		next := r.outbox.Open().Next()
		if len(next) != 1 || next[0].Message != "boot" || next[0].Pos <= ahead {
			t.Errorf("got %+v", next)
		}
		r.stop()
	})
}

func TestTheSupervisorsOwnLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stream logs.Stream
		b := open("", logs.Limits{})
		j := logs.NewJournal(b, &stream)
		l := stream.Listen()
		ctx, cancel := context.WithCancel(t.Context())
		go j.Run(ctx)
		j.Say(logs.Line{Message: "Supervisor starting"})
		j.Say(logs.Line{Message: "Killing service 'web'", Stderr: true})
		synctest.Wait()
		next := b.Open().Next()
		if len(next) != 2 || !next[0].System || next[0].Message != "Supervisor starting" || next[1].Pos <= next[0].Pos || !next[1].Stderr {
			t.Errorf("got %+v", next)
		}
		heard, err := l.Read(ctx)
		if err != nil || len(heard) != 2 {
			t.Errorf("heard %v, %v", heard, err)
		}
		cancel()
		synctest.Wait()
	})
}

// A run may begin between the look at a container and the reading of its log.
func TestARunThatBeginsWhileItsLogIsReadIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine()
		run := time.Now().UnixNano()
		m := &memory{all: map[string]logs.Cursor{"begin": {At: 1}, "a": {Run: 0, At: run + 5, Count: 2, Pos: run + 6}}}
		e.start("a")
		e.edit(func() {
			for _, at := range []int64{run + 1, run + 5, run + 5, run + 5, run + 7} {
				e.containers["a"].records = append(e.containers["a"].records, logs.Record{At: at, Text: []byte(fmt.Sprint(at - run))})
			}
		})
		r := collect(t, e, m, "")
		r.Sync([]logs.Source{source("a")})
		synctest.Wait()
		if diff := cmp.Diff([]string{"5", "7"}, drain(r.outbox.Open())); diff != "" {
			t.Error(diff)
		}
		r.stop()
	})
}
