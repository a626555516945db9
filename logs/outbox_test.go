package logs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/logs"
)

func open(dir string, l logs.Limits) *logs.Outbox {
	return logs.OpenOutbox(logs.OutboxConfig{Dir: dir, Limits: l, Log: zerolog.Nop()})
}

// writer writes numbered lines of one source, as a reader does.
type writer struct {
	b    *logs.Outbox
	name string
	n    int
	at   time.Time // of its lines; zero: now
}

func (w *writer) write(t *testing.T, lines int) {
	t.Helper()
	for range lines {
		if !w.try(t.Context()) {
			t.Fatal("a line was not taken")
		}
	}
}

func (w *writer) try(ctx context.Context) bool {
	at := w.at
	if at.IsZero() {
		at = time.Now()
	}
	l := logs.Line{Message: fmt.Sprintf("%s %d", w.name, w.n), At: at.UnixMilli(), Service: w.name, ServiceID: 7}
	if !w.b.Put(ctx, w.name, l, logs.Cursor{At: int64(w.n + 1), Count: 1, Pos: int64(w.n + 1)}) {
		return false
	}
	w.n++
	return true
}

// drain takes and settles all lines.
func drain(s *logs.Session) (messages []string) {
	for {
		next := s.Next()
		if len(next) == 0 {
			return messages
		}
		for _, p := range next {
			messages = append(messages, p.Message)
		}
		s.Settle(len(next))
	}
}

func numbers(name string, from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("%s %d", name, i))
	}
	return out
}

func TestLinesThatWereNotSettledAreSentAgainInOrder(t *testing.T) {
	b := open("", logs.Limits{})
	w := writer{b: b, name: "web"}
	w.write(t, 10)
	first := b.Open()
	if got := len(first.Next()); got != 10 {
		t.Fatalf("%d lines were handed out", got)
	}
	first.Settle(4)
	if c, ok := b.Resume("web"); !ok || c.Pos != 4 {
		t.Errorf("safe up to %+v", c)
	}
	second := b.Open()
	first.Settle(6) // too late: it is another connection's business now
	w.write(t, 2)
	if diff := cmp.Diff(numbers("web", 4, 12), drain(second)); diff != "" {
		t.Error(diff)
	}
	if c, _ := b.Resume("web"); c.Pos != 12 {
		t.Errorf("safe up to %+v at the end", c)
	}
	if memory, _ := b.Size(); memory != 0 {
		t.Errorf("%d bytes are left", memory)
	}
}

func TestANoisySourceDoesNotDelayTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open("", logs.Limits{Source: 100_000})
		noisy, quiet := writer{b: b, name: "noisy"}, writer{b: b, name: "quiet"}
		s := b.Open()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for noisy.try(ctx) { // it waits for room
				continue
			}
		}()
		synctest.Wait()
		quiet.write(t, 3)
		if diff := cmp.Diff(numbers("quiet", 0, 3), only("quiet", s.Next())); diff != "" {
			t.Error(diff)
		}
		cancel()
		synctest.Wait()
	})
}

func only(source string, all []logs.Parcel) (messages []string) {
	for _, p := range all {
		if p.Source == source {
			messages = append(messages, p.Message)
		}
	}
	return messages
}

func TestAnOutageIsWaitedForThenOnTheDiskThenCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := open(dir, logs.Limits{Source: 20_000, Disk: 8_000, Grace: 10 * time.Second})
		w, quiet := writer{b: b, name: "noisy"}, writer{b: b, name: "quiet"}
		quiet.write(t, 5)
		began := time.Now()
		w.write(t, 200)
		if waited := time.Since(began); waited < 9*time.Second || waited > 12*time.Second {
			t.Errorf("the reader was held up for %s", waited)
		}
		if _, disk := b.Size(); disk == 0 {
			t.Error("nothing is on the disk")
		}
		w.write(t, 4800)
		memory, disk := b.Size()
		if memory > 45_000 || disk > 9_000 {
			t.Errorf("%d bytes in memory, %d on the disk", memory, disk)
		}
		got := drain(b.Open())
		if diff := cmp.Diff(numbers("quiet", 0, 5), keep(got, "quiet ")); diff != "" {
			t.Errorf("of the quiet one: %s", diff)
		}
		account(t, got, "noisy", 5000)
		if len(keep(got, "noisy ")) < 100 {
			t.Errorf("only %d lines are left", len(keep(got, "noisy ")))
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%d files are left", len(left))
		}
	})
}

func keep(all []string, prefix string) (out []string) {
	for _, m := range all {
		if strings.HasPrefix(m, prefix) {
			out = append(out, m)
		}
	}
	return out
}

// account checks that each line of a source is there once and in order, or is
// counted by the mark in its place.
func account(t *testing.T, all []string, name string, total int) (suppressed int) {
	t.Helper()
	next := 0
	for _, m := range all {
		var n, number int
		if _, err := fmt.Sscanf(m, "Warning: Suppressed %d message(s) due to high load", &n); err == nil && strings.Contains(m, " of "+name+" ") {
			next += n
			suppressed += n
			continue
		}
		if _, err := fmt.Sscanf(m, name+" %d", &number); err != nil {
			continue
		}
		if number != next {
			t.Fatalf("line %d of %s came where %d was due", number, name, next)
		}
		next++
	}
	if next != total {
		t.Errorf("%d of %d lines of %s are accounted for", next, total, name)
	}
	return suppressed
}

func TestWhatWaitsOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := open(dir, logs.Limits{Source: 20_000, Grace: time.Second})
		w := writer{b: b, name: "web"}
		w.write(t, 450)
		s := b.Open()
		s.Settle(len(s.Next())) // some of what was read back from the disk
		taken := s.Flying()
		b.Close()
		c, ok := b.Resume("web")
		if !ok || c.Pos != 450 {
			t.Errorf("a reader would go on behind %+v", c)
		}

		again := open(dir, logs.Limits{})
		if c, ok = again.Resume("web"); !ok || c.Pos != 450 {
			t.Errorf("after a restart a reader would go on behind %+v", c)
		}
		w.b = again
		w.write(t, 10)
		got := drain(again.Open())
		if len(got) == 0 || len(got) >= 460 {
			t.Fatalf("%d lines came, %d were on their way", len(got), taken)
		}
		if diff := cmp.Diff(numbers("web", 460-len(got), 460), got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDamagedFilesAreCountedNotFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := open(dir, logs.Limits{})
		w := writer{b: b, name: "web"}
		w.write(t, 100)
		b.Close()
		damage(t, dir)
		got := drain(open(dir, logs.Limits{}).Open())
		if n := account(t, got, "web", 100); n != 100 || len(got) != 1 {
			t.Errorf("got %q", got)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%d files are left", len(left))
		}
	})
}

// damage spoils the one file in a folder, and puts others beside it.
func damage(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-20] ^= 0xff
	for name, b := range map[string][]byte{files[0]: content, filepath.Join(dir, "00000000000fffff.log"): []byte("no head"), filepath.Join(dir, "x.new"): nil} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASourceThatStaysBehindLosesItsOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open("", logs.Limits{Source: 20_000, Window: 1000, Behind: 5 * time.Second})
		w := writer{b: b, name: "web", at: time.Now()}
		s := b.Open()
		first := s.Next() // nothing yet
		w.write(t, 90)
		first = append(first, s.Next()...)
		began := time.Now()
		w.write(t, 500)
		if held := time.Since(began); held < 5*time.Second || held > 8*time.Second {
			t.Errorf("held up for %s", held)
		}
		s.Settle(len(first))
		var got []string
		for _, p := range first {
			got = append(got, p.Message)
		}
		got = append(got, drain(s)...)
		if n := account(t, got, "web", 590); n == 0 {
			t.Error("nothing was dropped")
		}
	})
}

func TestWhileItIsOffNothingIsForTheCloud(t *testing.T) {
	b := open(t.TempDir(), logs.Limits{})
	w := writer{b: b, name: "web"}
	w.write(t, 3)
	s := b.Open()
	s.Next()
	b.SetOff(true)
	w.write(t, 5)
	if got := s.Next(); s.Alive() || len(got) != 0 || b.Waiting() {
		t.Errorf("handed out %v", got)
	}
	if c, _ := b.Resume("web"); c.Pos != 8 {
		t.Errorf("safe up to %+v", c)
	}
	b.SetOff(false)
	w.write(t, 1)
	if diff := cmp.Diff([]string{"web 0", "web 1", "web 2", "web 8"}, drain(b.Open())); diff != "" {
		t.Error(diff)
	}
	w.write(t, 3)
	b.Discard()
	if got := drain(b.Open()); len(got) != 0 {
		t.Errorf("after all was discarded: %v", got)
	}
	b.Forget(func(string) bool { return true })
	if _, known := b.Resume("web"); known {
		t.Error("a container that is gone is still known")
	}
}

// forgetful is a cloud that stores what it gets and whose answer is lost.
type forgetful struct {
	last int64
	got  []string
}

func (c *forgetful) take(all []logs.Parcel) {
	for _, p := range all {
		if p.Pos > c.last {
			c.last = p.Pos
			c.got = append(c.got, p.Message)
		}
	}
}

// What was on its way when a connection broke may have arrived. It is sent again,
// and never counted as dropped.
func TestMarksDoNotCountWhatTheCloudMayHave(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for _, dir := range []string{"", t.TempDir()} {
			synctest.Test(t, func(t *testing.T) { lostAnswers(t, dir, restart && dir != "") })
		}
	}
}

func lostAnswers(t *testing.T, dir string, restart bool) {
	t.Helper()
	limits := logs.Limits{Source: 20_000, Disk: 6_000, Grace: time.Second}
	b := open(dir, limits)
	w := writer{b: b, name: "web"}
	var c forgetful
	for round := range 3 {
		w.write(t, 80)
		s := b.Open()
		c.take(s.Next())
		s.Close()
		w.write(t, 2000)
		if restart && round == 1 {
			b.Close()
			b = open(dir, limits)
			w.b = b
		}
	}
	s := b.Open()
	for next := s.Next(); len(next) > 0; next = s.Next() {
		c.take(next)
		s.Settle(len(next))
	}
	if account(t, c.got, "web", w.n) == 0 {
		t.Error("nothing was dropped")
	}
	if memory, disk := b.Size(); memory != 0 || disk != 0 {
		t.Errorf("%d bytes are left in memory, %d on the disk", memory, disk)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); dir != "" && len(left) != 0 {
		t.Errorf("%v are left", left)
	}
}
