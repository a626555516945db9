package builder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"deckhand/cloud/builder/event"
	"deckhand/cloud/model"
)

// Why a build ends before its time.
var (
	errCancelled = errors.New("the build was cancelled")
	errStopping  = errors.New("the builder is being stopped")
	errTooLong   = errors.New("the build takes longer than this builder allows")
)

// options are what the caller asked for beside the project itself.
type options struct {
	dockerfile               string
	nocache, draft, headless bool
}

// job is one push on its way to a release.
type job struct {
	b     *Builder
	fleet model.Fleet
	user  caller
	opts  options
	src   *source
	out   *stream
	log   zerolog.Logger
	begun time.Time

	onDevice bool // there is neither release nor registry: images stay on the engine

	commit  string
	meta    metadata
	project *project
	recipes map[string]recipe
	target  target
	release model.Release
	images  map[string]model.Image
}

// caller is who pushes.
type caller struct {
	id      int64 // of the user
	name    string
	subject string // for registry tokens
}

// target is the machine that images are made for, in the engine's terms.
type target struct {
	machine
	goarch   string // what an image must say it is for; "" when unknown
	platform string // asked of the engine; "" when it is the engine's own
	worker   string
}

// run takes a push whose client listens to its end. It is false when the builder broke
// down or is being stopped, and the client must not take what it got for the whole.
func (j *job) run(ctx context.Context, spoolErr error) bool {
	if err := j.begin(ctx, spoolErr); err != nil {
		j.refuse(err)
		return true
	}
	return j.safely(func() { j.execute(ctx) }) && !errors.Is(context.Cause(ctx), errStopping)
}

// begin goes as far as a release.
func (j *job) begin(ctx context.Context, spoolErr error) error {
	if spoolErr != nil {
		return spoolErr
	}
	if err := j.prepare(ctx); err != nil {
		return err
	}
	return j.record(ctx)
}

// safely leaves no release behind as running when our own code breaks down.
func (j *job) safely(do func()) (whole bool) {
	defer func() {
		if p := recover(); p != nil {
			j.log.Error().Interface("panic", p).Msg("build broke down")
			j.conclude(context.Background(), event.StatusError, nil)
		}
	}()
	do()
	return true
}

// prepare checks everything that can be checked before there is a release.
func (j *job) prepare(ctx context.Context) error {
	var err error
	if !j.onDevice {
		j.commit = newCommit()
	}
	if j.meta, err = readMetadata(j.src); err != nil {
		return err
	}
	if j.project, err = loadProject(ctx, j.src, j.opts.dockerfile); err != nil {
		return err
	}
	m := machine{deviceType: j.fleet.DeviceType, arch: j.fleet.Arch}
	j.recipes = map[string]recipe{}
	for _, s := range j.project.services {
		if s.build == nil {
			continue
		}
		vars := templateVars(m, j.fleet.Name, s.name, j.commit)
		if j.recipes[s.name], err = findDockerfile(j.src, s, m, vars); err != nil {
			return err
		}
	}
	arch, err := j.b.engine.arch(ctx)
	if err != nil {
		return err
	}
	j.target = targetFor(m, arch)
	return nil
}

func newCommit() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
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

// record makes the rows of the release: from here on every way out goes through finish.
func (j *job) record(ctx context.Context) error {
	composition, err := json.Marshal(j.project.composition)
	if err != nil {
		return fmt.Errorf("write composition: %w", err)
	}
	j.release, err = j.b.db.CreateRelease(ctx, model.NewRelease{
		Fleet: j.fleet.ID, Commit: j.commit, Source: "cloud", Composition: composition,
		Final: !j.opts.draft, Semver: j.meta.semver, User: j.user.id,
	})
	if err != nil {
		return err
	}
	j.log = j.log.With().Int64("release", j.release.ID).Logger()
	j.out.emit(event.Event{
		Type: event.ReleaseCreated, ReleaseID: j.release.ID, Commit: j.commit,
		Draft: j.opts.draft, Semver: j.release.RawVersion,
	})
	j.images = map[string]model.Image{}
	for _, s := range j.project.services {
		img, err := j.b.db.AddImage(ctx, model.NewImage{
			Release: j.release.ID, Service: s.name, Labels: s.labels, Environment: s.environment,
		})
		if err != nil {
			j.conclude(ctx, event.StatusError, nil)
			return fmt.Errorf("the release could not be stored: %w", err)
		}
		j.images[s.name] = img
	}
	return nil
}

