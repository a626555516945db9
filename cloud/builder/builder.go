// Package builder turns a pushed project into a release: package build builds its services,
// this one pushes the images to the registry and keeps the rows of release and images up to
// date.
//
// The flow of one push: ServeHTTP (who, which fleet, how large) → build.Spool (the archive on
// disk, fenced in) → build.Prepare (composition, Dockerfiles) → job.record (rows) →
// job.execute (cache, builds, pushes) → job.conclude (rows final, then the last word).
// What happens on the way is a stream of events, which a sink words for its reader.
package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"deckhand/build"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// Auth is what the builder needs of package auth.
type Auth interface {
	Authenticate(r *http.Request) (auth.Actor, error)
	SignRegistryToken(subject string, access []auth.Access) (string, error)
}

// Config says what a builder works with.
type Config struct {
	DB         *model.DB
	Auth       Auth
	EngineHost string // like unix:///var/run/docker.sock; the engine must reach the registry at the host of image locations
	Dir        string // for pushed projects while they are built; made when missing
	Parallel   int    // services built at the same time in one build; 4 when 0
	Builds     int    // builds at the same time; 2 when 0
	WallTime   time.Duration
	Limits     build.Limits // build.DefaultLimits when zero
	// FetchFrom are private networks that projects may be fetched from; the public
	// internet is always allowed.
	FetchFrom []netip.Prefix
	Log       zerolog.Logger
}

const (
	longestQueue    = 20
	defaultWallTime = 6 * time.Hour
)

// Builder answers POST /v3/build, and with FromURL POST /v3/buildFromUrl.
type Builder struct {
	db       *model.DB
	auth     Auth
	engine   *build.Engine
	dir      string
	parallel int
	wallTime time.Duration
	limits   build.Limits
	fetcher  *fetcher
	log      zerolog.Logger

	slots   chan struct{}
	waiting atomic.Int64
	ended   ended
	stopped chan struct{} // closed by Close
	stop    func()
	active  sync.WaitGroup
}

// New makes a builder. It does not talk to the engine yet: one that is away is reported
// to those who push.
func New(cfg Config) (*Builder, error) {
	eng, err := build.NewEngine(cfg.EngineHost)
	if err != nil {
		return nil, fmt.Errorf("start builder: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start builder: %w", err)
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	if cfg.Builds <= 0 {
		cfg.Builds = 2
	}
	if cfg.WallTime <= 0 {
		cfg.WallTime = defaultWallTime
	}
	if cfg.Limits == (build.Limits{}) {
		cfg.Limits = build.DefaultLimits()
	}
	b := &Builder{
		db: cfg.DB, auth: cfg.Auth, engine: eng, dir: cfg.Dir,
		parallel: cfg.Parallel, wallTime: cfg.WallTime, limits: cfg.Limits, log: cfg.Log,
		fetcher: newFetcher(cfg.FetchFrom, cfg.Limits.Compressed),
		slots:   make(chan struct{}, cfg.Builds), stopped: make(chan struct{}),
	}
	b.stop = sync.OnceFunc(func() { close(b.stopped) })
	return b, nil
}

// Close stops all builds, marks their releases and waits for that.
func (b *Builder) Close() error {
	b.stop()
	b.active.Wait()
	return b.engine.Close()
}

// untilStopped ends a build's context when the builder is closed. The function it returns
// must be called when the build ended.
func (b *Builder) untilStopped(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		select {
		case <-b.stopped:
			cancel(errStopping)
		case <-ended:
			cancel(nil)
		}
	}()
	return ctx, func() { close(ended) }
}

func (b *Builder) closed() bool {
	select {
	case <-b.stopped:
		return true
	default:
		return false
	}
}

// takeSlot waits until a build may begin; queued hears the place in the queue. It is false
// when the build was cancelled meanwhile.
func (b *Builder) takeSlot(ctx context.Context, queued func(position int)) bool {
	select {
	case b.slots <- struct{}{}:
		return true
	default:
	}
	queued(int(b.waiting.Add(1)))
	defer b.waiting.Add(-1)
	select {
	case b.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *Builder) freeSlot() { <-b.slots }

func (b *Builder) registryToken(subject string, repositories []string, actions ...string) (string, error) {
	var access []auth.Access
	for _, name := range repositories {
		access = append(access, auth.Access{Type: "repository", Name: name, Actions: actions})
	}
	return b.auth.SignRegistryToken(subject, access)
}

// ServeHTTP takes one push. Who pushes and where is settled before the body is read.
func (b *Builder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.serve(w, r, r.URL.Query().Get("slug"), func(dir string) (*build.Source, error) {
		return build.Spool(r.Body, dir, b.limits)
	})
}

// serve builds the project that take puts into a folder.
func (b *Builder) serve(w http.ResponseWriter, r *http.Request, slug string, take func(dir string) (*build.Source, error)) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuseRequest(w, http.StatusMethodNotAllowed)
		return
	}
	fleet, user, status := b.admit(r, slug)
	if status != http.StatusOK {
		refuseRequest(w, status)
		return
	}
	b.active.Add(1)
	detached := false
	defer func() {
		if !detached {
			b.active.Done()
		}
	}()
	dir, err := os.MkdirTemp(b.dir, "push-")
	if err != nil {
		b.log.Error().Err(err).Msg("make spool folder")
		refuseRequest(w, http.StatusInternalServerError)
		return
	}
	q := r.URL.Query()
	j := &job{
		b: b, fleet: fleet, user: user, begun: time.Now(),
		log: b.log.With().Str("fleet", fleet.Slug).Logger(),
		opts: options{
			dockerfile: q.Get("dockerfilePath"), nocache: q.Get("nocache") == "true",
			draft: q.Get("isdraft") == "true", headless: q.Get("headless") == "true",
		},
	}
	cleanUp := func() {
		if j.src != nil {
			_ = j.src.Close()
		}
		if err := os.RemoveAll(dir); err != nil {
			j.log.Warn().Err(err).Msg("remove spool folder")
		}
	}
	defer func() {
		if !detached {
			cleanUp()
		}
	}()
	var spoolErr error
	j.src, spoolErr = take(dir)
	if errors.Is(spoolErr, build.ErrTooLarge) {
		refuseRequest(w, http.StatusRequestEntityTooLarge)
		return
	}
	if wrong, ok := errors.AsType[*answer.BodyError](spoolErr); ok {
		answer.BadBody(w, wrong)
		return
	}
	if j.opts.headless {
		detached = b.detach(w, r, j, spoolErr, cleanUp)
		return
	}
	b.attach(w, r, j, spoolErr)
}

