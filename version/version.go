// Package version holds the version of deckhand's programs.
package version

// Version names the build: a tag, or a tag with commits after it, as git
// describes them. It is a variable only because the linker can set nothing
// else (-X deckhand/version.Version=...); no code assigns it.
var Version = "dev"
