//go:build engine && interop && linux

package clients

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// book keeps the sessions of all stories.
type book struct {
	mu       sync.Mutex
	sessions map[string]*session
}

// sessions is what was typed in this run.
var sessions = book{sessions: map[string]*session{}}

// session is what one story typed, with what was shown and requested.
type session struct {
	mu           sync.Mutex
	worked       []string // commands that succeeded, without "balena"
	typed, calls int      // commands, and calls of the SDK
	text         strings.Builder
}

// begin gives the session of a story; all who take part in it share one.
func (b *book) begin(story string) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sessions[story] == nil {
		b.sessions[story] = &session{}
	}
	return b.sessions[story]
}

func (s *session) add(line, shown string, exchanges []exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.typed++
	fmt.Fprintf(&s.text, "\n$ balena %s\n%s\n", line, strings.TrimSpace(plain(shown)))
	for _, e := range exchanges {
		fmt.Fprintf(&s.text, "  | %s\n", strings.ReplaceAll(e.String(), "\n", "\n  | "))
	}
}

// works notes a command that succeeded.
func (s *session) works(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worked = append(s.worked, line)
}

// worked gives all commands that succeeded in this run.
func (b *book) worked() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, s := range b.sessions {
		all = append(all, s.worked...)
	}
	return all
}

// write writes all sessions to a file.
func (b *book) write(t *testing.T, path string) {
	t.Helper()
	var all strings.Builder
	typed, calls := 0, 0
	for _, story := range slices.Sorted(maps.Keys(b.sessions)) {
		s := b.sessions[story]
		typed, calls = typed+s.typed, calls+s.calls
		fmt.Fprintf(&all, "\n==== %s\n%s", story, s.text.String())
	}
	fmt.Fprintf(&all, "\n%d commands of the CLI, %d calls of the SDK\n", typed, calls)
	if err := os.WriteFile(path, []byte(all.String()), 0o600); err != nil {
		t.Error(err)
	}
}
