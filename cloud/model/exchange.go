package model

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// exchange is how servers on one PostgreSQL tell each other what changed: NOTIFY
// with the topics, on one channel.
//
// Topics on which a device or a build waits are part of the transaction: when it
// is committed they are told, whatever becomes of this server. Those that only
// people look at come very often, and notifying transactions wait for each other;
// they are gathered and sent after the commit. What a server did not come to send
// before it was killed, the others find out when its connections are gone.
type exchange struct {
	db     *DB
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	pending map[Topic]struct{}
	wake    chan struct{}
}

const (
	notifyChannel = "deckhand"
	// notifyLimit is the size in bytes of one notification; PostgreSQL takes 8000.
	notifyLimit = 7900
	// notifyParts is how many notifications one change may make; above it
	// everything counts as changed.
	notifyParts = 64
	// everything is the text of a notification that speaks of all topics.
	everything = "*"
	// gatherTime is how long topics for people are gathered.
	gatherTime = 50 * time.Millisecond
	// quietLimit is how long the connection may be silent before it is tried.
	quietLimit = 20 * time.Second
	// lookEvery is how often is looked which servers there are.
	lookEvery = time.Second
	// A lost connection is tried again after these times, longer each time.
	firstTry, laterTries = 100 * time.Millisecond, 2 * time.Second
)

// newExchange listens before it returns: nothing committed later is missed.
func newExchange(ctx context.Context, db *DB) (*exchange, error) {
	conn, err := listen(ctx, db.postgres)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e := &exchange{db: db, cancel: cancel, pending: map[Topic]struct{}{}, wake: make(chan struct{}, 1)}
	e.done.Go(func() { e.hear(ctx, conn) })
	e.done.Go(func() { e.tell(ctx) })
	e.done.Go(func() { e.watchOthers(ctx) })
	return e, nil
}

func (e *exchange) close() {
	e.cancel()
	e.done.Wait()
}

func listen(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cfg.Copy())
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+notifyChannel); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// hear tells this server's watchers what the others changed. While the connection
// is lost, nothing counts as known; when it is back, everything counts as changed.
func (e *exchange) hear(ctx context.Context, conn *pgx.Conn) {
	for ctx.Err() == nil {
		for e.hearOne(ctx, conn) == nil {
		}
		e.db.feed.lost()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		conn.Close(closing)
		cancel()
		if conn = e.reconnect(ctx); conn == nil {
			return
		}
		e.db.feed.publishAll()
	}
}

func (e *exchange) hearOne(ctx context.Context, conn *pgx.Conn) error {
	quiet, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	n, err := conn.WaitForNotification(quiet)
	switch {
	case err == nil:
		e.received(n.Payload)
		return nil
	case ctx.Err() == nil && quiet.Err() != nil:
		ping, stop := context.WithTimeout(ctx, postgresConnect)
		defer stop()
		return conn.Ping(ping)
	}
	return err
}

func (e *exchange) reconnect(ctx context.Context) *pgx.Conn {
	for wait := firstTry; ; wait = min(2*wait, laterTries) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if conn, err := listen(ctx, e.db.postgres); err == nil {
			return conn
		}
	}
}

func (e *exchange) received(payload string) {
	origin, list, _ := strings.Cut(payload, " ")
	if origin == e.db.server {
		return // told already
	}
	topics, ok := decodeTopics(list)
	if !ok {
		e.db.feed.publishAll()
		return
	}
	e.db.feed.publish(topics...)
}

// urgent topics are told by the commit itself.
func urgent(t Topic) bool { return t.Kind != Overview && t.Kind != DeviceLog }

// announce makes the transaction's commit tell the other servers.
func (e *exchange) announce(t *txn) error {
	var topics []Topic
	for _, topic := range t.topics {
		if urgent(topic) {
			topics = append(topics, topic)
		}
	}
	for _, list := range encodeTopics(topics) {
		if _, err := t.ExecContext(context.Background(), `SELECT pg_notify('`+notifyChannel+`', ?)`, e.db.server+" "+list); err != nil {
			return fmt.Errorf("notify other servers: %w", err)
		}
	}
	return nil
}

// later tells the other servers the topics that are not urgent.
func (e *exchange) later(topics []Topic) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range topics {
		if !urgent(t) {
			e.pending[t] = struct{}{}
		}
	}
	if len(e.pending) > 0 {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

// watchOthers counts what people look at as changed whenever another server is gone
// with all its connections: what it wrote last is committed by then, and it may not
// have come to say so.
func (e *exchange) watchOthers(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	known := map[string]bool{}
	for {
		// While the database does not answer nobody is taken for gone.
		if there, err := e.others(ctx); err == nil {
			for name := range known {
				if !there[name] {
					e.db.feed.publishWhere(func(t Topic) bool { return !urgent(t) })
					break
				}
			}
			known = there
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// others are the servers that have connections to the database.
func (e *exchange) others(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, postgresConnect)
	defer cancel()
	names, err := column[string](e.db.read.QueryContext(ctx, `
		SELECT DISTINCT application_name FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE ? AND application_name <> ?`, applicationName+"%", applicationName+e.db.server))
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	return there, err
}

func (e *exchange) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		}
		pause := gatherTime
		if !e.flush(ctx) {
			pause = laterTries
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// flush sends what was gathered; it is false when that has to be tried again.
func (e *exchange) flush(ctx context.Context) bool {
	e.mu.Lock()
	topics := make([]Topic, 0, len(e.pending))
	for t := range e.pending {
		topics = append(topics, t)
	}
	clear(e.pending)
	e.mu.Unlock()
	for _, list := range encodeTopics(topics) {
		if _, err := e.db.write.ExecContext(ctx, `SELECT pg_notify('`+notifyChannel+`', ?)`, e.db.server+" "+list); err != nil {
			e.later(topics) // the server is away: until it is back
			return false
		}
	}
	return true
}

// encodeTopics writes topics as texts that fit a notification each; very many are
// one text that means everything.
func encodeTopics(topics []Topic) []string {
	var parts []string
	var b strings.Builder
	seen := map[Topic]bool{}
	for _, t := range topics {
		if seen[t] {
			continue
		}
		seen[t] = true
		word := string(t.Kind) + ":" + strconv.FormatInt(t.ID, 10)
		if b.Len() > 0 && b.Len()+1+len(word) > notifyLimit {
			parts = append(parts, b.String())
			b.Reset()
		}
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		b.WriteString(word)
	}
	if b.Len() > 0 {
		parts = append(parts, b.String())
	}
	if len(parts) > notifyParts {
		return []string{everything}
	}
	return parts
}

// decodeTopics reads what encodeTopics wrote; not ok: take everything as changed.
func decodeTopics(list string) (topics []Topic, ok bool) {
	for word := range strings.SplitSeq(list, ";") {
		kind, number, found := strings.Cut(word, ":")
		id, err := strconv.ParseInt(number, 10, 64)
		if !found || err != nil {
			return nil, false
		}
		topics = append(topics, Topic{TopicKind(kind), id})
	}
	return topics, true
}
