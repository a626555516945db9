package builder

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"deckhand/build"
	"deckhand/cloud/answer"
)

// order is the body of POST /v3/buildFromUrl.
type order struct {
	URL string `json:"url"`
	// Flatten: the project is in the only folder of the archive, when there is one.
	Flatten bool `json:"shouldFlatten"`
}

// FromURL answers POST /v3/buildFromUrl: a push whose archive the builder fetches itself.
// The fleet is named by the parameters owner and app, the rest is as in a push.
func (b *Builder) FromURL(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	slug := ""
	if q.Get("owner") != "" && q.Get("app") != "" {
		slug = q.Get("owner") + "/" + q.Get("app")
	}
	b.serve(w, r, slug, func(dir string) (*build.Source, error) {
		var o order
		if err := answer.Decode(r, &o); err != nil {
			return nil, err
		}
		return b.fetch(r.Context(), o, dir)
	})
}

// fetch unpacks the archive at an address into a folder.
func (b *Builder) fetch(ctx context.Context, o order, dir string) (*build.Source, error) {
	ctx, ended := b.untilStopped(ctx)
	defer ended()
	ctx, cancel := context.WithTimeoutCause(ctx, b.fetcher.time, errSlow)
	defer cancel()
	body, err := b.fetcher.get(ctx, o.URL)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	src, err := build.Spool(body, dir, b.limits)
	if errors.Is(err, build.ErrTooLarge) {
		return nil, fmt.Errorf("fetch the project: %w", b.fetcher.tooLarge())
	}
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("fetch the project: %w", why(ctx, err))
	}
	if err != nil {
		return nil, fmt.Errorf("%w; the URL must be that of a tar archive, which may be gzipped", err)
	}
	if !o.Flatten {
		return src, nil
	}
	if err := src.Flatten(); err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return src, nil
}
