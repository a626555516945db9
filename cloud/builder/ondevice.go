package builder

import (
	"context"
	"io"
	"maps"
	"time"

	"github.com/rs/zerolog"

	"deckhand/cloud/builder/event"
	"deckhand/cloud/model"
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

// BuildOnDevice builds every service of a project. It gives the composition as a device
// reads it, each service with the name of its image, and how the build ended. An error
// says that there was no build, because of the project or because the engine is away.
func BuildOnDevice(ctx context.Context, c OnDevice) (composition map[string]any, result event.Event, err error) {
	began := time.Now()
	eng, err := newEngine(c.Engine)
	if err != nil {
		return nil, result, err
	}
	defer func() { _ = eng.api.Close() }()
	src, err := spool(c.Archive, c.Dir, DefaultLimits())
	if err != nil {
		return nil, result, err
	}
	defer func() { _ = src.Close() }()
	j := &job{
		b: &Builder{engine: eng, parallel: 2, log: zerolog.Nop()}, log: zerolog.Nop(), begun: began, onDevice: true, commit: DeviceCommit,
		fleet: model.Fleet{Name: DeviceApp, Slug: DeviceApp, DeviceType: c.DeviceType, Arch: c.Arch},
		opts:  options{dockerfile: c.Dockerfile, nocache: c.NoCache}, src: src, out: newStream(listener(c.Events)),
	}
	if err := j.prepare(ctx); err != nil {
		return nil, result, err
	}
	j.target.worker = "the device's engine"
	j.announce()
	outcomes := j.makeAll(ctx, map[string]cached{})
	result = event.Event{Type: event.BuildResult, Status: event.StatusSuccess, DurationMS: time.Since(began).Milliseconds()}
	for _, s := range j.project.services {
		result.Status = worse(result.Status, outcomes[s.name].status())
		result.Services = append(result.Services, outcomes[s.name].Service)
	}
	if ctx.Err() != nil {
		result.Status = event.StatusCancelled
	}
	j.out.emit(result)
	return j.project.forDevice(), result, nil
}

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

// listener hands events to a function in the same process.
type listener func(event.Event)

func (l listener) write(e event.Event) error {
	if l != nil && e.Type != engineLine && (e.Type != event.Phase || e.Name != event.PhasePush) {
		l(e)
	}
	return nil
}

func (listener) beat() error { return nil }

func (listener) close() error { return nil }
