package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/image"
	"golang.org/x/sync/errgroup"

	"deckhand/build/event"
)

// Outcome is what became of one service.
type Outcome struct {
	event.Service
	Kind       string // how its Dockerfile was found
	Dockerfile string // as the engine got it
	Log        Log
	Stored     bool // for the destination: it has noted how the service ended

	failed error
}

// Cached is what an earlier build offers one service's build.
type Cached struct {
	Digest string   // of the earlier image's manifest
	Ref    string   // the earlier image on the engine; "" when it is not there
	From   []string // what the engine is told to look for steps in; empty: all it has
}

// Destination is where the images of a build go. Its methods are called for several
// services at the same time.
type Destination interface {
	// Place is where a service's image is going to be; 0 and "" when that has no number or
	// address.
	Place(service string) (image int64, location string)
	// Labels are what an image is found by again. They must be the same in every build:
	// an unchanged service keeps its digest.
	Labels(service string) map[string]string
	// Begin is called before work on a service starts.
	Begin(ctx context.Context, s Service, o *Outcome) error
	// Deliver puts an image of the engine to where devices find it.
	Deliver(ctx context.Context, s Service, id string, o *Outcome) error
	// Store notes how a service ended; it may make the outcome worse. It is not called for
	// services that were cancelled.
	Store(ctx context.Context, s Service, o *Outcome)
}

// Run brings every service to its destination, side by side, at most parallel of them being
// built. A failure of one does not stop the others: their images are the cache of the next
// try. Outcomes and cache are by service.
func (b *Build) Run(ctx context.Context, to Destination, parallel int, cache map[string]Cached) map[string]*Outcome {
	outcomes := map[string]*Outcome{}
	r := &run{Build: b, to: to, pool: make(chan struct{}, parallel)}
	var built, done sync.WaitGroup
	b.emit(event.Event{Type: event.Phase, Name: event.PhaseBuild, State: event.Start})
	for _, s := range b.project.services {
		o := &Outcome{Service: event.Service{Name: s.Name}, Dockerfile: b.recipes[s.Name].text}
		o.ImageID, o.Location = to.Place(s.Name)
		outcomes[s.Name] = o
		b.emit(event.Event{Type: event.ServiceState, Service: s.Name, State: event.Queued})
		built.Add(1)
		leave := sync.OnceFunc(built.Done)
		done.Go(func() {
			defer leave()
			r.makeOne(ctx, s, cache[s.Name], o, leave)
		})
	}
	built.Wait()
	b.emit(event.Event{Type: event.Phase, Name: event.PhaseBuild, State: event.Done})
	b.emit(event.Event{Type: event.Phase, Name: event.PhasePush, State: event.Start})
	done.Wait()
	state := event.Done
	for _, o := range outcomes {
		if o.Status != event.StatusSuccess {
			state = event.Failed
		}
	}
	b.emit(event.Event{Type: event.Phase, Name: event.PhasePush, State: state})
	return outcomes
}

// run is a build under way.
type run struct {
	*Build
	to   Destination
	pool chan struct{} // as many as may be built at the same time
}

func (r *run) makeOne(ctx context.Context, s Service, c Cached, o *Outcome, builtIt func()) {
	defer func() {
		if p := recover(); p != nil {
			o.failed = fmt.Errorf("the builder failed: %v", p)
			r.settle(ctx, s, c, o)
		}
	}()
	id, err := r.obtain(ctx, s, c, o)
	builtIt()
	if err == nil {
		err = r.to.Deliver(ctx, s, id, o)
	}
	o.failed = err
	r.settle(ctx, s, c, o)
}

