package supervisor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"deckhand/compose"
	"deckhand/config"
	"deckhand/engine"
	"deckhand/localapi"
	"deckhand/reconcile/run"
	"deckhand/report"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
	"deckhand/target"
)

// localMode lets people in the device's own network say what it runs. Whether it
// is on says the cloud, by a configuration variable; a device without a cloud
// has nothing else.
//
// Two records tell everything, so that a crash at any point is caught up with:
// a snapshot of the engine, taken before the first push is acted upon, and the
// document that was pushed. A snapshot without local mode means that what came
// since has still to go.
type localMode struct {
	s    *Supervisor
	kick chan struct{}

	// turn is held by whoever makes a new target the one in force: the cloud's
	// and a pushed one may come at once.
	turn sync.Mutex

	mu       sync.Mutex
	cloud    state.Target // what the cloud asked for last
	asked    bool         // it has asked for something
	pushed   *state.Target
	record   *store.Pushed   // where pushed comes from
	snapshot *store.Snapshot // nil: none was taken
}

const (
	// localDevice stands for the UUID of a device that has none yet.
	localDevice = "local"
	// localModeVariable switches local mode on, under any prefix.
	localModeVariable = "SUPERVISOR_LOCAL_MODE"

	// apart is what is added to the numbers of pushed apps where the cloud uses
	// them too: volumes are named after them, and must not be shared.
	apart = 1_000_000_000

	// fromLocal is where a pushed target comes from, for the history.
	fromLocal = "from the local network"

	localRetry = 10 * time.Second // when the engine or the disk was in the way
)

// errNotLocal is the answer that clients of balena's supervisor know.
var errNotLocal = state.Classify(state.ClassInvalid, errors.New("Target state can only set when device is in local mode")) //nolint:staticcheck // balena's words

func newLocalMode(s *Supervisor) *localMode {
	return &localMode{s: s, kick: make(chan struct{}, 1)}
}

