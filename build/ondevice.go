package build

import (
	"context"
	"io"
	"maps"
	"sync"
	"time"

	"deckhand/build/event"
)

// What a project is called on a device that it was pushed to: clients of every kind say
// the same, so that each can go on where another one was.
const (
	DeviceApp    = "localapp"
	DeviceCommit = "10ca12e1ea5e"
)

// DeviceImage is the name of a service's image on a device that it was pushed to.
func DeviceImage(service string) string { return "local_image_" + service + ":latest" }

// OnDevice is a build on the engine of a device in local mode, where the images stay.
type OnDevice struct {
	Engine           string // host of the device's engine, like tcp://192.168.1.5:2375
	DeviceType, Arch string // slugs

	Archive    io.Reader // the project, plain or gzipped tar
	Dir        string    // an empty folder for it; removing it is the caller's business
	Dockerfile string    // another one, for projects without a compose file
	NoCache    bool

	Events func(event.Event) // what happens; not called at the same time
}

// Do builds every service of a project. It gives the composition as a device reads it, each
// service with the name of its image, and how the build ended. An error says that there was
// no build, because of the project or because the engine is away.
func (c OnDevice) Do(ctx context.Context) (composition map[string]any, result event.Event, err error) {
	began := time.Now()
	engine, err := NewEngine(c.Engine)
	if err != nil {
		return nil, result, err
	}
	defer func() { _ = engine.Close() }()
	src, err := Spool(c.Archive, c.Dir, DefaultLimits())
	if err != nil {
		return nil, result, err
	}
	defer func() { _ = src.Close() }()
	heard := &listener{tell: c.Events}
	b, err := Prepare(ctx, engine, Order{
		Source: src, App: DeviceApp, Commit: DeviceCommit, DeviceType: c.DeviceType, Arch: c.Arch,
		Dockerfile: c.Dockerfile, NoCache: c.NoCache, Worker: "the device's engine", Events: heard.hear,
	})
	if err != nil {
		return nil, result, err
	}
	b.Announce(DeviceApp, "")
	outcomes := b.Run(ctx, onEngine{engine}, servicesAtOnce, nil)
	result = event.Event{Type: event.BuildResult, Status: event.StatusSuccess, DurationMS: time.Since(began).Milliseconds()}
	for _, s := range b.Services() {
		result.Status = Worse(result.Status, outcomes[s.Name].Status)
		result.Services = append(result.Services, outcomes[s.Name].Service)
	}
	if ctx.Err() != nil {
		result.Status = event.StatusCancelled
	}
	heard.hear(result)
	return b.project.forDevice(), result, nil
}

// servicesAtOnce on a device: it is small, and runs something meanwhile.
const servicesAtOnce = 2

// onEngine leaves images on the engine that built them, where local mode looks for them.
type onEngine struct{ engine *Engine }

// Place is nowhere else.
func (onEngine) Place(string) (image int64, location string) { return 0, "" }

// Labels are those that clients of every kind give images in local mode.
func (onEngine) Labels(service string) map[string]string {
	return map[string]string{"io.resin.local.image": "1", "io.resin.local.service": service}
}

// Begin has nothing to note.
func (onEngine) Begin(context.Context, Service, *Outcome) error { return nil }

// Deliver names the image.
func (d onEngine) Deliver(ctx context.Context, s Service, id string, _ *Outcome) error {
	return d.engine.Tag(ctx, id, DeviceImage(s.Name))
}

// Store has nothing to note.
func (onEngine) Store(context.Context, Service, *Outcome) {}

// forDevice is the composition with images in place of builds.
func (p *project) forDevice() map[string]any {
	out := maps.Clone(p.composition)
	services := map[string]any{}
	for name, s := range child(out, "services") {
		fields, ok := s.(map[string]any)
		if !ok {
			continue
		}
		fields = maps.Clone(fields)
		delete(fields, "build")
		fields["image"] = DeviceImage(name)
		services[name] = fields
	}
	out["services"] = services
	return out
}

// listener hands the events of a build to a function, one after the other. There is no push.
type listener struct {
	tell func(event.Event) // may be nil

	mu       sync.Mutex
	sequence event.Sequence
}

func (l *listener) hear(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sequence.Stamp(&e, time.Now())
	if l.tell != nil && e.Type != event.EngineLine && (e.Type != event.Phase || e.Name != event.PhasePush) {
		l.tell(e)
	}
}
