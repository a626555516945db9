package logs

import "time"

// Cursor is how far a container's log was read.
type Cursor struct {
	Run   int64 // the run of the container it is in: when that began, in nanoseconds since 1970
	At    int64 // the engine's time of the last line, likewise
	Count int   // how many lines with that very time were read
	Pos   int64 // position of the last line, see after
}

// after is the cursor behind the next line. Positions are times as long as those
// grow, and count on where they do not: they always grow, and reading the same
// lines again from the same cursor gives the same positions.
func (c Cursor) after(run, at int64) Cursor {
	n := Cursor{Run: run, At: at, Count: 1, Pos: max(c.Pos+1, at)}
	if at == c.At {
		n.Count = c.Count + 1
	}
	return n
}

// early is by how much a line may be older than its run.
const early = int64(time.Second)

// doubtful: the last line seems to be younger than the run that goes on now. Either
// it is of this run, or the clock was set back in between. Only the order of lines
// can tell.
func (c Cursor) doubtful(run int64) bool { return c.At != 0 && c.Run != run && run-early < c.At }

// of reports whether a line is the last one that was read; lines with its time are
// counted in seen.
func (c Cursor) of(at int64, seen *int) bool {
	if at != c.At {
		return false
	}
	*seen++
	return *seen == c.Count
}