// refuseRequest answers with a status alone: clients show no more than its reason.
func refuseRequest(w http.ResponseWriter, status int) {
	// Without this the server would read on before it answers, and the body is large.
	w.Header().Set("Connection", "close")
	http.Error(w, http.StatusText(status), status)
}

// failureStatus tells what will be better soon from what will not.
func failureStatus(err error) int {
	if _, ok := answer.Unavailable(err); ok {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// admit decides by the head of a request.
func (b *Builder) admit(r *http.Request, slug string) (model.Fleet, caller, int) {
	actor, err := b.auth.Authenticate(r)
	switch {
	case errors.Is(err, auth.ErrUnauthenticated):
		return model.Fleet{}, caller{}, http.StatusUnauthorized
	case err != nil:
		b.log.Error().Err(err).Msg("authenticate")
		return model.Fleet{}, caller{}, failureStatus(err)
	case actor.Kind != auth.User:
		return model.Fleet{}, caller{}, http.StatusForbidden
	}
	user := caller{id: actor.ID, name: actor.Name, subject: actor.Name}
	encoding := strings.ToLower(r.Header.Get("Content-Encoding"))
	switch {
	case slug == "":
		return model.Fleet{}, user, http.StatusBadRequest
	case encoding != "" && encoding != "gzip" && encoding != "identity":
		return model.Fleet{}, user, http.StatusUnsupportedMediaType
	case r.ContentLength > b.limits.Compressed:
		return model.Fleet{}, user, http.StatusRequestEntityTooLarge
	case b.closed() || b.waiting.Load() >= longestQueue:
		return model.Fleet{}, user, http.StatusServiceUnavailable
	}
	fleet, err := b.db.FleetBySlug(r.Context(), slug)
	if err == nil {
		var may bool
		if may, err = b.db.UserMayUseFleet(r.Context(), actor.ID, fleet.ID); err == nil && !may {
			err = model.ErrNotFound
		}
	}
	switch {
	case errors.Is(err, model.ErrNotFound):
		return model.Fleet{}, user, http.StatusNotFound
	case err != nil:
		b.log.Error().Err(err).Msg("look up fleet")
		return model.Fleet{}, user, failureStatus(err)
	}
	return fleet, user, http.StatusOK
}

// attach runs a build while its client listens; the build ends when the client leaves.
func (b *Builder) attach(w http.ResponseWriter, r *http.Request, j *job, spoolErr error) {
	ctx, ended := b.untilStopped(r.Context())
	defer ended()
	j.out = newStream(sinkFor(w, r))
	w.WriteHeader(http.StatusOK)
	silence := make(chan struct{})
	var beats sync.WaitGroup
	beats.Go(func() { j.out.keepAlive(silence) })
	whole := j.run(ctx, spoolErr)
	close(silence)
	beats.Wait()
	if !whole {
		// Cut the connection: a client that sees a proper end believes in success.
		panic(http.ErrAbortHandler)
	}
	j.out.close()
}

// sinkFor chooses the wording: our own tools ask for events, all others get the array.
func sinkFor(w http.ResponseWriter, r *http.Request) sink {
	for _, accept := range strings.Split(r.Header.Get("Accept"), ",") {
		if kind, _, err := mime.ParseMediaType(accept); err == nil && kind == "application/x-ndjson" {
			w.Header().Set("Content-Type", "application/x-ndjson")
			return &lines{newFlusher(w)}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	return &array{out: newFlusher(w), words: newHosted()}
}

// detach answers as soon as there is a release and goes on building without the client.
// It says whether something goes on.
func (b *Builder) detach(w http.ResponseWriter, r *http.Request, j *job, spoolErr error, cleanUp func()) bool {
	j.out = newStream(nil)
	err := j.begin(r.Context(), spoolErr)
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		j.log.Info().Err(err).Msg("push refused")
		reply(w, struct {
			Started bool   `json:"started"`
			Error   string `json:"error"`
			Message string `json:"message"`
		}{false, "The build could not be started", err.Error()})
		return false
	}
	go func() {
		defer b.active.Done()
		defer cleanUp()
		ctx, ended := b.untilStopped(context.Background())
		defer ended()
		j.safely(func() { j.execute(ctx) })
	}()
	reply(w, struct {
		Started   bool  `json:"started"`
		ReleaseID int64 `json:"releaseId"`
	}{true, j.release.ID})
	return true
}

func reply(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
