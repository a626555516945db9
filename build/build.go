// Package build turns a project into images: it reads what was pushed, brings the composition
// to the form that devices read, finds the Dockerfiles and builds all services on a
// Docker-compatible engine.
//
// Spool unpacks and fences in an archive, Prepare checks all that can be checked beforehand,
// Run builds. Where the images go is the business of a Destination: OnDevice leaves them on
// the engine of a device in local mode, cloud/builder makes a release of them. What happens
// on the way is told as events, the vocabulary of package event.
package build

import (
	"context"
	"slices"

	"deckhand/build/event"
)

// Order is a build that somebody asks for.
type Order struct {
	Source           *Source
	App, Commit      string // of the release to come, for templates
	DeviceType, Arch string // slugs: what the images are for
	Dockerfile       string // another one, for projects without a compose file
	NoCache          bool
	Worker           string            // what builds, for people; "" for the engine of this machine
	Events           func(event.Event) // hears what happens, from several goroutines at once
}

// Build is a project that can be built.
type Build struct {
	order   Order
	engine  *Engine
	emit    func(event.Event)
	meta    metadata
	project *project
	recipes map[string]recipe // by service that is built
	target  target
}

// target is the machine that images are made for, in the engine's terms.
type target struct {
	machine
	goarch   string // what an image must say it is for; "" when unknown
	platform string // asked of the engine; "" when it is the engine's own
	worker   string
}

// Prepare checks everything that can be checked before anything is built: an error lies in
// the project, or the engine does not answer.
func Prepare(ctx context.Context, engine *Engine, order Order) (*Build, error) {
	b := &Build{order: order, engine: engine, emit: order.Events, recipes: map[string]recipe{}}
	var err error
	if b.meta, err = readMetadata(order.Source); err != nil {
		return nil, err
	}
	if b.project, err = loadProject(ctx, order.Source, order.Dockerfile); err != nil {
		return nil, err
	}
	m := machine{deviceType: order.DeviceType, arch: order.Arch}
	for _, s := range b.project.services {
		if !s.Built() {
			continue
		}
		vars := templateVars(m, order.App, s.Name, order.Commit)
		if b.recipes[s.Name], err = findDockerfile(order.Source, s, m, vars); err != nil {
			return nil, err
		}
	}
	arch, err := engine.Arch(ctx)
	if err != nil {
		return nil, err
	}
	b.target = targetFor(m, arch)
	if order.Worker != "" {
		b.target.worker = order.Worker
	}
	return b, nil
}

func targetFor(m machine, engineArch string) target {
	platforms := map[string][2]string{
		"amd64":    {"amd64", "linux/amd64"},
		"i386":     {"386", "linux/386"},
		"i386-nlp": {"386", "linux/386"},
		"aarch64":  {"arm64", "linux/arm64/v8"},
		"armv7hf":  {"arm", "linux/arm/v7"},
		"rpi":      {"arm", "linux/arm/v6"},
	}
	t := target{machine: m, goarch: platforms[m.arch][0], worker: "this machine's engine (" + engineArch + ")"}
	if t.goarch != engineArch {
		t.platform = platforms[m.arch][1]
	}
	return t
}

// Composition is the compose document in the form that devices read; builds are still in it.
func (b *Build) Composition() map[string]any { return b.project.composition }

// Services are all of the composition's, by name.
func (b *Build) Services() []Service { return b.project.services }

// Version is that of the project's contract; "" when it has none.
func (b *Build) Version() string { return b.meta.semver }

// Platform is what the engine is asked for; "" when it is the engine's own.
func (b *Build) Platform() string { return b.target.platform }

// Announce tells what is going to be built, for which fleet and user, and what to know of
// the project.
func (b *Build) Announce(fleet, user string) {
	e := event.Event{
		Type: event.BuildStarted, Fleet: fleet, User: user, Arch: b.target.arch,
		DeviceType: b.target.deviceType, Worker: b.target.worker,
	}
	for _, s := range b.project.services {
		if s.Built() {
			e.Services = append(e.Services, event.Service{Name: s.Name, Kind: "build", Context: s.context})
		} else {
			e.Services = append(e.Services, event.Service{Name: s.Name, Kind: "image", Image: s.image})
		}
	}
	b.emit(e)
	for _, w := range slices.Concat(b.meta.warnings, b.project.warnings) {
		b.emit(event.Event{Type: event.Warning, Code: "project", Message: w})
	}
}

// Worse is the one of two outcomes that a person should hear of.
func Worse(a, b string) string {
	for _, s := range []string{event.StatusError, event.StatusFailed, event.StatusCancelled} {
		if a == s || b == s {
			return s
		}
	}
	return a
}
