package model

import "sync"

// Topic names something that can change and be watched.
type Topic struct {
	Kind TopicKind
	ID   int64 // of the fleet or device; 0 for kinds without one
}

// TopicKind is what kind of change a topic is about.
type TopicKind string

const (
	// FleetTarget: what the devices of the fleet should run changed.
	FleetTarget TopicKind = "fleet target"
	// DeviceTarget: what one device should run changed (its pin, its
	// variables, its fleet).
	DeviceTarget TopicKind = "device target"
	// DeviceLog: a device sent log lines.
	DeviceLog TopicKind = "device log"
	// ReleaseStatus: a release changed its status; ID is the release. The
	// builder watches it for a cancellation.
	ReleaseStatus TopicKind = "release status"
	// Overview: anything a person looks at changed; the ID is always 0.
	Overview TopicKind = "overview"
)

// OverviewTopic is the one topic of kind Overview.
func OverviewTopic() Topic { return Topic{Kind: Overview} }

// TargetTopics are the topics which together cover all that decides the
// target state of a device.
func TargetTopics(device, fleet int64) []Topic {
	return []Topic{{DeviceTarget, device}, {FleetTarget, fleet}}
}

// Feed tells watchers in this process about changes, after they are committed:
// those that this process makes and, on a shared database, those of other servers.
// It does not say what changed: a watcher reads again.
type Feed struct {
	mu       sync.Mutex
	all      uint64 // how often everything counted as changed
	deaf     bool   // news of other servers are not heard
	versions map[Topic]uint64
	watchers map[Topic]map[*Watch]struct{}
}

func newFeed() *Feed {
	return &Feed{versions: map[Topic]uint64{}, watchers: map[Topic]map[*Watch]struct{}{}}
}

// Watch is one watcher's end of the feed.
type Watch struct {
	feed   *Feed
	topics []Topic
	c      chan struct{}
	news   func() // called in place of c
}

// Watch begins to watch the topics. A change made after Watch returned is
// never missed. Call Stop when done.
func (f *Feed) Watch(topics ...Topic) *Watch {
	return f.add(&Watch{feed: f, topics: topics, c: make(chan struct{}, 1)})
}

// Call is Watch for very many watchers: news is called after each change. It must be
// quick, and must not use the feed, which waits for it. It may still be called once
// while Stop is.
func (f *Feed) Call(news func(), topics ...Topic) *Watch {
	return f.add(&Watch{feed: f, topics: topics, news: news})
}

func (f *Feed) add(w *Watch) *Watch {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range w.topics {
		if f.watchers[t] == nil {
			f.watchers[t] = map[*Watch]struct{}{}
		}
		f.watchers[t][w] = struct{}{}
	}
	return w
}

// C receives a value when one of the topics changed since the last receive;
// several changes are one value. It is never closed. Nil after Call.
func (w *Watch) C() <-chan struct{} { return w.c }

// Stop ends the watch.
func (w *Watch) Stop() {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	for _, t := range w.topics {
		delete(w.feed.watchers[t], w)
		if len(w.feed.watchers[t]) == 0 {
			delete(w.feed.watchers, t)
		}
	}
}

// Version is a number that grows with every change of one of the topics. Two
// equal numbers mean: nothing changed in between. It starts anew with the process.
// While other servers are not heard it grows with every question: nothing that is
// remembered can be relied on.
func (f *Feed) Version(topics ...Topic) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deaf {
		f.all++
	}
	sum := f.all
	for _, t := range topics {
		sum += f.versions[t]
	}
	return sum
}

func (f *Feed) publish(topics ...Topic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range topics {
		f.versions[t]++
		for w := range f.watchers[t] {
			w.tell()
		}
	}
}

// publishWhere counts the topics for which a condition holds as changed.
func (f *Feed) publishWhere(condition func(Topic) bool) {
	f.mu.Lock()
	var topics []Topic
	for t := range f.versions {
		if condition(t) {
			topics = append(topics, t)
		}
	}
	for t := range f.watchers {
		if _, counted := f.versions[t]; !counted && condition(t) {
			topics = append(topics, t)
		}
	}
	f.mu.Unlock()
	f.publish(topics...)
}

// lost says that other servers are not heard, until publishAll. Watchers are not
// told: there is nothing that they could read.
func (f *Feed) lost() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf = true
}

// publishAll counts everything as changed: news may have been missed, and are heard
// from now on.
func (f *Feed) publishAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf = false
	f.all++
	for _, watchers := range f.watchers {
		for w := range watchers {
			w.tell()
		}
	}
}

func (w *Watch) tell() {
	if w.news != nil {
		w.news()
		return
	}
	select {
	case w.c <- struct{}{}:
	default: // already told and not yet looked
	}
}
