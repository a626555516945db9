package builder

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

	"deckhand/cloud/builder/event"
	"deckhand/cloud/model"
)

// Labels that let a later build of the same service find this image on the engine. They
// are the same in every build: an unchanged service must keep its digest.
const (
	fleetLabel   = "io.balena.build.fleet"
	serviceLabel = "io.balena.build.service"
)

// outcome is what became of one service.
type outcome struct {
	event.Service
	kind   string // how its Dockerfile was found
	log    buildLog
	failed error
	stored bool
}

func (o *outcome) status() string { return o.Service.Status }

// makeAll brings every service to the registry, side by side. A failure of one does not
// stop the others: their images are the cache of the next try.
func (j *job) makeAll(ctx context.Context, cache map[string]cached) map[string]*outcome {
	outcomes := map[string]*outcome{}
	pool := make(chan struct{}, j.b.parallel)
	var built, done sync.WaitGroup
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseBuild, State: event.Start})
	for _, s := range j.project.services {
		o := &outcome{Service: event.Service{Name: s.name, ImageID: j.images[s.name].ID, Location: j.images[s.name].Location}}
		outcomes[s.name] = o
		j.out.emit(event.Event{Type: event.ServiceState, Service: s.name, State: event.Queued})
		built.Add(1)
		leave := sync.OnceFunc(built.Done)
		done.Go(func() {
			defer leave()
			j.makeOne(ctx, s, cache[s.name], pool, o, leave)
		})
	}
	built.Wait()
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseBuild, State: event.Done})
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhasePush, State: event.Start})
	done.Wait()
	state := event.Done
	for _, o := range outcomes {
		if o.status() != event.StatusSuccess {
			state = event.Failed
		}
	}
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhasePush, State: state})
	return outcomes
}

func (j *job) makeOne(ctx context.Context, s service, c cached, pool chan struct{}, o *outcome, builtIt func()) {
	defer func() {
		if p := recover(); p != nil {
			o.failed = fmt.Errorf("the builder failed: %v", p)
			j.settle(ctx, s, c, o)
		}
	}()
	id, err := j.obtain(ctx, s, c, pool, o)
	builtIt()
	if err == nil {
		err = j.deliver(ctx, s, id, o)
	}
	o.failed = err
	j.settle(ctx, s, c, o)
}

// deliver puts the image to where devices find it.
func (j *job) deliver(ctx context.Context, s service, id string, o *outcome) error {
	if j.onDevice {
		return j.b.engine.tag(ctx, id, DeviceImage(s.name))
	}
	return j.upload(ctx, s, id, o)
}