// obtain gets the service's image onto the engine: built, or pulled as it is.
func (r *run) obtain(ctx context.Context, s Service, c Cached, o *Outcome) (id string, err error) {
	if s.build != nil {
		select {
		case r.pool <- struct{}{}:
			defer func() { <-r.pool }()
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	o.StartedAt = time.Now().UTC()
	if err := r.to.Begin(ctx, s, o); err != nil {
		return "", err
	}
	state := event.Building
	if s.build == nil {
		state = event.Pulling
	}
	r.emit(event.Event{Type: event.ServiceState, Service: s.Name, State: state})
	if s.build == nil {
		id, err = r.fetch(ctx, s, o)
	} else {
		id, err = r.buildFor(ctx, s, c, o)
	}
	if err != nil {
		return "", err
	}
	info, err := r.engine.api.ImageInspect(ctx, id)
	if err != nil {
		return "", refused(err)
	}
	if s.build != nil && c.Ref != "" {
		// The engine's cache may have led to another image of the same content,
		// made at another time. Devices compare digests: they get the old one.
		if before, err := r.engine.api.ImageInspect(ctx, c.Ref); err == nil && sameContent(before, info) {
			info = before
		}
	}
	o.Size = info.Size
	return info.ID, nil
}

// sameContent reports whether two images differ in nothing but when they were made.
func sameContent(a, b image.InspectResponse) bool {
	was, errA := json.Marshal(a.Config)
	now, errB := json.Marshal(b.Config)
	return errA == nil && errB == nil && bytes.Equal(was, now) && a.Architecture == b.Architecture && a.Variant == b.Variant &&
		slices.Equal(a.RootFS.Layers, b.RootFS.Layers)
}

// buildFor builds, and builds again without the cache when the engine's cache, which does
// not look at platforms, gave an image for another one.
func (r *run) buildFor(ctx context.Context, s Service, c Cached, o *Outcome) (string, error) {
	nocache := r.order.NoCache
	for {
		id, err := r.buildOnce(ctx, s, c, o, nocache)
		if err != nil {
			return "", err
		}
		info, err := r.engine.api.ImageInspect(ctx, id)
		if err != nil {
			return "", refused(err)
		}
		if r.target.goarch == "" || info.Architecture == r.target.goarch {
			return id, nil
		}
		if nocache || r.target.platform == "" {
			return "", &serviceError{text: fmt.Sprintf("the image is for %s and the fleet's devices are %s; use a base image for %s (after FROM scratch, begin with COPY)",
				info.Architecture, r.target.arch, r.target.goarch)}
		}
		nocache = true
	}
}

var declaresArg = regexp.MustCompile(`(?im)^\s*ARG\s+(TARGETARCH|TARGETVARIANT|TARGETPLATFORM|TARGETOS)\b`)

func (r *run) buildOnce(ctx context.Context, s Service, c Cached, o *Outcome, nocache bool) (string, error) {
	recipe := r.recipes[s.Name]
	o.Kind = recipe.kind
	labels := maps.Clone(map[string]string(s.build.Labels))
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, r.to.Labels(s.Name))
	opts := build.ImageBuildOptions{
		Dockerfile:  recipe.name,
		NoCache:     nocache,
		Labels:      labels,
		BuildArgs:   r.buildArgs(s, recipe),
		Target:      s.build.Target,
		ShmSize:     int64(s.build.ShmSize),
		ExtraHosts:  hosts(s.build.ExtraHosts),
		Platform:    r.target.platform,
		AuthConfigs: r.meta.registries,
	}
	if !nocache {
		opts.CacheFrom = c.From
		if len(c.From) > 0 || len(s.build.CacheFrom) > 0 {
			opts.CacheFrom = append(opts.CacheFrom, s.build.CacheFrom...)
		}
	}
	reader, writer := io.Pipe()
	defer reader.Close()
	var packing errgroup.Group
	packing.Go(func() error {
		extra := map[string][]byte{}
		if recipe.changed {
			extra[recipe.name] = []byte(recipe.text)
		}
		err := r.order.Source.writeContext(writer, s.context, recipe.without, extra)
		_ = writer.CloseWithError(err)
		return err
	})
	t := &teller{emit: r.emit, service: s.Name, o: o}
	id, err := r.engine.buildImage(ctx, reader, opts, t.line)
	if err != nil {
		t.endStep(event.Failed)
	} else {
		t.endStep(event.Done)
	}
	_ = reader.Close()
	if packed := packing.Wait(); packed != nil && !errors.Is(packed, io.ErrClosedPipe) {
		return "", packed
	}
	return id, err
}

// buildArgs are the arguments of the compose file, then those of the project's metadata,
// and the platform ones that the classic builder leaves empty.
func (r *run) buildArgs(s Service, recipe recipe) map[string]*string {
	args := map[string]*string{}
	for _, m := range declaresArg.FindAllStringSubmatch(recipe.text, -1) {
		value := map[string]string{
			"TARGETARCH":     r.target.goarch,
			"TARGETOS":       "linux",
			"TARGETPLATFORM": "linux/" + r.target.goarch,
			"TARGETVARIANT":  map[string]string{"armv7hf": "v7", "rpi": "v6", "aarch64": "v8"}[r.target.arch],
		}[strings.ToUpper(m[1])]
		args[m[1]] = &value
	}
	for name, value := range s.build.Args {
		if value != nil {
			args[name] = value
		}
	}
	for name, value := range r.meta.arguments(s.Name) {
		args[name] = &value
	}
	return args
}

// fetch pulls the image of a service that is not built.
func (r *run) fetch(ctx context.Context, s Service, o *Outcome) (string, error) {
	o.Kind = externalService
	named, err := reference.ParseNormalizedNamed(s.image)
	if err != nil {
		return "", &serviceError{text: fmt.Sprintf("%q is no image name: %v", s.image, err)}
	}
	ref := reference.TagNameOnly(named).String()
	var auth string
	if a, ok := r.meta.registries[reference.Domain(named)]; ok {
		auth = encodeAuth(a)
	}
	t := &teller{emit: r.emit, service: s.Name, o: o}
	progress := r.Progress("pull", s.Name)
	return ref, r.engine.Pull(ctx, ref, auth, r.target.platform, progress, func(status string) { t.line(line{text: status}) })
}

// Progress tells of a pull or push of one service's image.
func (b *Build) Progress(op, service string) Progress {
	return func(current, total int64, percent int) {
		b.emit(event.Event{Type: event.Progress, Service: service, Op: op, Current: current, Total: total, Percent: percent})
	}
}

// settle stores how a service ended, and tells.
func (r *run) settle(ctx context.Context, s Service, c Cached, o *Outcome) {
	o.EndedAt = time.Now().UTC()
	if o.StartedAt.IsZero() {
		o.StartedAt = o.EndedAt
	}
	state := event.Done
	o.Service.Status = event.StatusSuccess
	var user *serviceError
	switch {
	case o.failed == nil:
		o.Unchanged = c.Digest != "" && c.Digest == o.ContentHash
	case ctx.Err() != nil:
		o.Service.Status, state = event.StatusCancelled, event.Cancelled
	case errors.As(o.failed, &user):
		o.Service.Status, state, o.ExitCode = event.StatusFailed, event.Failed, user.code
	default:
		o.Service.Status, state = event.StatusError, event.Failed
	}
	if o.failed != nil {
		o.Error = o.failed.Error()
	}
	if o.Service.Status != event.StatusCancelled {
		r.to.Store(ctx, s, o)
	}
	r.emit(event.Event{Type: event.ServiceState, Service: s.Name, State: state, Error: o.Error, ExitCode: o.ExitCode})
	if state == event.Failed {
		r.emit(event.Event{
			Type: event.Error, Service: s.Name, Code: "build", Message: o.Error, ExitCode: o.ExitCode,
			Hint: hint(o.Error), Tail: o.Log.last(40),
		})
	}
	result := o.Service
	r.emit(event.Event{Type: event.ServiceResult, Service: s.Name, Result: &result})
}

// hint says what to do about failures whose text alone does not.
func hint(text string) string {
	switch {
	case strings.Contains(text, "BuildKit"):
		return "this builder uses the classic builder; write the step without BuildKit's options"
	case strings.Contains(text, "exec format error"):
		return "the base image is for another architecture than the builder"
	case strings.Contains(text, "no space left"):
		return "free disk space on the builder"
	}
	return ""
}

// teller turns a service's build output into events and its log.
type teller struct {
	emit    func(event.Event)
	service string
	o       *Outcome
	step    event.Event
	since   time.Time
}

func (t *teller) line(l line) {
	t.o.Log.add(l.text)
	kind := event.Log
	switch {
	case stepLine.MatchString(l.text):
		kind = event.EngineLine
		t.endStep(event.Done)
		n, total, what, _ := stepOf(l.text)
		t.since = time.Now()
		t.step = event.Event{Type: event.Step, Service: t.service, N: n, Total: int64(total), Text: what, State: event.Start}
		t.o.Steps = total
		t.emit(t.step)
	case strings.HasPrefix(l.text, " ---> Using cache"):
		kind = event.EngineLine
		t.step.Cached = true
		t.o.CachedSteps++
	case strings.HasPrefix(l.text, " ---> "), strings.HasPrefix(l.text, "Removing intermediate container "),
		strings.HasPrefix(l.text, "Successfully built "), strings.HasPrefix(l.text, "Successfully tagged "):
		kind = event.EngineLine
	}
	if strings.TrimSpace(l.text) == "" {
		return
	}
	stream := "out"
	if l.stderr {
		stream = "err"
	}
	t.emit(event.Event{Type: kind, Service: t.service, Stream: stream, Text: l.text})
}

func (t *teller) endStep(state string) {
	if t.step.N == 0 {
		return
	}
	t.step.State, t.step.MS = state, time.Since(t.since).Milliseconds()
	t.emit(t.step)
	t.step = event.Event{}
}
