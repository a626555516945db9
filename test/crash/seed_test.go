package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/files"
	"deckhand/locks"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

// seeding puts a simulated device onto an engine and a disk.
type seeding struct {
	x      *scene
	fake   *enginetest.Fake
	engine *engine.Engine
	store  *store.Store
	at     place
	extra  []string    // IDs of networks that are only needed on the way
	owners []string    // IDs of containers that are gone, and others use their network
	twins  [][2]string // IDs of networks and of their duplicates
	taken  map[string]bool
	lends  map[string]bool // containers whose network others use
	dress  []func()        // gives containers their states, once all are made
}

// put makes the device that the scene begins with. It runs in virtual time.
func (x *scene) put(ctx context.Context, at place, fake *enginetest.Fake) (err error) {
	s := &seeding{x: x, fake: fake, at: at, taken: map[string]bool{}, lends: map[string]bool{}}
	if err := os.MkdirAll(at.run(), 0o755); err != nil {
		return err
	}
	if s.store, err = store.Open(at.database(), store.Options{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	s.engine, err = engine.New(engine.Config{Host: "tcp://fake:1", Transport: fake, RunDir: at.run(), Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.engine.Close()) }()
	if err := s.images(); err != nil {
		return err
	}
	s.others()
	if s.x.first.APINetwork || s.usesAPI() {
		if err := s.engine.Do(ctx, reconcile.CreateAPINetwork{}, nil); err != nil {
			return err
		}
	}
	for _, uuid := range slices.Sorted(maps.Keys(x.first.Apps)) {
		if err := s.app(ctx, x.first.Apps[uuid]); err != nil {
			return fmt.Errorf("put %s: %w", uuid, err)
		}
	}
	if !s.x.first.APINetwork {
		for _, n := range fake.Networks() {
			if n.Name == state.APINetworkName {
				fake.DropNetwork(n.ID)
			}
		}
	}
	return s.wishes()
}

// others makes what the targets call external.
func (s *seeding) others() {
	for _, t := range s.x.sides {
		for _, a := range t.Apps {
			for _, v := range a.Services {
				for _, at := range v.Spec.Networks {
					s.other("network", at.External, at.External != "")
				}
				for _, m := range v.Spec.Mounts {
					s.other("volume", m.Source, m.External)
				}
			}
		}
	}
}

func (s *seeding) other(kind, name string, external bool) {
	if key := kind + " " + name; external && !s.taken[key] {
		s.taken[key] = true
		s.fake.Add(kind, name)
	}
}

func (s *seeding) usesAPI() bool {
	for _, a := range s.x.first.Apps {
		for _, c := range a.Containers {
			if c.API || c.Spec != nil && c.Spec.UsesAPINetwork() {
				return true
			}
		}
	}
	return false
}

// wishes puts what people asked for into the store.
func (s *seeding) wishes() error {
	err := s.store.Intents.Change(s.x.first.Intents)
	for _, o := range s.x.first.Overrides {
		err = errors.Join(err, s.store.Overrides.Put(store.Override{Override: o}))
	}
	return err
}

// locks makes the lock files of an app: ours, left by an earlier run, and those
// of users, which are folders here, since that needs no other user.
func (s *seeding) locks(a state.AppNow) error {
	at := func(service string) string {
		return filepath.Join(s.at.run(), "services", fmt.Sprint(a.ID), service)
	}
	for _, service := range a.Locked {
		if err := os.MkdirAll(at(service), 0o755); err != nil {
			return err
		}
		for _, name := range []string{"updates.lock", "resin-updates.lock"} {
			file := filepath.Join(at(service), name)
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				return err
			}
			if os.Geteuid() == 0 {
				if err := os.Chown(file, locks.LockUID, -1); err != nil {
					return err
				}
			}
		}
	}
	for _, l := range a.UserLocks {
		if err := os.MkdirAll(filepath.Join(at(l.Service), "updates.lock"), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// owner makes the container whose network another one uses, when it is gone.
func (s *seeding) owner(ctx context.Context, app reconcile.App, a state.AppNow, c state.Container) error {
	there := func(o state.Container) bool { return o.ID == c.NetworkOwner }
	if c.NetworkOwner == "" || slices.ContainsFunc(a.Containers, there) || slices.Contains(s.owners, c.NetworkOwner) {
		return nil
	}
	gone := state.Container{ID: c.NetworkOwner, Name: "gone", Phase: state.Running, Service: s.service(a.UUID, c).Spec.NetworkOwner(), Image: c.Image}
	s.owners = append(s.owners, gone.ID)
	return s.container(ctx, app, gone)
}

// lostSecrets writes files that are gone and that containers were made with. The
// function removes them again.
func (s *seeding) lostSecrets(a state.AppNow) (remove func() error, err error) {
	to := files.Open(files.Config{RunDir: s.at.run(), Log: zerolog.Nop()})
	var gone []state.FilesNow
	for _, c := range a.Containers {
		if c.Spec == nil || len(c.Spec.Files) == 0 {
			continue
		}
		f := state.FilesNow{Service: c.Service, Hash: state.FilesHash(c.Spec.Files)}
		if slices.Contains(a.Files, f) {
			continue
		}
		gone = append(gone, f)
		err = errors.Join(err, to.Write(a.ID, f.Service, f.Hash, c.Spec.Files))
	}
	return func() error {
		var err error
		for _, f := range gone {
			err = errors.Join(err, to.Remove(a.ID, f.Service, f.Hash))
		}
		return err
	}, err
}

// secrets writes the files of services.
func (s *seeding) secrets(a state.AppNow) error {
	to := files.Open(files.Config{RunDir: s.at.run(), Log: zerolog.Nop()})
	for _, f := range a.Files {
		list, ok := s.content(a.UUID, f)
		if !ok {
			return fmt.Errorf("nobody knows the content of the files %s of %s", f.Hash, f.Service)
		}
		if err := to.Write(a.ID, f.Service, f.Hash, list); err != nil {
			return err
		}
	}
	return nil
}

func (s *seeding) content(uuid string, f state.FilesNow) ([]state.File, bool) {
	for _, t := range s.x.sides {
		if list := t.Apps[uuid].Services[f.Service].Spec.Files; state.FilesHash(list) == f.Hash {
			return list, true
		}
	}
	return nil, false
}

// imageID is the engine's ID of an image of the simulation.
func imageID(simulated string) string {
	ref := strings.TrimPrefix(simulated, "image-of-")
	if strings.HasPrefix(ref, "sha256:") {
		return enginetest.ImageID(ref)
	}
	return enginetest.ImageID(enginetest.DigestOf(ref))
}

func (s *seeding) images() error {
	all := map[string]state.Image{}
	for _, a := range s.x.first.Apps {
		for _, c := range a.Containers {
			all[c.Image] = state.Image{ID: c.Image} // at least as <none>
		}
	}
	maps.Copy(all, s.x.first.Images)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		i := all[id]
		refs := slices.Clone(i.Refs)
		for _, r := range i.Refs {
			if state.Digest(r) == "" {
				refs = append(refs, state.Repository(r)+"@"+enginetest.DigestOf(r)) // as a pull does
			}
		}
		s.fake.Load(imageID(id), 1000, refs...)
		if !i.Ours {
			continue
		}
		for _, r := range i.Refs {
			if err := s.store.Images.Put(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *seeding) app(ctx context.Context, a state.AppNow) error {
	app := reconcile.App{UUID: a.UUID, ID: a.ID, Name: a.UUID}
	if a.Commit != "" {
		if err := s.store.Commits.Put(a.UUID, store.Committed{Commit: a.Commit, Images: a.Images}); err != nil {
			return err
		}
	}
	for _, v := range a.Volumes {
		step := reconcile.CreateVolume{App: app, Volume: state.Volume{Name: v.Name, Hash: v.Hash, Spec: s.volume(a.UUID, v.Name, v.Hash)}}
		if err := s.engine.Do(ctx, step, nil); err != nil {
			return err
		}
	}
	for service, h := range a.Handovers {
		if err := s.store.Handovers.Put(store.OfService(a.UUID, service), h); err != nil {
			return err
		}
	}
	if err := errors.Join(s.locks(a), s.secrets(a), s.networks(ctx, app, a)); err != nil {
		return err
	}
	lost, err := s.lostSecrets(a)
	if err != nil {
		return err
	}
	for _, c := range a.Containers {
		s.lends[c.NetworkOwner] = true
	}
	for _, c := range a.Containers {
		if err := errors.Join(s.owner(ctx, app, a, c), s.container(ctx, app, c)); err != nil {
			return fmt.Errorf("%s: %w", c.ID, err)
		}
		time.Sleep(2 * time.Second) //nolint:forbidigo // virtual time: each is older than the next
	}
	for _, f := range s.dress {
		f()
	}
	for _, id := range s.extra {
		s.fake.DropNetwork(id)
	}
	for _, t := range s.twins {
		s.fake.CopyNetwork(t[0], t[1])
	}
	for _, id := range s.owners {
		s.fake.DropContainer(id)
	}
	s.extra, s.twins, s.owners, s.dress = nil, nil, nil, nil
	return lost()
}

func (s *seeding) volume(uuid, name, hash string) state.VolumeSpec {
	for _, t := range s.x.sides {
		if v, ok := t.Apps[uuid].Volumes[name]; ok && v.Hash == hash {
			return v.Spec
		}
	}
	return state.VolumeSpec{Driver: "local"}
}

func (s *seeding) network(uuid, name, hash string) state.NetworkSpec {
	for _, t := range s.x.sides {
		if n, ok := t.Apps[uuid].Networks[name]; ok && (n.Hash == hash || hash == "") {
			return n.Spec
		}
	}
	return state.NetworkSpec{Driver: "bridge"}
}

// networks makes each network once, duplicates of it, and for a while those that
// are gone and that containers still refer to.
func (s *seeding) networks(ctx context.Context, app reconcile.App, a state.AppNow) error {
	made := map[string]string{}
	make := func(id, name, hash string) error {
		if s.taken[id] {
			id += "-" + a.UUID
		}
		s.taken[id] = true
		n := state.Network{Name: name, Hash: hash, Spec: s.network(a.UUID, name, hash)}
		s.fake.Name(id)
		made[name] = id
		return s.engine.Do(ctx, reconcile.CreateNetwork{App: app, Network: n}, nil)
	}
	for _, n := range a.Networks {
		if first := made[n.Name]; first != "" {
			s.twins = append(s.twins, [2]string{first, n.ID})
			continue
		}
		if err := make(n.ID, n.Name, n.Hash); err != nil {
			return err
		}
	}
	for _, c := range a.Containers {
		for _, name := range wanted(s.service(a.UUID, c)) {
			if made[name] == "" {
				if err := make("gone-"+name, name, ""); err != nil {
					return err
				}
				s.extra = append(s.extra, made[name])
			}
		}
	}
	return nil
}

func wanted(v state.Service) []string { return v.Spec.AppNetworks() }

// service is what a container was made from.
func (s *seeding) service(uuid string, c state.Container) state.Service {
	v := state.Service{Name: c.Service, Running: true}
	for _, t := range s.x.sides {
		if found, ok := t.Apps[uuid].Services[c.Service]; ok && (c.Hash == "" || found.Hash == c.Hash) {
			v = found
			break
		}
	}
	if c.Spec != nil {
		v.Spec = *c.Spec
	}
	v.ID, v.ImageID, v.Hash, v.Image = c.ServiceID, c.ImageID, c.Hash, imageID(c.Image)
	return v
}

func (s *seeding) container(ctx context.Context, app reconcile.App, c state.Container) error {
	v := s.service(app.UUID, c)
	// Each app of a simulation counts from one.
	if s.taken[c.ID] {
		c.ID += "-" + app.UUID
	}
	s.taken[c.ID] = true
	if c.Spec != nil {
		if err := s.store.Specs.Put(c.Hash, *c.Spec); err != nil {
			return err
		}
	}
	if c.Halted {
		if err := s.store.Halted.Put(c.ID); err != nil {
			return err
		}
	}
	s.fake.Name(c.ID)
	if err := s.engine.Do(ctx, reconcile.Create{App: app, Commit: c.Commit, ReleaseID: c.ReleaseID, Service: v}, nil); err != nil {
		return err
	}
	if c.Up() || s.lends[c.ID] {
		if err := s.engine.Do(ctx, reconcile.Start{App: app, Service: c.Service, Hash: c.Hash, Container: c.ID}, nil); err != nil {
			return err
		}
	}
	if !s.fake.Set(c.ID, func(b *enginetest.Box) { b.Name = c.Name }) {
		return errors.New("it was not made")
	}
	s.dress = append(s.dress, func() { s.look(app, c) })
	return nil
}

// look gives a container the state that it has on the simulated device.
func (s *seeding) look(app reconcile.App, c state.Container) {
	s.fake.Set(c.ID, func(b *enginetest.Box) {
		b.Status, b.Code, b.Health, b.Failed = string(c.Phase), c.ExitCode, c.Health, c.Refused
		if c.Refused != "" && c.ExitCode == 0 {
			b.Code = 128 // the engine's word for it
		}
		if c.Hash == "" {
			delete(b.Labels, state.LabelSpec)
		}
		b.Networks = slices.DeleteFunc(b.Networks, func(n string) bool {
			short, ours := strings.CutPrefix(n, app.UUID+"_")
			return ours && !slices.Contains(c.Networks, short)
		})
	})
}