// load reads what is remembered. A pushed document that this version cannot read
// any more is as good as none.
func (l *localMode) load(ctx context.Context) {
	snapshot, err := l.s.store.Local.Snapshot()
	if err != nil {
		l.s.cfg.Log.Warn().Err(err).Msg("cannot read what was on the engine before local mode")
	}
	record, err := l.s.store.Local.Pushed()
	var pushed *state.Target
	if err == nil && record != nil {
		var t state.Target
		if t, _, err = l.read(ctx, *record); err == nil {
			pushed = &t
		}
	}
	if err != nil {
		l.s.cfg.Log.Warn().Err(err).Msg("the target that was pushed to the device cannot be read any more; push again")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshot, l.record, l.pushed = snapshot, record, pushed
}

// read turns a pushed document into a target.
func (l *localMode) read(ctx context.Context, r store.Pushed) (state.Target, []target.Problem, error) {
	o := l.s.decoding(r.Device)
	o.Name = r.Name
	c, problems, err := target.DecodeLocal(ctx, r.Document, o)
	for uuid, a := range c.Target.Apps {
		a.ID += r.Offset
		c.Target.Apps[uuid] = a
	}
	return c.Target, problems, err
}

// over says what is in force now that the cloud asks for t: t itself, or in local
// mode what was pushed. young: the cloud has just said so.
func (l *localMode) over(t state.Target, young bool) state.Target {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cloud, l.asked = t, true
	if young && l.record != nil && l.record.Config {
		l.record.Config = false // its name and configuration are the older ones now
		if err := l.s.store.Local.PutPushed(*l.record); err != nil {
			l.s.cfg.Log.Warn().Err(err).Msg("cannot note that the cloud's configuration is younger than the pushed one")
		}
	}
	l.look()
	return l.inForce(l.cloud)
}

// preview is what would be in force if the cloud asked for t.
func (l *localMode) preview(t state.Target) state.Target {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inForce(t)
}

// look makes run compare what is with what should be.
func (l *localMode) look() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// on reports whether the device is in local mode if that is what the cloud asks
// for.
func (l *localMode) on(cloud state.Target) bool {
	return l.unmanaged() || wantsLocalMode(cloud.Config)
}

func wantsLocalMode(variables map[string]string) bool {
	s, _ := config.ReadSettings(variables)
	return s.LocalMode
}

// unmanaged reports whether the device surely has no cloud.
func (l *localMode) unmanaged() bool { return l.s.configFile() != nil && !l.s.values().Managed() }

// inForce is the target that the device works towards if the cloud asks for this
// one; the lock is held.
func (l *localMode) inForce(cloud state.Target) state.Target {
	if !l.on(cloud) {
		return cloud
	}
	m := mode{unmanaged: l.unmanaged(), config: l.record != nil && l.record.Config}
	if l.snapshot != nil { // before, nobody could tell what came since
		m.pushed = l.pushed
	}
	return m.shape(cloud)
}

// mode is what decides how local mode changes a target.
type mode struct {
	unmanaged bool
	pushed    *state.Target // nil: nothing was pushed
	config    bool          // the name and configuration of pushed are the youngest
}

// shape lays what was pushed over what the cloud asks for: its own apps give way
// to the pushed ones, those of the host and of the supervisor stay.
func (m mode) shape(cloud state.Target) state.Target {
	out := state.Target{Name: cloud.Name, Config: maps.Clone(cloud.Config), Apps: map[string]state.App{}, Local: true}
	if m.config && m.pushed != nil {
		out.Name, out.Config = m.pushed.Name, maps.Clone(m.pushed.Config)
	}
	if !m.unmanaged {
		out.Config = withLocalMode(out.Config) // only the cloud ends it
	}
	for uuid, a := range cloud.Apps {
		// What a device without a cloud came with runs until something is pushed.
		if stays(a) || m.unmanaged && m.pushed == nil {
			out.Apps[uuid] = a
		}
	}
	if m.pushed == nil {
		return out
	}
	for uuid, a := range m.pushed.Apps {
		if clash(out.Apps, a) == "" {
			out.Apps[uuid] = a
		}
	}
	return out
}

// stays reports whether an app of the cloud is run in local mode too.
func stays(a state.App) bool { return a.Class != "fleet" && a.Class != "" || a.Host }

// clash says which app has the UUID or the number of another one already; volumes
// and locks are named after them.
func clash(apps map[string]state.App, a state.App) string {
	for uuid, other := range apps {
		if uuid == a.UUID || other.ID == a.ID {
			return cmp.Or(other.Name, uuid)
		}
	}
	return ""
}

func withLocalMode(variables map[string]string) map[string]string {
	if wantsLocalMode(variables) {
		return variables
	}
	out := maps.Clone(variables)
	if out == nil {
		out = map[string]string{}
	}
	for _, prefix := range []string{"BALENA_", "RESIN_"} {
		delete(out, prefix+localModeVariable)
	}
	out[localModeVariable] = "1"
	return out
}

// run enters and leaves local mode until ctx ends.
func (l *localMode) run(ctx context.Context) {
	for {
		changed := l.s.runner.Changed()
		pending, err := l.step(ctx)
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			l.s.cfg.Log.Warn().Err(err).Dur("next", localRetry).Msg("local mode")
			again = time.After(localRetry)
		}
		if !pending {
			changed = nil
		}
		select {
		case <-l.kick:
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// step does what is to be done next; pending: it depends on the device's state.
func (l *localMode) step(ctx context.Context) (pending bool, err error) {
	l.mu.Lock()
	on, snapshot, pushed, asked := l.on(l.cloud), l.snapshot, l.record != nil, l.asked
	l.mu.Unlock()
	switch {
	case on && snapshot == nil:
		return false, l.enter(ctx)
	case on && pushed && !l.s.device.target().Local: // it has just turned out that there is no cloud
		l.again()
		return false, nil
	case on || !asked: // until the cloud has asked for something nobody knows what it wants kept
		return false, nil
	case pushed:
		if err := l.dropPushed(); err != nil {
			return false, err
		}
		fallthrough
	case snapshot != nil:
		return l.leave(ctx)
	}
	return false, nil
}

// again makes the target in force once more the one that should be.
func (l *localMode) again() {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.mu.Lock()
	goal := l.inForce(l.cloud)
	l.mu.Unlock()
	l.s.install(goal, fromLocal)
}

// enter notes what is on the engine, and only then lets pushed apps in.
func (l *localMode) enter(ctx context.Context) error {
	if l.s.engine.Ready(ctx) != nil {
		return nil // ctx ended
	}
	now, err := l.s.engine.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	shot := store.Snapshot(now)
	if err := l.s.store.Local.PutSnapshot(shot); err != nil {
		return fmt.Errorf("enter: remember what is on the engine: %w", err)
	}
	l.mu.Lock()
	l.snapshot = &shot
	waiting := l.pushed != nil
	l.mu.Unlock()
	l.s.cfg.Log.Info().Int("containers", len(shot.Containers)).Int("images", len(shot.Images)).Int("volumes", len(shot.Volumes)).
		Msg("local mode is on: the device takes targets from its own network, and its API asks for no key")
	if waiting {
		l.again()
	}
	return nil
}

func (l *localMode) dropPushed() error {
	if err := l.s.store.Local.DropPushed(); err != nil {
		return fmt.Errorf("leave: forget the pushed target: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pushed, l.record = nil, nil
	return nil
}

// leave removes what came in local mode, once the loop has removed the pushed
// apps in its own orderly way: their locks hold, their stops take their time.
func (l *localMode) leave(ctx context.Context) (pending bool, err error) {
	st := l.s.runner.Status()
	if !st.HasGoal || st.Target.Local || st.Looked.IsZero() || leftovers(st) {
		return true, nil
	}
	l.mu.Lock()
	snapshot, keep, on := *l.snapshot, keepFor(l.cloud, st.World), l.on(l.cloud)
	l.mu.Unlock()
	if on {
		return false, nil // on again, meanwhile
	}
	removed, failed, err := l.s.engine.RemoveSince(ctx, engine.Snapshot(snapshot), keep)
	for _, problem := range failed {
		l.s.cfg.Log.Warn().Err(problem).Msg("something that came in local mode is still here; remove it by hand")
	}
	if err != nil {
		return false, fmt.Errorf("leave: %w", err)
	}
	if err := l.s.store.Local.DropSnapshot(); err != nil {
		return false, fmt.Errorf("leave: forget what was on the engine: %w", err)
	}
	l.mu.Lock()
	l.snapshot = nil
	l.mu.Unlock()
	l.look() // it may be on again
	l.s.cfg.Log.Info().Strs("removed", removed).Msg("local mode is over: the device is as it was, and as its cloud wants it")
	return false, nil
}

// leftovers reports whether apps that the target does not want have containers, or
// may get one from a step that was begun before.
func leftovers(s run.Status) bool {
	unwanted := func(uuid string) bool { _, wanted := s.Target.Apps[uuid]; return !wanted }
	for uuid, a := range s.World.Apps {
		if unwanted(uuid) && len(a.Containers) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(s.Running, func(r run.Running) bool {
		uuid := history.SubjectOf(r.Node.Step).App
		return uuid != "" && unwanted(uuid)
	})
}

// keepFor names what the cloud's apps need, and what they were last made of.
func keepFor(cloud state.Target, w state.World) engine.Keep {
	var k engine.Keep
	for uuid, a := range cloud.Apps {
		now := w.Apps[uuid]
		k.Images = append(k.Images, now.Images...)
		for _, s := range a.Services {
			k.Images = append(k.Images, s.Image)
		}
		for _, image := range a.Own {
			k.Images = append(k.Images, image)
		}
		for name := range a.Networks {
			k.Networks = append(k.Networks, state.NetworkName(uuid, name))
		}
		for name := range a.Volumes {
			k.Volumes = append(k.Volumes, state.VolumeName(a.ID, name))
		}
		for _, n := range now.Networks { // a rejected app is left as it is
			k.Networks = append(k.Networks, state.NetworkName(uuid, n.Name))
		}
		for _, v := range now.Volumes {
			k.Volumes = append(k.Volumes, state.VolumeName(a.ID, v.Name))
		}
	}
	return k
}

// inCloudsEyes is a report as the cloud gets it: what runs in local mode is not
// its business.
func (s *Supervisor) inCloudsEyes(in report.Input) report.Input {
	if in.Target.Local {
		in.Target.Apps = nil
	}
	return in
}

// Push implements localapi.Local.
func (e edge) Push(ctx context.Context, document []byte, force bool) error {
	return e.s.local.push(ctx, document, force)
}

func (l *localMode) push(ctx context.Context, document []byte, force bool) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.mu.Lock()
	on, cloud, before := l.on(l.cloud), l.cloud, l.record
	l.mu.Unlock()
	if !on {
		return errNotLocal
	}
	record := store.Pushed{
		Document: document, Device: cmp.Or(l.s.values().UUID, localDevice), Name: l.s.deviceName(),
		Config: true, AcceptedAt: time.Now().UTC(),
	}
	if before != nil {
		record.Offset = before.Offset // its volumes are to be found again
	}
	t, problems, err := l.read(ctx, record)
	if err == nil && record.Offset == 0 && clashes(cloud.Apps, t) {
		record.Offset = apart
		t, problems, err = l.read(ctx, record)
	}
	if err == nil {
		err = fits(t, cloud)
	}
	if err != nil {
		l.s.cfg.Log.Error().Err(err).Msg("a pushed target is refused, the last one stays in force")
		return err
	}
	for _, p := range problems {
		if p.Kind == compose.Ignored && p.Path == "force" {
			continue // read by the API
		}
		l.s.cfg.Log.Warn().Msg(p.String())
	}
	if err := l.s.device.learnPushed(t, record); err != nil {
		return fmt.Errorf("store the target: %w", state.Classify(state.ClassSpace, err))
	}
	if force {
		l.s.forceOnce()
	}
	l.mu.Lock()
	l.pushed, l.record = &t, &record
	goal := l.inForce(l.cloud)
	l.mu.Unlock()
	l.look()
	l.s.install(goal, fromLocal)
	return nil
}

// clashes reports whether pushed apps have the numbers of others.
func clashes(apps map[string]state.App, t state.Target) bool {
	for _, a := range t.Apps {
		if clash(apps, a) != "" {
			return true
		}
	}
	return false
}

// fits checks what only shows beside the cloud's apps, and that all can run: who
// pushes waits for the answer, so a half of it would be a surprise.
func fits(t, cloud state.Target) error {
	for _, uuid := range slices.Sorted(maps.Keys(t.Apps)) {
		a := t.Apps[uuid]
		if a.Rejected != "" {
			return state.Classify(state.ClassInvalid, fmt.Errorf("local target state: app %s: %s", uuid, a.Rejected))
		}
		rest := maps.Clone(cloud.Apps)
		maps.DeleteFunc(rest, func(_ string, x state.App) bool { return !stays(x) })
		if other := clash(rest, a); other != "" {
			return state.Classify(state.ClassInvalid, fmt.Errorf("local target state: app %s has the number of %s, which runs in local mode too; use another one", uuid, other))
		}
	}
	return nil
}

// LocalTarget implements localapi.Local.
func (e edge) LocalTarget() (localapi.LocalTarget, error) {
	l := e.s.local
	l.mu.Lock()
	record, on := l.record, l.on(l.cloud)
	l.mu.Unlock()
	t := localapi.LocalTarget{Name: e.s.deviceName(), Config: plainConfig(e.s.device.target().Config, e.s.settings()), Apps: json.RawMessage(`{}`)}
	if on && record != nil {
		t.Apps = appsOf(record.Document)
	}
	return t, nil
}

// appsOf are the apps of a pushed document, as they were sent.
func appsOf(doc []byte) json.RawMessage {
	var d struct {
		Local struct {
			Apps json.RawMessage `json:"apps"`
		} `json:"local"`
	}
	if json.Unmarshal(doc, &d) != nil || !strings.HasPrefix(string(d.Local.Apps), "{") {
		return json.RawMessage(`{}`)
	}
	return d.Local.Apps
}

// plainConfig is a configuration without prefixes, with the settings that are
// not named in it: sent back as it is, it changes nothing.
func plainConfig(variables map[string]string, s config.Settings) map[string]string {
	out := s.Variables()
	for _, prefix := range []string{"", "RESIN_", "BALENA_"} { // a later one counts
		for name, value := range variables {
			bare := strings.TrimPrefix(strings.TrimPrefix(name, "BALENA_"), "RESIN_")
			if _, effective := out[bare]; effective && slices.Contains(config.SettingNames(), bare) {
				continue // what the supervisor makes of it
			}
			if name == prefix+bare {
				out[bare] = value
			}
		}
	}
	return out
}

// learnPushed remembers a pushed target and the specs of its services.
func (d *device) learnPushed(t state.Target, record store.Pushed) error {
	wanted := map[string]state.Spec{}
	for _, a := range t.Apps {
		for _, s := range a.Services {
			wanted[s.Hash] = s.Spec
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.Store.AcceptPushed(record, wanted); err != nil {
		return err
	}
	maps.Copy(d.specs, wanted)
	return nil
}

// Hardware implements localapi.Local.
func (e edge) Hardware() (arch, deviceType string) {
	return e.s.host.Arch, e.s.deviceType(e.s.values())
}
