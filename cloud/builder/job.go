package builder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"deckhand/build"
	"deckhand/build/event"
	"deckhand/cloud/model"
)

// Why a build ends before its time.
var (
	errCancelled = errors.New("the build was cancelled")
	errEnded     = errors.New("the build was ended by another server, which took this one for gone, or by somebody else")
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
	src   *build.Source
	out   *stream
	log   zerolog.Logger
	begun time.Time

	commit  string
	build   *build.Build
	release model.Release
	images  map[string]model.Image
}

// caller is who pushes.
type caller struct {
	id      int64 // of the user
	name    string
	subject string // for registry tokens
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
	j.commit = newCommit()
	var err error
	j.build, err = build.Prepare(ctx, j.b.engine, build.Order{
		Source: j.src, App: j.fleet.Name, Commit: j.commit, DeviceType: j.fleet.DeviceType, Arch: j.fleet.Arch,
		Dockerfile: j.opts.dockerfile, NoCache: j.opts.nocache, Events: j.out.emit,
	})
	return err
}

func newCommit() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// record makes the rows of the release: from here on every way out goes through finish.
func (j *job) record(ctx context.Context) error {
	composition, err := json.Marshal(j.build.Composition())
	if err != nil {
		return fmt.Errorf("write composition: %w", err)
	}
	j.release, err = j.b.db.CreateRelease(ctx, model.NewRelease{
		Fleet: j.fleet.ID, Commit: j.commit, Source: "cloud", Composition: composition,
		Final: !j.opts.draft, Semver: j.build.Version(), User: j.user.id,
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
	for _, s := range j.build.Services() {
		img, err := j.b.db.AddImage(ctx, model.NewImage{
			Release: j.release.ID, Service: s.Name, Labels: s.Labels, Environment: s.Environment,
		})
		if err != nil {
			j.conclude(ctx, event.StatusError, nil)
			return fmt.Errorf("the release could not be stored: %w", err)
		}
		j.images[s.Name] = img
	}
	return nil
}

// execute builds and pushes, and leaves no row unfinished.
func (j *job) execute(ctx context.Context) {
	ctx, stopTimer := context.WithTimeoutCause(ctx, j.b.wallTime, errTooLong)
	defer stopTimer()
	ctx, kept := j.b.db.KeepBuild(ctx, j.release.ID)
	defer kept()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer j.watch(cancel)()

	outcomes := map[string]*build.Outcome{}
	if j.b.takeSlot(ctx, func(position int) {
		j.out.emit(event.Event{Type: event.BuildQueued, Position: position})
	}) {
		defer j.b.freeSlot()
		j.build.Announce(j.fleet.Slug, j.user.name)
		cache := j.pullCache(ctx)
		outcomes = j.build.Run(ctx, destination{j}, j.b.parallel, offers(cache))
		j.dropCache(cache)
	}
	status := event.StatusSuccess
	for _, o := range outcomes {
		status = build.Worse(status, o.Status)
	}
	if cause := context.Cause(ctx); cause != nil {
		status = statusOf(cause)
		if lost(cause) {
			j.out.emit(event.Event{Type: event.Error, Code: "lost", Message: cause.Error() + "; push again"})
		}
	}
	j.conclude(ctx, status, outcomes)
}

func statusOf(cause error) string {
	switch {
	case lost(cause) || errors.Is(cause, errStopping):
		return event.StatusError
	case errors.Is(cause, errTooLong):
		return event.StatusFailed
	}
	return event.StatusCancelled
}

// lost says that the build is not this server's affair any more.
func lost(cause error) bool {
	_, expired := errors.AsType[*model.LostError](cause)
	return expired || errors.Is(cause, errEnded)
}

// watch ends the build when its release was ended from elsewhere. The function it returns
// ends the watch.
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
			switch {
			case err != nil || r.Status == model.StatusRunning: // the database is away, or it was something else
			case r.Status == model.StatusCancelled:
				cancel(errCancelled)
			default:
				cancel(errEnded)
			}
		}
	})
	return func() {
		close(stop)
		done.Wait()
		changes.Stop()
	}
}

// conclude finalises the rows and only then says how the build ended: a client that
// leaves at once sees the final state.
func (j *job) conclude(ctx context.Context, status string, outcomes map[string]*build.Outcome) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	result := event.Event{
		Type: event.BuildResult, Status: status, ReleaseID: j.release.ID, Commit: j.commit,
		DurationMS: time.Since(j.begun).Milliseconds(),
	}
	for _, s := range j.build.Services() {
		if o := outcomes[s.Name]; o != nil {
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
	default:
		result.Status = release.Status // it may have been ended from elsewhere
	}
	j.b.ended.add(result.Status)
	j.log.Info().Str("status", result.Status).Dur("took", time.Since(j.begun)).Msg("build ended")
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseFinalise, State: event.Done})
	j.out.emit(result)
}

// closeImages ends the rows of images that never got to an outcome of their own.
func (j *job) closeImages(ctx context.Context, status string, outcomes map[string]*build.Outcome) {
	for _, name := range slices.Sorted(maps.Keys(j.images)) {
		if o := outcomes[name]; o != nil && o.Stored {
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
