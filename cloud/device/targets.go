package device

import (
	"container/list"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"deckhand/cloud/model"
)

// form is the shape of the document that a generation of devices reads.
type form byte

const (
	today  form = iota // /device/v3
	second             // /device/v2: many containers, one app
	first              // /device/v1: one container
)

// Bounds of what is kept in memory. What was dropped is made again when asked for.
const (
	maxKnown    = 300_000 // devices, about 300 bytes each
	maxApps     = 4096
	maxReleases = 256
	maxShared   = 1024
	maxBodies   = 8 << 20 // bytes
)

type stateKey struct {
	uuid string
	form form
}

// knownState is what is remembered of a device's target: enough to say whether
// the device has it, and to make it again.
type knownState struct {
	device model.TargetDevice
	own    uint64 // version of what is the device's own
	sure   bool   // own is right

	topics  []model.Topic // all that decides it
	version uint64        // of the topics
	etag    string
	poll    time.Duration
}

// targets makes the target states of devices. What releases and fleets give to
// them is made once and shared; of each device its tag is kept, and right for as
// long as nothing that decides it has changed.
type targets struct {
	db    *model.DB
	floor time.Duration
	turns chan struct{} // a place for each state that is being made

	counts counts

	mu       sync.Mutex
	known    map[stateKey]*knownState
	apps     map[int64]versioned[*app]
	releases map[int64]versioned[*release]
	shared   map[sharedKey]sharedApp
	bodies   bodies
}

type versioned[T any] struct {
	value   T
	topics  []model.Topic
	version uint64
}

// sharedKey is an app as all devices without variables of their own see it.
type sharedKey struct{ app, release int64 }

// sharedApp is right for as long as its parts are the ones in use.
type sharedApp struct {
	app     *app
	release *release
	encoded part
}

func newTargets(db *model.DB, floor time.Duration) *targets {
	return &targets{
		db: db, floor: floor, turns: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		known: map[stateKey]*knownState{}, apps: map[int64]versioned[*app]{}, releases: map[int64]versioned[*release]{},
		shared: map[sharedKey]sharedApp{}, bodies: bodies{by: map[stateKey]*list.Element{}, order: list.New()},
	}
}

func (t *targets) version(topics []model.Topic) uint64 { return t.db.Changes().Version(topics...) }

// keep adds to a map of bounded size; something else goes when it is full.
func keep[K comparable, V any](m map[K]V, most int, k K, v V) {
	if _, had := m[k]; !had && len(m) >= most {
		for other := range m {
			delete(m, other)
			break
		}
	}
	m[k] = v
}

func (t *targets) remembered(key stateKey) *knownState {
	t.mu.Lock()
	known := t.known[key]
	t.mu.Unlock()
	if known == nil || known.version != t.version(known.topics) {
		return nil
	}
	return known
}

// state is what is known of a device's target now. ErrNotFound: there is no such
// device, or it is frozen.
func (t *targets) state(ctx context.Context, key stateKey) (*knownState, error) {
	if known := t.remembered(key); known != nil {
		t.counts.hits.Add(1)
		return known, nil
	}
	t.counts.misses.Add(1)
	select { // many devices ask at once after a change; memory is for a few
	case t.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-t.turns }()
	if known := t.remembered(key); known != nil {
		return known, nil
	}
	known, _, err := t.renew(ctx, key)
	return known, err
}

// document is the state with its document, which is made again unless it was
// asked for lately.
func (t *targets) document(ctx context.Context, key stateKey, known *knownState) (*knownState, document, error) {
	t.mu.Lock()
	body, ok := t.bodies.get(key, known.etag)
	t.mu.Unlock()
	if ok {
		return known, body, nil
	}
	select {
	case t.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, document{}, ctx.Err()
	}
	defer func() { <-t.turns }()
	return t.renew(ctx, key) // perhaps another one by now
}

// renew makes a state. Versions are read before what they are of: a change in
// between makes the state old, not wrong.
func (t *targets) renew(ctx context.Context, key stateKey) (*knownState, document, error) {
	t.mu.Lock()
	old := t.known[key]
	t.mu.Unlock()
	if old == nil {
		old = &knownState{}
	}
	for {
		version := t.version(old.topics)
		now, body, err := t.make(ctx, key, old)
		if errors.Is(err, model.ErrNotFound) {
			t.mu.Lock()
			delete(t.known, key)
			t.mu.Unlock()
		}
		if err != nil {
			return nil, document{}, err
		}
		if slices.Equal(now.topics, old.topics) {
			now.version = version
			t.remember(key, now, body)
			return now, body, nil
		}
		old = now // other things decide about it than before
	}
}

