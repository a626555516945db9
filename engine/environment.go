package engine

import (
	"context"
	"fmt"
	"strings"
)

// Environment is that of a container: what it was made with, and what its image
// and the device add. There are secrets in it.
func (e *Engine) Environment(ctx context.Context, id string) (map[string]string, error) {
	what := fmt.Sprintf("read the environment of container %.12s", id)
	c, err := e.connected(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return nil, e.fail(what, err)
	}
	env := map[string]string{}
	if now.Config != nil {
		for _, line := range now.Config.Env {
			name, value, _ := strings.Cut(line, "=")
			env[name] = value
		}
	}
	return env, nil
}
