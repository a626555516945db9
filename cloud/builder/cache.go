package builder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"deckhand/cloud/builder/event"
	"deckhand/cloud/model"
)

// cached is what an earlier release offers one service's build.
type cached struct {
	hash string   // digest of the earlier image's manifest
	ref  string   // under which it was pulled; "" when it was not
	from []string // what the engine is told to look for steps in; empty: all it has
	here bool     // the engine had it before
}

const (
	cacheDeadline = 10 * time.Minute
	mostSources   = 300 // they travel in the address of the request
)

// pullCache brings the images of the last successful release back to the engine, so that
// what did not change is found again and keeps its digest, whoever built it.
func (j *job) pullCache(ctx context.Context) map[string]cached {
	cache := map[string]cached{}
	_, images, err := j.b.db.LastSuccess(ctx, j.fleet.ID)
	if err != nil && !errors.Is(err, model.ErrNotFound) {
		j.log.Warn().Err(err).Msg("look for an earlier release")
	}
	for _, img := range images {
		if img.ContentHash != "" {
			cache[img.Service] = cached{hash: img.ContentHash, ref: img.Location + "@" + img.ContentHash}
		}
	}
	if len(cache) == 0 || j.opts.nocache {
		for name, c := range cache {
			c.ref = ""
			cache[name] = c
		}
		j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseCache, State: event.Skipped})
		return cache
	}
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseCache, State: event.Start})
	ctx, cancel := context.WithTimeout(ctx, cacheDeadline)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, j.b.parallel)
	for _, s := range j.project.services {
		c, ok := cache[s.name]
		if !ok || s.build == nil {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c := j.pullOne(ctx, s.name, c)
			mu.Lock()
			defer mu.Unlock()
			cache[s.name] = c
		})
	}
	wg.Wait()
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseCache, State: event.Done})
	return cache
}

func (j *job) pullOne(ctx context.Context, service string, c cached) cached {
	repository := model.Repository(c.ref[:len(c.ref)-len("@"+c.hash)])
	c.here = j.b.engine.has(ctx, c.ref)
	var err error
	if !c.here {
		var token string
		token, err = j.b.registryToken(j.user.subject, []string{repository}, "pull")
		if err == nil {
			err = j.b.engine.pull(ctx, c.ref, tokenAuth(token), j.target.platform, &transfer{}, nil)
		}
	}
	if err != nil {
		j.log.Info().Err(err).Str("service", service).Msg("no cache image")
		c.ref = ""
		return c
	}
	// Naming sources switches the engine's own cache off, so what it has is named too: the
	// stages of multi-stage builds and steps of failed ones are only there.
	mine := j.b.engine.imageIDs(ctx, fleetLabel+"="+fmt.Sprint(j.fleet.ID), serviceLabel+"="+service)
	c.from = append([]string{c.ref}, mine...)
	for _, id := range j.b.engine.imageIDs(ctx) {
		if len(c.from) < mostSources && !slices.Contains(mine, id) {
			c.from = append(c.from, id)
		}
	}
	return c
}

// dropCache takes the names of the pulled images away again. Those that were
// there before belong to somebody else, a device on the same engine perhaps.
func (j *job) dropCache(cache map[string]cached) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range sortedKeys(cache) {
		if cache[name].ref != "" && !cache[name].here {
			j.b.engine.untag(ctx, cache[name].ref)
		}
	}
}