func (t *targets) remember(key stateKey, now *knownState, body document) {
	key.uuid = now.device.UUID // the other one is part of a request's text
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bodies.put(key, now.etag, body)
	keep(t.known, maxKnown, key, now)
}

// make assembles a state from its parts.
func (t *targets) make(ctx context.Context, key stateKey, old *knownState) (now *knownState, body document, err error) {
	now = &knownState{device: old.device, own: old.own, sure: old.sure}
	if err := t.readOwn(ctx, key.uuid, now); err != nil {
		return nil, document{}, err
	}
	now.topics = now.device.Topics()
	b := builder{t: t, ctx: ctx, device: now.device, topics: &now.topics}
	if err := b.read(); err != nil {
		return nil, document{}, err
	}
	switch key.form {
	case today:
		body, err = b.today()
	case second:
		body.head, err = secondDocument(b.scene())
	case first:
		body.head, err = firstDocument(b.scene())
	}
	now.etag, now.poll = body.tag(), b.config.poll
	return now, body, err
}

// readOwn reads what is the device's own, unless it is as it was.
func (t *targets) readOwn(ctx context.Context, uuid string, s *knownState) (err error) {
	version := t.db.Changes().Version(model.Topic{Kind: model.DeviceTarget, ID: s.device.ID})
	if s.sure && version == s.own {
		return nil
	}
	id := s.device.ID
	if s.device, err = t.db.TargetDevice(ctx, uuid); err != nil {
		return err
	}
	// The version was that of another device if this one was not known.
	s.own, s.sure = version, s.device.ID == id
	return nil
}

