package logs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// spool keeps lines on the disk, in one file for each piece of a queue. The total
// is bounded, and so is what it writes in a day: flash wears out.
type spool struct {
	dir   string
	limit int64
	size  int64 // of all files
	next  int64 // number of the next file

	credit int64 // bytes that may be written now
	since  time.Time
}

// segment is one file: a piece of the queue of one source.
type segment struct {
	number int64 // a source's segments are in this order
	size   int64
	head   head
	marked int // of its lines, those that were dropped before it was written; not known of earlier processes'
}

// head is the first line of a file, in clear.
type head struct {
	Version  int
	Source   string
	About    Line
	Lines    int
	From, To int64
	Tail     Cursor // behind its last line
	Gap      bool   // the lines were dropped; nothing follows
	Flown    bool   // the cloud may have them: they must not be counted as dropped
}

// record is each further line, packed.
type record struct {
	At     int64  `json:"t"`
	Text   string `json:"m,omitempty"`
	System bool   `json:"y,omitempty"`
	Stderr bool   `json:"e,omitempty"`
	Cursor Cursor `json:"c"`
	Gap    *gap   `json:"g,omitempty"`
}

const (
	spoolVersion = 1
	// numberStep leaves numbers free, for what is written back before a segment.
	numberStep = 1 << 10
	suffix     = ".log"
	// wear is in what time the whole spool may be written once.
	wear = time.Hour
)

// errWorn: the disk was written to enough for now.
var errWorn = errors.New("enough was written to the disk for now")

// openSpool lists what is there, oldest first. What cannot be understood goes.
func openSpool(dir string, limit int64) (*spool, []*segment, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("open log spool: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("open log spool: %w", err)
	}
	s := &spool{dir: dir, limit: limit, next: numberStep, credit: limit, since: time.Now()}
	var found []*segment
	for _, f := range files {
		g, err := s.inspect(f.Name())
		if err != nil {
			_ = os.Remove(filepath.Join(dir, f.Name()))
			continue
		}
		s.size += g.size
		s.next = max(s.next, g.number/numberStep*numberStep+numberStep)
		found = append(found, g)
	}
	slices.SortFunc(found, func(a, b *segment) int { return int(min(max(a.number-b.number, -1), 1)) })
	return s, found, nil
}

func (s *spool) inspect(name string) (*segment, error) {
	base, ok := strings.CutSuffix(name, suffix)
	number, err := strconv.ParseInt(base, 16, 64)
	if !ok || err != nil {
		return nil, errors.New("no segment")
	}
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	g := &segment{number: number, size: info.Size()}
	line, err := bufio.NewReader(io.LimitReader(f, 64<<10)).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &g.head)
	}
	if err == nil && (g.head.Version != spoolVersion || g.head.Source == "" || g.head.Lines <= 0) {
		err = errors.New("of another version")
	}
	return g, err
}

func (s *spool) path(number int64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%016x%s", number, suffix))
}

// writing says how a segment may be written.
type writing struct {
	atAnyCost bool                 // even if enough was written for now
	giveUp    func() (bool, error) // makes room; false: there is no more to be had
}

// write makes a segment of entries.
func (s *spool) write(number int64, x *source, entries []entry, how writing) (*segment, error) {
	g := &segment{number: number, head: headOf(x, entries)}
	_, g.marked = linesOf(entries)
	b, err := encode(g.head, entries)
	if err != nil {
		return nil, fmt.Errorf("spool logs: %w", err)
	}
	if !s.allowed(int64(len(b))) && !how.atAnyCost {
		return nil, errWorn
	}
	for s.size+int64(len(b)) > s.limit {
		more, err := how.giveUp()
		if err != nil {
			return nil, err
		}
		if !more {
			break // marks are small
		}
	}
	return g, s.put(g, b)
}

func headOf(x *source, entries []entry) head {
	h := head{Version: spoolVersion, Source: x.id, About: x.about, Tail: entries[len(entries)-1].cur}
	var all gap
	for _, e := range entries {
		all = all.with(e.span())
		h.Flown = h.Flown || e.flown
	}
	h.Lines, h.From, h.To = all.Lines, all.From, all.To
	h.Gap = len(entries) == 1 && entries[0].gap != nil
	return h
}

// allowed takes from what may be written.
func (s *spool) allowed(n int64) bool {
	now := time.Now()
	s.credit = min(s.credit+int64(float64(s.limit)*float64(now.Sub(s.since))/float64(wear)), s.limit)
	s.since = now
	if s.credit < n {
		return false
	}
	s.credit -= n
	return true
}

// store writes a segment of entries in one piece, in place of an earlier one.
func (s *spool) store(g *segment, entries []entry) error {
	b, err := encode(g.head, entries)
	if err != nil {
		return fmt.Errorf("spool logs: %w", err)
	}
	return s.put(g, b)
}

func (s *spool) put(g *segment, b []byte) error {
	path := s.path(g.number)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("spool logs: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = os.Remove(path + ".new")
		return fmt.Errorf("spool logs: %w", err)
	}
	s.size += int64(len(b)) - g.size
	g.size = int64(len(b))
	s.next = max(s.next, g.number/numberStep*numberStep+numberStep)
	return nil
}

func encode(h head, entries []entry) ([]byte, error) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(h); err != nil || h.Gap {
		return b.Bytes(), err
	}
	z := gzip.NewWriter(&b)
	to := json.NewEncoder(z)
	for _, e := range entries {
		r := record{At: e.line.At, Text: e.line.Message, System: e.line.System, Stderr: e.line.Stderr, Cursor: e.cur, Gap: e.gap}
		if err := to.Encode(r); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return b.Bytes(), err
}

func (s *spool) read(g *segment) ([]entry, error) {
	if g.head.Gap {
		return []entry{{line: g.head.About, cur: g.head.Tail, gap: &gap{g.head.Lines, g.head.From, g.head.To}}}, nil
	}
	f, err := os.Open(s.path(g.number))
	if err != nil {
		return nil, fmt.Errorf("read spooled logs: %w", err)
	}
	defer func() { _ = f.Close() }()
	entries, err := decode(f, g.head)
	if err != nil {
		return nil, fmt.Errorf("read spooled logs %s: %w", filepath.Base(f.Name()), err)
	}
	return entries, nil
}

func decode(r io.Reader, h head) ([]entry, error) {
	in := bufio.NewReader(r)
	if _, err := in.ReadSlice('\n'); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	from := json.NewDecoder(io.LimitReader(z, 64<<20))
	var out []entry
	for {
		var r record
		switch err := from.Decode(&r); {
		case errors.Is(err, io.EOF) && len(out) > 0:
			return out, nil
		case err != nil:
			return nil, err
		}
		l := h.About
		l.Message, l.At, l.System, l.Stderr = r.Text, r.At, r.System, r.Stderr
		out = append(out, entry{line: l, cur: r.Cursor, gap: r.Gap})
	}
}

// remove deletes a segment.
func (s *spool) remove(g *segment) {
	if os.Remove(s.path(g.number)) == nil {
		s.size -= g.size
	}
}
