package supervisor

import (
	"context"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"deckhand/localapi"
	"deckhand/logs"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/journalctl"
	"deckhand/supervisor/systemlog"
	"deckhand/uplink"
)

// lastWords is how long the removal of a container waits for its log to be read.
const lastWords = 10 * time.Second

// logging is how lines come from containers and from ourselves, and where they go.
type logging struct {
	stream    logs.Stream // whoever listens on the device
	outbox    *logs.Outbox
	collector *logs.Collector
	system    *systemlog.Log
	ready     atomic.Bool
	cloud     chan *uplink.Client
}

func newLogging() *logging { return &logging{cloud: make(chan *uplink.Client, 1)} }

// open reads what an earlier process has left.
func (l *logging) open(s *Supervisor) {
	log := s.cfg.Log
	l.outbox = logs.OpenOutbox(logs.OutboxConfig{Dir: filepath.Join(s.cfg.DataDir, "logs"), Log: log})
	l.collector = logs.NewCollector(logs.CollectorConfig{
		Engine: s.engine, Cursors: cursors{s.store.Cursors}, Outbox: l.outbox, Stream: &l.stream, Log: log,
	})
	l.system = systemlog.New(logs.NewJournal(l.outbox, &l.stream))
	l.ready.Store(true)
}

// started is told by the engine that a container was started.
func (l *logging) started(container string) {
	if l.ready.Load() {
		l.collector.Started(container)
	}
}

// connect sends lines to the cloud from now on: the device is known there.
func (l *logging) connect(c *uplink.Client) {
	select {
	case l.cloud <- c:
	default:
	}
}

// cursors are those of the store.
type cursors struct{ store.Cursors }

// All implements logs.Cursors.
func (c cursors) All() (map[string]logs.Cursor, error) {
	all, err := c.Cursors.All()
	out := make(map[string]logs.Cursor, len(all))
	for id, x := range all {
		out[id] = logs.Cursor(x)
	}
	return out, err
}

// Save implements logs.Cursors.
func (c cursors) Save(moved map[string]logs.Cursor, gone []string) error {
	out := make(map[string]store.Cursor, len(moved))
	for id, x := range moved {
		out[id] = store.Cursor(x)
	}
	return c.Cursors.Save(out, gone)
}

// logged is the device as the loop sees it; a container goes when its log is read.
type logged struct {
	run.Device
	l *logging
}

// Do implements run.Device.
func (d logged) Do(ctx context.Context, s reconcile.Step, progress func(done, total int64)) error {
	if r, ok := s.(reconcile.Remove); ok {
		limited, cancel := context.WithTimeout(ctx, lastWords)
		d.l.collector.Finish(limited, r.Container)
		cancel()
	}
	return d.Device.Do(ctx, s, progress)
}

// runLogs carries lines until ctx ends, and then writes down what is left.
func (s *Supervisor) runLogs(ctx context.Context) {
	l := s.logs
	l.system.Starting()
	var all sync.WaitGroup
	all.Go(func() { <-ctx.Done(); l.stream.End() }) // the API waits for its requests
	all.Go(func() { l.collector.Run(ctx) })
	all.Go(func() { l.system.Run(ctx) })
	all.Go(func() { s.sendLogs(ctx) })
	all.Go(func() { s.followWorld(ctx) })
	all.Wait()
	l.outbox.Close()
	l.collector.Save()
}

func (s *Supervisor) sendLogs(ctx context.Context) {
	var client *uplink.Client
	select {
	case client = <-s.logs.cloud:
	case <-ctx.Done():
		return
	}
	sender, err := uplink.NewLogs(uplink.LogsConfig{
		Client: client, Endpoint: s.values().LogsEndpoint, Outbox: s.logs.outbox,
		OnError: func(err error, next time.Time) {
			s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Time("next", next).Msg("cannot send logs; they wait")
		},
	})
	if err != nil {
		s.cfg.Log.Error().Err(err).Msg("logs stay on the device")
		return
	}
	sender.Run(ctx)
}

// followWorld tells readers which containers there are, and the outbox whether the
// cloud is to have their lines.
func (s *Supervisor) followWorld(ctx context.Context) {
	var looked time.Time
	for {
		changed := s.runner.Changed()
		if st := s.runner.Status(); st.Looked != looked && !st.Looked.IsZero() {
			looked = st.Looked
			s.logs.system.Status(st)
			s.logs.collector.Sync(sourcesOf(st.World))
		}
		s.allowLogs()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// allowLogs applies whether lines go to the cloud: not without one, not in local
// mode, and not if its owner does not want them.
func (s *Supervisor) allowLogs() {
	set := s.settings()
	s.logs.outbox.SetOff(s.local.unmanaged() || set.LocalMode || !set.LogControl)
	if !set.LogControl {
		s.logs.outbox.Discard()
	}
}

// sourcesOf lists the containers whose logs are read.
func sourcesOf(w state.World) []logs.Source {
	var out []logs.Source
	for uuid, a := range w.Apps {
		for _, c := range a.Containers {
			out = append(out, logs.Source{
				Container: c.ID, Up: c.Phase == state.Running, Service: c.Service, ServiceID: c.ServiceID, AppUUID: uuid, AppID: a.ID,
			})
		}
	}
	return out
}

// Listen implements localapi.Logs.
func (e edge) Listen() *logs.Listener { return e.s.logs.stream.Listen() }

// Journal implements localapi.Logs.
func (e edge) Journal(ctx context.Context, q localapi.JournalQuery) (io.ReadCloser, error) {
	j := journalctl.Journal{
		HostRoot: e.s.cfg.HostRoot, Engine: e.s.engine, Sources: func() []logs.Source { return sourcesOf(e.s.runner.Status().World) },
	}
	return j.Open(ctx, q)
}
