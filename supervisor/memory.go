package supervisor

import (
	"github.com/rs/zerolog"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

// memory keeps the loop's failures in the store.
type memory struct {
	store *store.Store
	log   zerolog.Logger
}

// Failures implements run.Memory.
func (m memory) Failures() map[reconcile.Key]state.Failure {
	all, err := m.store.Failures.All()
	if err != nil {
		m.log.Warn().Err(err).Msg("cannot read earlier failures; every step is tried at once")
	}
	out := make(map[reconcile.Key]state.Failure, len(all))
	for k, f := range all {
		out[reconcile.Key(k)] = f
	}
	return out
}

// SaveFailures implements run.Memory.
func (m memory) SaveFailures(all map[reconcile.Key]state.Failure) error {
	out := make(map[string]state.Failure, len(all))
	for k, f := range all {
		out[string(k)] = f
	}
	return m.store.Failures.PutAll(out)
}
