//go:build bench

package bench

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"deckhand/test/system"
)

// trace prints where the time goes when one variable of one service among many
// changes: what the log says, what the engine is asked, what it says happened.
func trace(t *testing.T, b *bench) {
	p := newProxy(t, b.engine)
	d := b.start(t, p.host)
	type moment struct {
		at   time.Time
		text string
	}
	var mu sync.Mutex
	var log []moment
	d.log.Follow(func(l system.Line) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, moment{time.Now(), fmt.Sprintf("log     %s %s (%s)", l.Message, l.Step, l.Why)})
	})
	for _, n := range b.sizes(50) {
		r := alike(n, b.unique("trace"), "bench:1")
		d.reach(t, r)
		<-time.After(2 * time.Second)
		for i := range b.rounds(2) {
			p.take()
			mu.Lock()
			log = nil
			mu.Unlock()
			s := r.services["s0"]
			s.level = fmt.Sprint("debug", i)
			r.services["s0"] = s
			d.listening(t)
			events := watch(t, b.engine)
			began := d.offer(t, r)
			events.replaced(t, began, 1)
			<-time.After(time.Second)
			mu.Lock()
			all := slices.Clone(log)
			mu.Unlock()
			for _, c := range p.take() {
				if c.begin.After(began) {
					all = append(all, moment{c.begin, fmt.Sprintf("engine  %s (%d ms)", c.what, c.end.Sub(c.begin).Milliseconds())})
				}
			}
			for _, m := range events.got {
				all = append(all, moment{time.Unix(0, m.TimeNano), fmt.Sprintf("event   %s %s", m.Action, serviceOf(m))})
			}
			events.stop()
			slices.SortStableFunc(all, func(a, b moment) int { return a.at.Compare(b.at) })
			fmt.Printf("\n**One variable of one among %d**, milliseconds since the target, through a proxy\n\n", n)
			for _, m := range all {
				fmt.Printf("%8.1f  %s\n", float64(m.at.Sub(began).Microseconds())/1000, m.text)
			}
		}
	}
	b.inFlight(t, d)
	d.clear(t)
	d.stop(t)
}

// inFlight tells how well an update of twenty keeps the engine busy: which steps
// take how long, and how many run side by side.
func (b *bench) inFlight(t *testing.T, d *device) {
	d.reach(t, alike(20, b.unique("trace"), "bench:1"))
	type span struct {
		kind       string
		begin, end time.Time
	}
	var mu sync.Mutex
	open, all := map[string]time.Time{}, []span{}
	d.log.Follow(func(l system.Line) {
		mu.Lock()
		defer mu.Unlock()
		switch l.Message {
		case "start":
			open[l.Step] = time.Now()
		case "done":
			kind, _, _ := strings.Cut(l.Step, " ")
			all = append(all, span{kind, open[l.Step], time.Now()})
			delete(open, l.Step)
		}
	})
	x := b.ourUpdate(t, d, 20, "bench:2")
	mu.Lock()
	defer mu.Unlock()
	out := b.table(fmt.Sprintf("Update of 20 in %.2f s, through a proxy: steps", x.whole.Seconds()), "step", "times", "took, median", "side by side on average")
	kinds := map[string][]time.Duration{}
	var sum time.Duration
	for _, s := range all {
		kinds[s.kind] = append(kinds[s.kind], s.end.Sub(s.begin))
		sum += s.end.Sub(s.begin)
	}
	for _, k := range sortedKeys(kinds) {
		var of time.Duration
		for _, took := range kinds[k] {
			of += took
		}
		out.row(k, len(kinds[k]), kinds[k], of.Seconds()/x.whole.Seconds())
	}
	out.row("all", len(all), "", sum.Seconds()/x.whole.Seconds())
}
