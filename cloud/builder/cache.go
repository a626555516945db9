package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"deckhand/build"
	"deckhand/build/event"
	"deckhand/cloud/model"
)

// Labels that let a later build of the same service find this image on the engine.
const (
	fleetLabel   = "io.balena.build.fleet"
	serviceLabel = "io.balena.build.service"
)

// cached is what an earlier release offers one service's build.
type cached struct {
	build.Cached
	here bool // the engine had it before
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
			cache[img.Service] = cached{Cached: build.Cached{Digest: img.ContentHash, Ref: img.Location + "@" + img.ContentHash}}
		}
	}
	if len(cache) == 0 || j.opts.nocache {
		for name, c := range cache {
			c.Ref = ""
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
	for _, s := range j.build.Services() {
		c, ok := cache[s.Name]
		if !ok || !s.Built() {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c := j.pullOne(ctx, s.Name, c)
			mu.Lock()
			defer mu.Unlock()
			cache[s.Name] = c
		})
	}
	wg.Wait()
	j.out.emit(event.Event{Type: event.Phase, Name: event.PhaseCache, State: event.Done})
	return cache
}

func (j *job) pullOne(ctx context.Context, service string, c cached) cached {
	repository := model.Repository(c.Ref[:len(c.Ref)-len("@"+c.Digest)])
	c.here = j.b.engine.Has(ctx, c.Ref)
	var err error
	if !c.here {
		var token string
		token, err = j.b.registryToken(j.user.subject, []string{repository}, "pull")
		if err == nil {
			err = j.b.engine.Pull(ctx, c.Ref, build.TokenAuth(token), j.build.Platform(), nil, nil)
		}
	}
	if err != nil {
		j.log.Info().Err(err).Str("service", service).Msg("no cache image")
		c.Ref = ""
		return c
	}
	// Naming sources switches the engine's own cache off, so what it has is named too: the
	// stages of multi-stage builds and steps of failed ones are only there.
	mine := j.b.engine.ImageIDs(ctx, fleetLabel+"="+fmt.Sprint(j.fleet.ID), serviceLabel+"="+service)
	c.From = append([]string{c.Ref}, mine...)
	for _, id := range j.b.engine.ImageIDs(ctx) {
		if len(c.From) < mostSources && !slices.Contains(mine, id) {
			c.From = append(c.From, id)
		}
	}
	return c
}

// dropCache takes the names of the pulled images away again. Those that were
// there before belong to somebody else, a device on the same engine perhaps.
func (j *job) dropCache(cache map[string]cached) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range slices.Sorted(maps.Keys(cache)) {
		if cache[name].Ref != "" && !cache[name].here {
			j.b.engine.Untag(ctx, cache[name].Ref)
		}
	}
}

// offers is what a cache is to a build.
func offers(cache map[string]cached) map[string]build.Cached {
	out := make(map[string]build.Cached, len(cache))
	for service, c := range cache {
		out[service] = c.Cached
	}
	return out
}
