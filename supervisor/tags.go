package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"deckhand/localapi"
	"deckhand/state"
	"deckhand/uplink"
)

// sendTags gives the cloud the tags that programs on the device set, until ctx
// ends.
func (s *Supervisor) sendTags(ctx context.Context, client *uplink.Client) {
	_ = uplink.RunTags(ctx, uplink.TagConfig{
		Queue: s.store.Tags, Changed: s.tagged, Send: client.SendTags, MaxBackoff: s.pollInterval,
		OnError: func(err error, next time.Duration) {
			s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Dur("next", next).Msg("cannot send tags")
		},
		OnDrop: func(name string, err error) {
			s.cfg.Log.Warn().Err(err).Str("tag", name).Msg("the cloud does not take a tag; it is given up")
		},
	}) // it ends with ctx
}

// Tags implements localapi.Tags.
func (e edge) Tags(ctx context.Context) ([]localapi.Tag, error) {
	v := e.s.values()
	e.s.mu.Lock()
	client := e.s.client
	e.s.mu.Unlock()
	if client == nil || v.DeviceID == 0 {
		return nil, errors.New("the device is not known to a cloud yet; its tags are there")
	}
	tags, err := client.Tags(ctx, v.DeviceID)
	if err != nil {
		return nil, err
	}
	out := make([]localapi.Tag, len(tags))
	for i, t := range tags {
		out[i] = localapi.Tag(t)
	}
	return out, nil
}

// SetTags implements localapi.Tags.
func (e edge) SetTags(tags map[string]string) error {
	changed, err := e.s.store.Tags.Want(tags)
	if err != nil {
		return fmt.Errorf("queue tags: %w", err)
	}
	if changed {
		select {
		case e.s.tagged <- struct{}{}:
		default: // it will look anyway
		}
	}
	return nil
}
