package logs_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/logs"
)

// tallied is what was counted of a service of no app.
func tallied(t *testing.T, b *logs.Outbox, service string) logs.Tally {
	t.Helper()
	for _, x := range b.Tallies() {
		if x.Service == service {
			return x
		}
	}
	t.Fatalf("nothing was counted of %q: %+v", service, b.Tallies())
	return logs.Tally{}
}

// Each line that came is sent once or dropped once, and the marks in the log say the
// same as the figures, over the disk too.
func TestTalliesAgreeWithTheLog(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := outages(t, open("", logs.Limits{Source: 20_000, Grace: time.Second}))
			if c.Spooled != 0 {
				t.Errorf("%d bytes were written to no disk", c.Spooled)
			}
		})
	})
	t.Run("disk", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := outages(t, open(t.TempDir(), logs.Limits{Source: 20_000, Disk: 8_000, Grace: time.Second}))
			if c.Spooled == 0 {
				t.Error("nothing was written to the disk")
			}
		})
	})
}

func outages(t *testing.T, b *logs.Outbox) logs.Tally {
	t.Helper()
	w := writer{b: b, name: "web"}
	for range 3 {
		w.write(t, 3000)
		b.Open().Close()
	}
	s := b.Open()
	s.Next()
	s.Close() // lines that come twice are sent once
	got := drain(b.Open())
	suppressed, came := account(t, got, "web", 9000), len(keep(got, "web "))
	c := tallied(t, b, "web")
	if c.Read != 9000 || c.Sent != int64(came) || c.Dropped != int64(suppressed) || c.Dropped == 0 {
		t.Errorf("%+v, and %d lines came, %d are marked as dropped", c, came, suppressed)
	}
	if bytes := int64(len("web 0")*10 + len("web 00")*90 + len("web 000")*900 + len("web 0000")*8000); c.Bytes != bytes {
		t.Errorf("%d bytes, want %d", c.Bytes, bytes)
	}
	return c
}

func TestADamagedFileIsTalliedAsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := open(dir, logs.Limits{})
		w := writer{b: b, name: "web"}
		w.write(t, 100)
		b.Close()
		damage(t, dir)
		again := open(dir, logs.Limits{})
		drain(again.Open())
		if diff := cmp.Diff([]logs.Tally{{Service: "web", Dropped: 100}}, again.Tallies()); diff != "" {
			t.Error(diff)
		}
	})
}

// What is for nobody is read all the same.
func TestTalliesWhileItIsOff(t *testing.T) {
	b := open("", logs.Limits{})
	b.SetOff(true)
	w := writer{b: b, name: "web"}
	w.write(t, 10)
	if diff := cmp.Diff([]logs.Tally{{Service: "web", Read: 10, Bytes: 50}}, b.Tallies()); diff != "" {
		t.Error(diff)
	}
}

// However many services come and go, the figures stay few.
func TestTalliesAreBounded(t *testing.T) {
	b := open("", logs.Limits{})
	s := b.Open()
	for i := range 1000 {
		w := writer{b: b, name: fmt.Sprintf("s%d", i)}
		w.write(t, 1)
		drain(s)
	}
	all := b.Tallies()
	var sum int64
	for _, x := range all {
		sum += x.Sent
	}
	if len(all) > 201 || sum != 1000 {
		t.Errorf("%d figures of %d lines", len(all), sum)
	}
}

// The supervisor's own lines are counted apart from those of services, also where
// they are about one; those that never found room are dropped.
func TestTheSupervisorsOwnLinesAreTallied(t *testing.T) {
	b := open("", logs.Limits{Source: 1 << 20})
	var stream logs.Stream
	j := logs.NewJournal(b, &stream)
	for range 1500 {
		j.Say(logs.Line{Message: "x", Service: "web", AppUUID: "a"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it hands on what there is
	j.Run(ctx)
	c := tallied(t, b, "")
	if c.Dropped != 500 || c.Read != 1501 { // with the line that says so
		t.Errorf("%+v", c)
	}
}
