package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"deckhand/reconcile"
	"deckhand/state"
)

// fetch downloads an image unless the engine has it. An image named by digest
// gets a tag too: without one it would count as unused.
func (d doing) fetch(ctx context.Context, s reconcile.Fetch, progress Progress) error {
	what := "fetch " + s.Image
	id, err := d.imageID(ctx, s.Image)
	if errdefs.IsNotFound(err) && pushedHere(s.Image) {
		return fmt.Errorf("%s: %w", what, state.Classify(state.ClassNotFound, errNotPushed))
	}
	if errdefs.IsNotFound(err) {
		if err := d.room(ctx, s.Image); err != nil {
			return d.fail(what, err)
		}
		if err := d.pull(ctx, s.Image, progress); err != nil {
			return fmt.Errorf("%s: %w", what, classifyPull(err))
		}
		id, err = d.imageID(ctx, s.Image)
	}
	if err != nil {
		return d.fail(what, err)
	}
	if state.Digest(s.Image) == "" {
		return nil
	}
	// The image is here: being cancelled now must not leave it without a tag.
	if err := d.ImageTag(context.WithoutCancel(ctx), id, state.Repository(s.Image)+":latest"); err != nil {
		return d.fail(what, err)
	}
	return nil
}

// imageID finds an image by its exact name, else by digest under any name.
func (d doing) imageID(ctx context.Context, ref string) (string, error) {
	i, err := d.image(ctx, ref)
	return i.ID, err
}

func (d doing) image(ctx context.Context, ref string) (image.InspectResponse, error) {
	i, err := d.ImageInspect(ctx, ref)
	if !errdefs.IsNotFound(err) || state.Digest(ref) == "" {
		return i, err
	}
	list, listErr := d.ImageList(ctx, image.ListOptions{})
	if listErr != nil {
		return i, listErr
	}
	for _, x := range list {
		same := func(r string) bool { return state.SameImage(state.Reference(r), ref) }
		if slices.ContainsFunc(x.RepoDigests, same) {
			return d.ImageInspect(ctx, x.ID)
		}
	}
	return i, err
}

func (d doing) pull(ctx context.Context, ref string, progress Progress) error {
	var opt image.PullOptions
	host := state.Registry(ref)
	if user, password, ok := d.e.cfg.Auth(host); ok {
		auth, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: user, Password: password, ServerAddress: host})
		if err != nil {
			return err
		}
		opt.RegistryAuth = auth
	}
	// Leaving early closes the connection, which stops the engine's download.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer, err := d.ImagePull(ctx, ref, opt)
	if err != nil {
		return err
	}
	defer answer.Close()
	err = readPull(answer, progress)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// pullLine is one line of the engine's answer to a pull.
type pullLine struct {
	ID             string `json:"id"`
	ProgressDetail struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Status      string `json:"status"`
	Error       string `json:"error"`
	ErrorDetail *struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// failure is the error a line carries: the pull's status code is 200 all the same.
func (l pullLine) failure() error {
	switch {
	case l.ErrorDetail != nil && l.ErrorDetail.Message != "":
		return errors.New(l.ErrorDetail.Message)
	case l.Error != "":
		return errors.New(l.Error)
	case l.ErrorDetail != nil:
		return errors.New("the engine gave no reason")
	}
	return nil
}

// readPull reads the answer to its end.
func readPull(r io.Reader, progress Progress) error {
	layers := layers{at: map[string]layer{}}
	dec := json.NewDecoder(r)
	for {
		var l pullLine
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		if err := l.failure(); err != nil {
			return err
		}
		if layers.add(l) && progress != nil {
			progress(layers.done, layers.total)
		}
	}
}

// mostLayer is more than a layer can be; sums of such sizes do not overflow.
const mostLayer = 1 << 45

type layer struct{ done, total int64 }

// layers adds up a download. A layer that starts again does not count back.
type layers struct {
	at          map[string]layer
	done, total int64
}

// add reports whether the sums changed.
func (s *layers) add(l pullLine) bool {
	was := s.at[l.ID]
	now := was
	switch l.Status {
	case "Downloading":
		now.total = max(was.total, min(l.ProgressDetail.Total, mostLayer))
		now.done = max(was.done, l.ProgressDetail.Current)
		now.done = min(now.done, now.total)
	case "Download complete", "Pull complete":
		now.done = was.total
	}
	if now == was {
		return false
	}
	s.at[l.ID] = now
	s.done += max(0, now.done-was.done)
	s.total += now.total - was.total
	return true
}
