package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

// settings are the flags that most commands share.
type settings struct {
	config, engine, dataDir, runDir, listen string
}

func (s *settings) place(fs *flag.FlagSet) {
	fs.StringVar(&s.dataDir, "data-dir", "/var/lib/deckhand", "`folder` for deckhand's own memory")
}

func (s *settings) container(fs *flag.FlagSet) {
	s.place(fs)
	fs.StringVar(&s.engine, "engine", "", "`address` of the container engine (default: DOCKER_HOST, then balenaEngine's socket, then Docker's)")
}

// fromEnvironment sets flags from their DECKHAND_ variables; the command line
// goes over them.
func fromEnvironment(fs *flag.FlagSet) error {
	var bad error
	fs.VisitAll(func(f *flag.Flag) {
		name := variable(f.Name)
		v, set := os.LookupEnv(name)
		if !set || v == "" {
			return
		}
		if err := fs.Set(f.Name, v); err != nil && bad == nil {
			bad = fmt.Errorf("%s=%q: %w", name, v, err)
		}
	})
	return bad
}

func variable(flagName string) string {
	return "DECKHAND_" + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// engineHost finds the engine: what was asked for, else the first socket there is.
func engineHost(asked string) string {
	if asked != "" {
		return asked
	}
	if h := os.Getenv("DOCKER_HOST"); h != "" {
		return h
	}
	for _, socket := range []string{"/var/run/balena-engine.sock", "/var/run/docker.sock"} {
		if _, err := os.Stat(socket); err == nil {
			return "unix://" + socket
		}
	}
	return "unix:///var/run/docker.sock"
}