// obtain gets the service's image onto the engine: built, or pulled as it is.
func (j *job) obtain(ctx context.Context, s service, c cached, pool chan struct{}, o *outcome) (id string, err error) {
	if s.build != nil {
		select {
		case pool <- struct{}{}:
			defer func() { <-pool }()
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	o.StartedAt = time.Now().UTC()
	if !j.onDevice {
		if err := j.b.db.StartImage(ctx, o.ImageID); err != nil {
			return "", err
		}
	}
	state := event.Building
	if s.build == nil {
		state = event.Pulling
	}
	j.out.emit(event.Event{Type: event.ServiceState, Service: s.name, State: state})
	if s.build == nil {
		id, err = j.fetch(ctx, s, o)
	} else {
		id, err = j.buildFor(ctx, s, c, o)
	}
	if err != nil {
		return "", err
	}
	info, err := j.b.engine.api.ImageInspect(ctx, id)
	if err != nil {
		return "", refused(err)
	}
	if s.build != nil && c.ref != "" {
		// The engine's cache may have led to another image of the same content,
		// made at another time. Devices compare digests: they get the old one.
		if before, err := j.b.engine.api.ImageInspect(ctx, c.ref); err == nil && sameContent(before, info) {
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
func (j *job) buildFor(ctx context.Context, s service, c cached, o *outcome) (string, error) {
	nocache := j.opts.nocache
	for {
		id, err := j.buildOnce(ctx, s, c, o, nocache)
		if err != nil {
			return "", err
		}
		info, err := j.b.engine.api.ImageInspect(ctx, id)
		if err != nil {
			return "", refused(err)
		}
		if j.target.goarch == "" || info.Architecture == j.target.goarch {
			return id, nil
		}
		if nocache || j.target.platform == "" {
			return "", &serviceError{text: fmt.Sprintf("the image is for %s and the fleet's devices are %s; use a base image for %s (after FROM scratch, begin with COPY)",
				info.Architecture, j.target.arch, j.target.goarch)}
		}
		nocache = true
	}
}

var declaresArg = regexp.MustCompile(`(?im)^\s*ARG\s+(TARGETARCH|TARGETVARIANT|TARGETPLATFORM|TARGETOS)\b`)

func (j *job) buildOnce(ctx context.Context, s service, c cached, o *outcome, nocache bool) (string, error) {
	r := j.recipes[s.name]
	o.kind = r.kind
	labels := maps.Clone(map[string]string(s.build.Labels))
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, j.marks(s))
	opts := build.ImageBuildOptions{
		Dockerfile:  r.name,
		NoCache:     nocache,
		Labels:      labels,
		BuildArgs:   j.buildArgs(s, r),
		Target:      s.build.Target,
		ShmSize:     int64(s.build.ShmSize),
		ExtraHosts:  hosts(s.build.ExtraHosts),
		Platform:    j.target.platform,
		AuthConfigs: j.meta.registries,
	}
	if !nocache {
		opts.CacheFrom = c.from
		if len(c.from) > 0 || len(s.build.CacheFrom) > 0 {
			opts.CacheFrom = append(opts.CacheFrom, s.build.CacheFrom...)
		}
	}
	reader, writer := io.Pipe()
	defer reader.Close()
	var packing errgroup.Group
	packing.Go(func() error {
		extra := map[string][]byte{}
		if r.changed {
			extra[r.name] = []byte(r.text)
		}
		err := j.src.writeContext(writer, s.context, r.without, extra)
		_ = writer.CloseWithError(err)
		return err
	})
	t := &teller{j: j, service: s.name, o: o}
	id, err := j.b.engine.buildImage(ctx, reader, opts, t.line)
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

// marks are the labels by which an image is found again.
func (j *job) marks(s service) map[string]string {
	if j.onDevice {
		return map[string]string{"io.resin.local.image": "1", "io.resin.local.service": s.name}
	}
	return map[string]string{fleetLabel: fmt.Sprint(j.fleet.ID), serviceLabel: s.name}
}

// buildArgs are the arguments of the compose file, then those of the project's metadata,
// and the platform ones that the classic builder leaves empty.
func (j *job) buildArgs(s service, r recipe) map[string]*string {
	args := map[string]*string{}
	for _, m := range declaresArg.FindAllStringSubmatch(r.text, -1) {
		value := map[string]string{
			"TARGETARCH":     j.target.goarch,
			"TARGETOS":       "linux",
			"TARGETPLATFORM": "linux/" + j.target.goarch,
			"TARGETVARIANT":  map[string]string{"armv7hf": "v7", "rpi": "v6", "aarch64": "v8"}[j.target.arch],
		}[strings.ToUpper(m[1])]
		args[m[1]] = &value
	}
	for name, value := range s.build.Args {
		if value != nil {
			args[name] = value
		}
	}
	for name, value := range j.meta.arguments(s.name) {
		args[name] = &value
	}
	return args
}

// fetch pulls the image of a service that is not built.
func (j *job) fetch(ctx context.Context, s service, o *outcome) (string, error) {
	o.kind = externalService
	named, err := reference.ParseNormalizedNamed(s.image)
	if err != nil {
		return "", &serviceError{text: fmt.Sprintf("%q is no image name: %v", s.image, err)}
	}
	ref := reference.TagNameOnly(named).String()
	var auth string
	if a, ok := j.meta.registries[reference.Domain(named)]; ok {
		auth = encodeAuth(a)
	}
	t := &teller{j: j, service: s.name, o: o}
	progress := j.transfer("pull", s.name)
	return ref, j.b.engine.pull(ctx, ref, auth, j.target.platform, progress, func(status string) { t.line(line{text: status}) })
}

func (j *job) transfer(op, service string) *transfer {
	return &transfer{tell: func(current, total int64, percent int) {
		j.out.emit(event.Event{Type: event.Progress, Service: service, Op: op, Current: current, Total: total, Percent: percent})
	}}
}

const pushAttempts = 3

// upload pushes the image to where the release says it is.
func (j *job) upload(ctx context.Context, s service, id string, o *outcome) error {
	j.out.emit(event.Event{Type: event.ServiceState, Service: s.name, State: event.Pushing})
	ref := o.Location + ":latest"
	if err := j.b.engine.api.ImageTag(ctx, id, ref); err != nil {
		return refused(err)
	}
	defer j.b.engine.untag(context.WithoutCancel(ctx), ref)
	if s.build != nil {
		// A name of its own keeps the image, and so the local cache, when the one for the
		// push goes.
		_ = j.b.engine.api.ImageTag(ctx, id, fmt.Sprintf("deckhand-build/%d:%s", j.fleet.ID, s.name))
	}
	pause := 2 * time.Second
	for attempt := 1; ; attempt++ {
		digest, err := j.pushOnce(ctx, o.Location, ref, s.name)
		if err == nil {
			o.ContentHash = digest
			return nil
		}
		if attempt == pushAttempts || ctx.Err() != nil {
			return fmt.Errorf("push the image: %w", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
			pause = pause * 7 / 5
		}
	}
}

func (j *job) pushOnce(ctx context.Context, location, ref, service string) (string, error) {
	token, err := j.b.registryToken(j.user.subject, []string{model.Repository(location)}, "pull", "push")
	if err != nil {
		return "", err
	}
	return j.b.engine.push(ctx, ref, tokenAuth(token), j.transfer("push", service))
}

// settle stores how a service ended, and tells.
func (j *job) settle(ctx context.Context, s service, c cached, o *outcome) {
	o.EndedAt = time.Now().UTC()
	if o.StartedAt.IsZero() {
		o.StartedAt = o.EndedAt
	}
	state := event.Done
	o.Service.Status = event.StatusSuccess
	var user *serviceError
	switch {
	case o.failed == nil:
		o.Unchanged = c.hash != "" && c.hash == o.ContentHash
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
	if o.Service.Status != event.StatusCancelled && !j.onDevice {
		j.store(ctx, s, o)
	}
	j.out.emit(event.Event{Type: event.ServiceState, Service: s.name, State: state, Error: o.Error, ExitCode: o.ExitCode})
	if state == event.Failed {
		j.out.emit(event.Event{
			Type: event.Error, Service: s.name, Code: "build", Message: o.Error, ExitCode: o.ExitCode,
			Hint: hint(o.Error), Tail: o.log.last(40),
		})
	}
	result := o.Service
	j.out.emit(event.Event{Type: event.ServiceResult, Service: s.name, Result: &result})
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

func (j *job) store(ctx context.Context, s service, o *outcome) {
	r := model.ImageResult{
		Status: o.status(), ContentHash: o.ContentHash, ProjectType: o.kind, ErrorMessage: o.Error,
		BuildLog: o.log.String(), Dockerfile: j.recipes[s.name].text, Size: o.Size,
	}
	if o.status() == event.StatusSuccess {
		r.PushedAt = o.EndedAt
	}
	if err := j.b.db.FinishImage(context.WithoutCancel(ctx), o.ImageID, r); err != nil {
		j.log.Error().Err(err).Str("service", s.name).Msg("finish image")
		o.Service.Status, o.Error = event.StatusError, err.Error()
		return
	}
	o.stored = true
}

// teller turns a service's build output into events and its log.
type teller struct {
	j       *job
	service string
	o       *outcome
	step    event.Event
	since   time.Time
}

func (t *teller) line(l line) {
	t.o.log.add(l.text)
	kind := event.Log
	switch {
	case stepLine.MatchString(l.text):
		kind = engineLine
		t.endStep(event.Done)
		n, total, what, _ := stepOf(l.text)
		t.since = time.Now()
		t.step = event.Event{Type: event.Step, Service: t.service, N: n, Total: int64(total), Text: what, State: event.Start}
		t.o.Steps = total
		t.j.out.emit(t.step)
	case strings.HasPrefix(l.text, " ---> Using cache"):
		kind = engineLine
		t.step.Cached = true
		t.o.CachedSteps++
	case strings.HasPrefix(l.text, " ---> "), strings.HasPrefix(l.text, "Removing intermediate container "),
		strings.HasPrefix(l.text, "Successfully built "), strings.HasPrefix(l.text, "Successfully tagged "):
		kind = engineLine
	}
	if strings.TrimSpace(l.text) == "" {
		return
	}
	stream := "out"
	if l.stderr {
		stream = "err"
	}
	t.j.out.emit(event.Event{Type: kind, Service: t.service, Stream: stream, Text: l.text})
}

func (t *teller) endStep(state string) {
	if t.step.N == 0 {
		return
	}
	t.step.State, t.step.MS = state, time.Since(t.since).Milliseconds()
	t.j.out.emit(t.step)
	t.step = event.Event{}
}
