package timing

import (
	"fmt"
	"strings"
	"time"
)

// The measures of a diagram, in pixels.
const (
	width, margin = 720, 16
	left          = 136 // where the time axis begins
	right         = width - margin
	top           = 66 // of the first row
	lane, pitch   = 14, 18
	groupGap      = 10
	glyph         = 6.3 // width of a letter, about
)

const style = `
  svg { font: 12px sans-serif; --paper: #ffffff; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --on: #ffffff;
    --old: #0969da; --new: #1a7f37; --fetch: #9a6700; --ours: #8250df; --theirs: #bc4c00; --down: #cf222e; }
  @media (prefers-color-scheme: dark) { svg { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --line: #30363d; --on: #0d1117;
    --old: #4493f8; --new: #3fb950; --fetch: #d29922; --ours: #ab7df8; --theirs: #db6d28; --down: #f85149; } }
  .paper { fill: var(--paper); stroke: var(--line); } text { fill: var(--ink); } .title { font-size: 15px; font-weight: 600; }
  .group { font-weight: 600; } .faint { fill: var(--faint); font-size: 11px; } .in { fill: var(--on); font-size: 11px; }
  .grid { stroke: var(--line); } .mark { stroke: var(--ink); stroke-dasharray: 3 3; }
  .old { fill: var(--old); stroke: var(--old); } .new { fill: var(--new); stroke: var(--new); } .fetch { fill: var(--fetch); }
  .pale { fill-opacity: 0.35; stroke-opacity: 0.6; } .idle { fill: none; stroke-dasharray: 4 3; }
  .ours { fill: var(--ours); } .theirs { fill: var(--theirs); } .down { fill: var(--down); } .shade { fill-opacity: 0.12; }
`

// drawing is a diagram on its way.
type drawing struct {
	strings.Builder
	film
}

// svg draws a film.
func (f film) svg() []byte {
	d := &drawing{film: f}
	ys, bottom := f.lines()
	legend := f.legend()
	height := bottom + 30 + 20*len(legend) + margin/2
	d.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title desc">`, width, height, width, height)
	d.put(`<title id="title">%s</title>`, escape(f.title))
	d.put(`<desc id="desc">%s</desc>`, escape(f.desc()))
	d.put("<style>%s</style>", style)
	d.put(`<rect class="paper" x="0.5" y="0.5" width="%d" height="%d" rx="6"/>`, width-1, height-1)
	d.text("title", margin, 26, "", f.title)
	d.axis(bottom)
	for i, r := range f.rows {
		d.shade(ys[i], r)
	}
	for i, r := range f.rows {
		d.row(i, ys[i], r)
	}
	d.mark(0, "new release is known", bottom)
	if f.reached > 0 {
		d.mark(f.reached, "release reached", bottom)
	}
	for i, line := range legend {
		x := float64(margin)
		y := bottom + 30 + 20*i
		for _, l := range line {
			d.rect(l.kind, x, y, 22)
			d.text("faint", x+28, y+11, "", l.means)
			x += l.room()
		}
	}
	d.put("</svg>")
	return []byte(d.String())
}

// lines are the upper edges of the rows, and the end of the last one.
func (f film) lines() (ys []int, bottom int) {
	y := top
	for i, r := range f.rows {
		if i > 0 && r.group != f.rows[i-1].group {
			y += groupGap
		}
		ys = append(ys, y)
		y += pitch
	}
	return ys, y
}

func (d *drawing) put(format string, a ...any) { fmt.Fprintf(d, format+"\n", a...) }

func (d *drawing) text(class string, x float64, y int, anchor, text string) {
	if anchor != "" {
		anchor = fmt.Sprintf(` text-anchor="%s"`, anchor)
	}
	d.put(`<text class="%s" x="%.1f" y="%d"%s>%s</text>`, class, x, y, anchor, escape(text))
}

// rect draws a bar; one with an outline is as large as one without.
func (d *drawing) rect(class string, x float64, y int, w float64) {
	d.put(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%d" rx="1.5"/>`, class, x+0.5, float64(y)+0.5, max(w-1, 1.5), lane-1)
}

// x is where a time is on the axis.
func (d *drawing) x(at time.Duration) float64 {
	return left + float64(right-left)*float64(at+before)/float64(d.length+before)
}

// axis draws the seconds.
func (d *drawing) axis(bottom int) {
	for at := time.Duration(0); at <= d.length; at += time.Second {
		d.put(`<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, d.x(at), top-6, d.x(at), bottom)
		d.text("faint", d.x(at), bottom+14, "middle", fmt.Sprintf("%d", at/time.Second))
	}
	d.text("faint", margin, bottom+14, "", "seconds")
}

// mark names a moment.
func (d *drawing) mark(at time.Duration, name string, bottom int) {
	d.put(`<line class="mark" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, d.x(at), top-8, d.x(at), bottom)
	half, anchor, x := float64(len(name))*glyph/2, "middle", d.x(at)
	if x-half < left-40 {
		anchor, x = "start", d.x(at)-10
	} else if x+half > right {
		anchor, x = "end", right
	}
	d.text("faint", x, top-14, anchor, name)
}

// shade shows a downtime behind the two containers of the service.
func (d *drawing) shade(y int, r row) {
	for _, b := range r.bars {
		if b.kind == nothing {
			d.put(`<rect class="down shade" x="%.1f" y="%d" width="%.1f" height="%d"/>`, d.x(b.from), y-2*pitch-2, d.x(b.to)-d.x(b.from), 3*pitch)
		}
	}
}

func (d *drawing) row(i, y int, r row) {
	if i == 0 || r.group != d.rows[i-1].group {
		d.text("group", margin, y+11, "", r.group)
	}
	d.text("faint", left-8, y+11, "end", r.name)
	for _, b := range r.bars {
		from, w := d.x(b.from), d.x(b.to)-d.x(b.from)
		d.rect(b.kind, from, y, w)
		if b.kind != fetching && b.kind != nothing && b.kind != ours && b.kind != theirs {
			continue
		}
		label := seconds(b.lasts())
		if room := float64(len(label)) * glyph; room+4 < w {
			d.text("in", from+w/2, y+11, "middle", label)
		} else {
			d.text("faint", from+w+4, y+11, "", label)
		}
	}
	if r.name == nothing && len(r.bars) == 0 {
		d.text("faint", d.x(0)+6, y+11, "", "never")
	}
}

// sign explains one look of bars.
type sign struct{ kind, means string }

func (s sign) room() float64 { return 28 + float64(len(s.means))*5.6 + 16 }

// legend explains what is in the diagram, in lines that fit.
func (f film) legend() [][]sign {
	all := []sign{
		{oldRuns, "of the old release"}, {newRuns, "of the new release"}, {newMoves, "starts, stops, or is being written"},
		{newIdle, "there, does not run"}, {fetching, "is downloaded"}, {ours, "locks held by deckhand"},
		{theirs, "lock held by api"}, {nothing, "nothing runs"},
	}
	seen := map[string]bool{}
	for _, r := range f.rows {
		for _, b := range r.bars {
			seen[b.kind] = true
		}
	}
	out, x := [][]sign{nil}, float64(margin)
	for _, s := range all {
		if !seen[s.kind] {
			continue
		}
		if x+s.room() > right {
			out, x = append(out, nil), margin
		}
		out[len(out)-1] = append(out[len(out)-1], s)
		x += s.room()
	}
	return out
}

func seconds(d time.Duration) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
