package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"deckhand/state"
)

// ErrNoRelease means that the cloud does not have a release, or does not show
// it to this device.
var ErrNoRelease = errors.New("the cloud has no such release")

// row is the part of a row that most questions are about.
type row struct {
	ID int64 `json:"id"`
}

// Tag is one of the device's tags, as the cloud has it.
type Tag struct {
	ID    int64  `json:"id"`
	Name  string `json:"tag_key"`
	Value string `json:"value"`
}

// Tags are the tags of the device with this number.
func (c *Client) Tags(ctx context.Context, device int64) ([]Tag, error) {
	tags, err := list[Tag](ctx, c, "device_tag", query("id,tag_key,value", fmt.Sprintf("device eq %d", device)))
	if err != nil {
		return nil, fmt.Errorf("ask for the device's tags: %w", err)
	}
	return tags, nil
}

// Release is the number of a fleet's release that was built. The error is
// ErrNoRelease when there is none.
func (c *Client) Release(ctx context.Context, fleet int64, commit string) (int64, error) {
	found, err := list[row](ctx, c, "release", query("id",
		fmt.Sprintf("belongs_to__application eq %d and commit eq %s and status eq 'success'", fleet, quote(commit))))
	if err == nil && (len(found) == 0 || found[0].ID <= 0) {
		err = state.Classify(state.ClassNotFound, ErrNoRelease)
	}
	if err != nil {
		return 0, fmt.Errorf("find release %.12s of fleet %d: %w", commit, fleet, err)
	}
	return found[0].ID, nil
}

// FleetUUID is the UUID of the fleet with this number; empty when the device
// may not know.
func (c *Client) FleetUUID(ctx context.Context, fleet int64) (string, error) {
	found, err := list[struct{ UUID string }](ctx, c, "application", query("uuid", fmt.Sprintf("id eq %d", fleet)))
	if err != nil {
		return "", fmt.Errorf("ask for the UUID of fleet %d: %w", fleet, err)
	}
	if len(found) == 0 {
		return "", nil
	}
	return found[0].UUID, nil
}

// PinTo makes the device with this number stay on a release.
func (c *Client) PinTo(ctx context.Context, device, release int64) error {
	if err := c.edit(ctx, device, map[string]any{"is_pinned_on__release": release}); err != nil {
		return fmt.Errorf("pin the device to release %d: %w", release, err)
	}
	return nil
}

// Rename gives the device with this number a name.
func (c *Client) Rename(ctx context.Context, device int64, name string) error {
	if err := c.edit(ctx, device, map[string]any{"device_name": name}); err != nil {
		return fmt.Errorf("name the device: %w", err)
	}
	return nil
}

func (c *Client) edit(ctx context.Context, device int64, fields map[string]any) error {
	return c.write(ctx, http.MethodPatch, fmt.Sprintf("/v7/device(%d)", device), fields)
}

// AddConfigVariable gives the device with this number a configuration variable.
// One of that name that is there already is no error: an earlier answer was lost.
func (c *Client) AddConfigVariable(ctx context.Context, device int64, name, value string) error {
	err := c.write(ctx, http.MethodPost, "/v7/device_config_variable", map[string]any{"device": device, "name": name, "value": value})
	if e, ok := errors.AsType[*StatusError](err); ok && e.Status == http.StatusConflict {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tell the cloud about %s: %w", name, err)
	}
	return nil
}

// write sends a JSON document; every 2xx is a success.
func (c *Client) write(ctx context.Context, method, path string, content any) error {
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	res, err := c.do(ctx, request{method: method, path: path, body: body, limit: maxAnswer})
	if err == nil && res.status/100 != 2 {
		err = res.failure()
	}
	return err
}

// list asks for rows of a resource.
func list[T any](ctx context.Context, c *Client, resource, query string) ([]T, error) {
	res, err := c.do(ctx, request{method: http.MethodGet, path: "/v7/" + resource, query: query, limit: maxAnswer})
	if err != nil {
		return nil, err
	}
	if res.status/100 != 2 {
		return nil, res.failure()
	}
	return rows[T](res)
}

// rows reads the rows out of an answer.
func rows[T any](res *response) ([]T, error) {
	var answer struct {
		D *[]T `json:"d"`
	}
	if err := json.Unmarshal(res.body, &answer); err != nil || answer.D == nil {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("%s %s: the answer is not a list; is the cloud address right?", res.method, res.url))
	}
	return *answer.D, nil
}

// query is the encoded query for these fields of the rows that a filter lets
// through.
func query(fields, filter string) string {
	return "$select=" + fields + "&$filter=" + strings.ReplaceAll(url.QueryEscape(filter), "+", "%20")
}

// quote writes a text as the query language wants it.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// refused reports whether the cloud understood a request and will not do it,
// now or later.
func refused(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Status/100 == 4 && e.Status != http.StatusRequestTimeout && e.Status != http.StatusTooManyRequests
}
