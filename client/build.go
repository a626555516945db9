package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"deckhand/build/event"
	"deckhand/state"
)

// BuildRequest is a project to build.
type BuildRequest struct {
	Slug       string // of the fleet, org/name
	Dockerfile string // other than the usual one; for projects without a compose file
	Source     string // folder to pack; ignored when Archive is set
	Archive    io.Reader
	Draft      bool // make a release that no device follows by itself
	NoCache    bool
	// Packed hears how far packing is: files so far and their bytes. May be nil.
	Packed func(files int, bytes int64)
}

// ErrNoResult says that the builder's answer ended before it said how the build ended.
var ErrNoResult = errors.New("the connection to the builder broke before the build ended")

// Build sends a project and hands over what the builder says, until the build ended. The
// returned event is the last one, of type build.result: a failed build is no error.
func (c *Client) Build(ctx context.Context, r BuildRequest, each func(event.Event)) (event.Event, error) {
	body := r.Archive
	if body == nil {
		project, err := OpenProject(r.Source)
		if err != nil {
			return event.Event{}, err
		}
		reader, writer := io.Pipe()
		defer reader.Close()
		go func() {
			_ = writer.CloseWithError(state.Classify(state.ClassInvalid, project.Pack(writer, r.Packed)))
		}()
		body = reader
	}
	query := url.Values{
		"slug": {r.Slug}, "dockerfilePath": {r.Dockerfile}, "emulated": {"false"},
		"nocache": {strconv.FormatBool(r.NoCache)}, "headless": {"false"}, "isdraft": {strconv.FormatBool(r.Draft)},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address(c.builder, "/v3/build", query), body)
	if err != nil {
		return event.Event{}, state.Classify(state.ClassInvalid, err)
	}
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := c.do(req)
	if err != nil {
		return event.Event{}, fmt.Errorf("push to %s: %w", r.Slug, err)
	}
	defer resp.Body.Close()
	return readEvents(resp.Body, each)
}

func readEvents(r io.Reader, each func(event.Event)) (event.Event, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		data, err := in.ReadBytes('\n')
		if len(data) > 1 { // a bare line break is a heartbeat
			var e event.Event
			if bad := json.Unmarshal(data, &e); bad != nil {
				return event.Event{}, state.Classify(state.ClassNetwork, fmt.Errorf("%w: %w", ErrNoResult, bad))
			}
			if each != nil {
				each(e)
			}
			if e.Type == event.BuildResult {
				return e, nil
			}
		}
		if errors.Is(err, context.Canceled) {
			return event.Event{}, state.Classify(state.ClassCancelled, err)
		}
		if err != nil {
			return event.Event{}, state.Classify(state.ClassNetwork, ErrNoResult)
		}
	}
}
