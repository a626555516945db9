// Package version holds the version of deckhand's programs.
package version

import "time"

// Version names the build: a tag, or a tag with commits after it, as git
// describes them. It is a variable only because the linker can set nothing
// else (-X deckhand/version.Version=...); no code assigns it.
var Version = "dev"

// Built is when the source was last changed, RFC 3339, set like Version; empty:
// not known.
var Built = ""

// BuildTime is a time that is certainly over when the program runs; zero: not known.
func BuildTime() time.Time {
	t, err := time.Parse(time.RFC3339, Built)
	if err != nil {
		return time.Time{}
	}
	return t
}
