package builder

import (
	"context"
	"time"
)

// lookEvery is how often is looked for builds whose servers are gone.
const lookEvery = 10 * time.Second

// EndAbandoned ends the builds of servers that are gone, those of other servers on the
// same database too, until the context ends.
func (b *Builder) EndAbandoned(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n, err := b.db.EndAbandonedBuilds(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			b.log.Error().Err(err).Msg("end abandoned builds")
		case n > 0:
			b.log.Warn().Int("builds", n).Msg("builds were ended whose server is gone; push again")
		}
	}
}