// execute builds and pushes, and leaves no row unfinished.
func (j *job) execute(ctx context.Context) {
	ctx, stopTimer := context.WithTimeoutCause(ctx, j.b.wallTime, errTooLong)
	defer stopTimer()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer j.watch(cancel)()

	outcomes := map[string]*outcome{}
	if j.b.takeSlot(ctx, func(position int) {
		j.out.emit(event.Event{Type: event.BuildQueued, Position: position})
	}) {
		defer j.b.freeSlot()
		j.announce()
		cache := j.pullCache(ctx)
		outcomes = j.makeAll(ctx, cache)
		j.dropCache(cache)
	}
	status := event.StatusSuccess
	for _, o := range outcomes {
		status = worse(status, o.status())
	}
	if cause := context.Cause(ctx); cause != nil {
		status = statusOf(cause)
	}
	j.conclude(ctx, status, outcomes)
}

func statusOf(cause error) string {
	switch {
	case errors.Is(cause, errStopping):
		return event.StatusError
	case errors.Is(cause, errTooLong):
		return event.StatusFailed
	}
	return event.StatusCancelled
}

// worse is the one of two outcomes that a person should hear of.
func worse(a, b string) string {
	for _, s := range []string{event.StatusError, event.StatusFailed, event.StatusCancelled} {
		if a == s || b == s {
			return s
		}
	}
	return a
}

// watch cancels the build when its release is cancelled from elsewhere. The function it
// returns ends the watch.
func (j *job) watch(cancel context.CancelCauseFunc) func() {
	changes := j.b.db.Changes().Watch(model.Topic{Kind: model.ReleaseStatus, ID: j.release.ID})
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-changes.C():
			}
			r, err := j.b.db.ReleaseByID(context.Background(), j.release.ID)
			if err == nil && r.Status == model.StatusCancelled {
				cancel(errCancelled)
			}
		}
	})
	return func() {
		close(stop)
		done.Wait()
		changes.Stop()
	}
}

func (j *job) announce() {
	e := event.Event{
		Type: event.BuildStarted, Fleet: j.fleet.Slug, User: j.user.name, Arch: j.target.arch,
		DeviceType: j.target.deviceType, Worker: j.target.worker,
	}
	for _, s := range j.project.services {
		if s.build != nil {
			e.Services = append(e.Services, event.Service{Name: s.name, Kind: "build", Context: s.context})
		} else {
			e.Services = append(e.Services, event.Service{Name: s.name, Kind: "image", Image: s.image})
		}
	}
	j.out.emit(e)
	for _, w := range append(j.meta.warnings, j.project.warnings...) {
		j.out.emit(event.Event{Type: event.Warning, Code: "project", Message: w})
	}
}

// conclude finalises the rows and only then says how the build ended: a client that
// leaves at once sees the final state.
func (j *job) conclude(ctx context.Context, status string, outcomes map[string]*outcome) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	result := event.Event{
		Type: event.BuildResult, Status: status, ReleaseID: j.release.ID, Commit: j.commit,
		DurationMS: time.Since(j.begun).Milliseconds(),
	}
	for _, s := range j.project.services {
		if o := outcomes[s.name]; o != nil {
			result.Services = append(result.Services, o.Service)
		}
	}
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseFinalise, State: event.Start})
	if status == event.StatusCancelled {
		if err := j.b.db.CancelRelease(ctx, j.release.ID); err != nil {
			j.log.Error().Err(err).Msg("cancel release")
		}
	} else {
		j.closeImages(ctx, status, outcomes)
	}
	release, err := j.b.db.FinishRelease(ctx, j.release.ID, status, j.out.overviewWith(result))
	switch {
	case err != nil:
		j.log.Error().Err(err).Msg("finish release")
		j.out.emit(event.Event{Type: event.Error, Code: "internal", Message: "the release could not be stored: " + err.Error()})
		result.Status = event.StatusError
	case release.Status == model.StatusCancelled:
		result.Status = event.StatusCancelled
	}
	j.log.Info().Str("status", result.Status).Dur("took", time.Since(j.begun)).Msg("build ended")
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseFinalise, State: event.Done})
	j.out.emit(result)
}

// closeImages ends the rows of images that never got to an outcome of their own.
func (j *job) closeImages(ctx context.Context, status string, outcomes map[string]*outcome) {
	for _, name := range sortedKeys(j.images) {
		if o := outcomes[name]; o != nil && o.stored {
			continue
		}
		if err := j.b.db.FinishImage(ctx, j.images[name].ID, model.ImageResult{Status: status}); err != nil {
			j.log.Error().Err(err).Str("service", name).Msg("finish image")
		}
	}
}

// refuse says why there is no release.
func (j *job) refuse(err error) {
	j.log.Info().Err(err).Msg("push refused")
	j.out.emit(event.Event{Type: event.Error, Code: "project", Message: err.Error()})
	j.out.emit(event.Event{
		Type: event.BuildResult, Status: event.StatusFailed,
		DurationMS: time.Since(j.begun).Milliseconds(),
	})
}
