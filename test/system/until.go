package system

import (
	"context"
	"fmt"
	"time"
)

// pace is how often a condition is looked at.
const pace = 30 * time.Millisecond

// Until waits until the condition gives nil. The error of a context that ends
// first says what was still missing.
func Until(ctx context.Context, condition func(context.Context) error) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var missing error
	for {
		now := condition(ctx)
		if now == nil {
			return nil
		}
		if missing == nil || ctx.Err() == nil { // else it says only that time is up
			missing = now
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), missing)
		case <-tick.C:
		}
	}
}