// app is an app's part of targets.
func (t *targets) app(ctx context.Context, id int64) (*app, []model.Topic, error) {
	t.mu.Lock()
	known, ok := t.apps[id]
	t.mu.Unlock()
	if ok && known.version == t.version(known.topics) {
		return known.value, known.topics, nil
	}
	topics := []model.Topic{{Kind: model.FleetTarget, ID: id}}
	for {
		version := t.version(topics)
		fleet, err := t.db.TargetFleet(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if now := fleet.Topics(); !slices.Equal(now, topics) {
			topics = now
			continue
		}
		a := &app{TargetFleet: fleet, config: deviceSettings(fleet.Config, t.floor)}
		if fleet.Updater.Release != 0 {
			updater, err := t.release(ctx, fleet.Updater)
			if err != nil {
				return nil, nil, err
			}
			if updater != nil && len(updater.services) > 0 {
				a.updater = updater.services[0].Image
			}
		}
		t.mu.Lock()
		keep(t.apps, maxApps, id, versioned[*app]{a, topics, version})
		t.mu.Unlock()
		return a, topics, nil
	}
}

// release is a release's part of targets; nil: it has been deleted.
func (t *targets) release(ctx context.Context, ref model.TargetRef) (*release, error) {
	if ref.Release == 0 {
		return nil, nil
	}
	topics := ref.Topics()
	version := t.version(topics)
	t.mu.Lock()
	known, ok := t.releases[ref.Release]
	t.mu.Unlock()
	if ok && known.version == version && slices.Equal(known.topics, topics) {
		return known.value, nil
	}
	read, err := t.db.TargetRelease(ctx, ref.Release)
	if errors.Is(err, model.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := readRelease(read)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	keep(t.releases, maxReleases, ref.Release, versioned[*release]{r, topics, version})
	t.mu.Unlock()
	return r, nil
}

// encoded is an app as all devices without variables of their own see it.
func (t *targets) encoded(a *app, r *release) part {
	key := sharedKey{app: a.ID}
	if r != nil {
		key.release = r.ID
	}
	t.mu.Lock()
	known, ok := t.shared[key]
	t.mu.Unlock()
	if ok && known.app == a && known.release == r {
		return known.encoded
	}
	known = sharedApp{a, r, newPart(appendApp(nil, a, r, view{labels: a.config.labels}))}
	t.mu.Lock()
	keep(t.shared, maxShared, key, known)
	t.mu.Unlock()
	return known.encoded
}

// builder collects the parts of one device's state.
type builder struct {
	t      *targets
	ctx    context.Context //nolint:containedctx // it lives as long as one call
	device model.TargetDevice
	topics *[]model.Topic

	fleet   *app // nil: none
	release *release
	config  settings
}

// part is an app that the device shall run, and its topics are among those that
// decide the state.
func (b *builder) part(ref model.TargetRef) (*app, *release, error) {
	a, topics, err := b.t.app(b.ctx, ref.App)
	if err != nil {
		return nil, nil, err
	}
	for _, topic := range topics {
		if !slices.Contains(*b.topics, topic) {
			*b.topics = append(*b.topics, topic)
		}
	}
	if ref.Release == 0 {
		ref.Release = a.Release
	}
	r, err := b.t.release(b.ctx, ref)
	return a, r, err
}

// read gets the fleet and the configuration.
func (b *builder) read() (err error) {
	if b.device.Fleet != 0 {
		if b.fleet, b.release, err = b.part(model.TargetRef{App: b.device.Fleet, Release: b.device.Pinned}); err != nil {
			return err
		}
	}
	own := b.device.Variables
	switch {
	case b.fleet == nil && own == nil:
		b.config = deviceSettings(map[string]string{}, b.t.floor)
	case b.fleet == nil:
		b.config = deviceSettings(own.Config, b.t.floor)
	case own == nil || len(own.Config) == 0:
		b.config = b.fleet.config
	default:
		b.config = deviceSettings(over(b.fleet.Config, own.Config), b.t.floor)
	}
	return nil
}

func over(general, particular map[string]string) map[string]string {
	all := make(map[string]string, len(general)+len(particular))
	for _, layer := range []map[string]string{general, particular} {
		for name, value := range layer {
			all[name] = value
		}
	}
	return all
}

func (b *builder) view() view { return view{device: b.device.Variables, labels: b.config.labels} }

func (b *builder) scene() scene {
	return scene{name: b.device.Name, app: b.fleet, release: b.release, config: b.config, view: b.view()}
}

// today is the state with the apps in their order: supervisor, host OS, the
// user's.
func (b *builder) today() (document, error) {
	doc := make([]byte, 0, 128)
	doc = appendText(append(doc, '{'), b.device.UUID)
	doc = append(appendText(append(doc, `:{"name":`...), b.device.Name), `,"apps":{`...)
	comma := func() {
		if doc[len(doc)-1] != '{' {
			doc = append(doc, ',')
		}
	}
	for i, ref := range []model.TargetRef{b.device.Managed, b.device.Operated} {
		if ref.Release == 0 || ref.App == b.device.Fleet || i == 1 && ref.App == b.device.Managed.App {
			continue
		}
		a, r, err := b.part(ref)
		if err != nil {
			return document{}, err
		}
		comma()
		v := view{device: b.device.Variables, host: i == 1}
		if b.fleet != nil {
			v.profiles = b.fleet.Profiles[ref.App]
		}
		doc = appendApp(doc, a, r, v)
	}
	var own part
	if b.fleet != nil {
		comma()
		if b.device.Variables == nil {
			own = b.t.encoded(b.fleet, b.release)
		} else {
			own = newPart(appendApp(nil, b.fleet, b.release, b.view()))
		}
	}
	tail := make([]byte, 0, len(b.config.encoded)+16)
	tail = append(append(append(tail, `},"config":`...), b.config.encoded...), "}}"...)
	return document{doc, own, tail}, nil
}

// ofFleet is the state that a device without anything of its own would have.
func (t *targets) ofFleet(ctx context.Context, fleet, release int64) ([]byte, error) {
	a, _, err := t.app(ctx, fleet)
	if err != nil {
		return nil, err
	}
	r, err := t.release(ctx, model.TargetRef{App: fleet, Release: release})
	if err != nil {
		return nil, err
	}
	doc := appendText([]byte{'{'}, a.UUID)
	doc = append(appendText(append(doc, `:{"name":`...), a.Name), `,"apps":{`...)
	doc = append(append(doc, t.encoded(a, r).text...), `},"config":`...)
	return append(append(doc, a.config.encoded...), "}}"...), nil
}

// bodies keeps the documents that were asked for last, up to maxBodies.
type bodies struct {
	by    map[stateKey]*list.Element
	order *list.List // of keptBody, the newest first
	size  int
}

// keptSize is about what it costs to keep one beside its text.
const keptSize = 512

type keptBody struct {
	key  stateKey
	etag string
	body document
}

func (b *bodies) get(key stateKey, etag string) (document, bool) {
	e := b.by[key]
	if e == nil {
		return document{}, false
	}
	kept, _ := e.Value.(keptBody)
	if kept.etag != etag {
		return document{}, false
	}
	b.order.MoveToFront(e)
	return kept.body, true
}

func (b *bodies) put(key stateKey, etag string, body document) {
	if e := b.by[key]; e != nil {
		b.drop(e)
	}
	b.by[key] = b.order.PushFront(keptBody{key, etag, body})
	b.size += body.size() + keptSize
	for b.size > maxBodies && b.order.Len() > 1 {
		b.drop(b.order.Back())
	}
}

func (b *bodies) drop(e *list.Element) {
	kept, _ := b.order.Remove(e).(keptBody)
	delete(b.by, kept.key)
	b.size -= kept.body.size() + keptSize
}
