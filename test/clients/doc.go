// Package clients lets balena's own CLI and SDK, as they are published, work with
// a real cloud of ours: they are told its address by the variables that their
// manuals name, and nothing else. The stories are in files with the build tags
// engine and interop; `make interop-peers` installs the programs.
//
// A story reads as a terminal session: what is typed, and what must be shown. With
// -transcript FILE all sessions are written down, each request below the command
// that sent it.
package clients
