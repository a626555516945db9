package logs

import (
	"strings"
	"unicode/utf8"
)

// Line is one line of a log.
type Line struct {
	Message string // valid UTF-8, without the line break at its end
	At      int64  // when it was written by the device's clock, in milliseconds since 1970

	System bool // said by the supervisor, not by a container
	Stderr bool // of standard error; of a system line: it is about something that failed

	Service   string // name of the service; empty: none
	ServiceID int64  // the cloud's number of it; 0: none or not known
	AppUUID   string // app it is about; empty: the whole device
	AppID     int64
	Container string // engine ID of the container that wrote it
}

// Longest is how many characters of a line are kept, the mark of a cut included.
const Longest = 10_000

// cutMark ends a line that was cut.
const cutMark = "[...]"

// Clean makes a line fit to be sent: valid UTF-8, without the line break at its
// end, and not too long.
func Clean(b []byte) string {
	s := strings.TrimRight(string(b), "\r\n")
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return cut(s)
}

func cut(s string) string {
	if len(s) <= Longest {
		return s
	}
	n, end := 0, 0
	for i := range s {
		if n == Longest-len(cutMark) {
			end = i
		}
		if n++; n > Longest {
			return s[:end] + cutMark
		}
	}
	return s
}
