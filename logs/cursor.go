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

// resume says from which time on to read, and how many lines with that very time
// to leave out. A run of the container that began before the last line that we
// know means that the clock was set back in between: all of that run is new.
func (c Cursor) resume(run int64) (since time.Time, leave int) {
	const early = int64(time.Second) // a line may be a little older than its run
	switch {
	case c.At == 0:
		return time.Time{}, 0
	case c.Run != run && run < c.At:
		return time.Unix(0, max(run-early, 0)), 0
	}
	return time.Unix(0, c.At), c.Count
}
