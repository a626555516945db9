package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"deckhand/config"
	"deckhand/state"
)

// Introduction remembers what a new device still has to tell its cloud. What
// Drop and Keep write is on the disk when they return.
type Introduction interface {
	// Pin is the release that the device is to stay on; ok is false when there
	// is no such wish.
	Pin() (fleet int64, commit string, ok bool, err error)
	// DropPin forgets that wish.
	DropPin() error
	// Told names the cloud, and the device in it, that was told the rest; empty
	// when none was.
	Told() (string, error)
	// KeepTold remembers that.
	KeepTold(place string) error
}

// IntroduceConfig says what there is to tell.
type IntroduceConfig struct {
	Client *Client
	File   IdentityFile
	Memory Introduction

	// Settings are the configuration variables of the device, without prefix,
	// whose values are not the default. The cloud is told those that it has no
	// value for.
	Settings func() map[string]string

	// OnError is told why an attempt failed and when the next one comes, and
	// OnNotice what is given up. Both may be nil.
	OnError  func(err error, next time.Duration)
	OnNotice func(err error)
}

// Introduce tells the cloud what only the device knows: the release that came
// with its disk image and that it is to stay on, settings of the image, and the
// name it was given there. It returns when that is done, or when ctx ends.
//
// Each thing is told once. After a crash or a lost answer it is told again, which
// changes nothing. What the cloud refuses for good is given up: a device that
// never asks for its target is worse than one without that setting.
func Introduce(ctx context.Context, c IntroduceConfig) error {
	if c.OnNotice == nil {
		c.OnNotice = func(error) {}
	}
	return insist(ctx, c.File, c.OnError, introducer{c}.attempt)
}

type introducer struct{ c IntroduceConfig }

func (i introducer) attempt(ctx context.Context) error {
	v := i.c.File.Values()
	if err := i.pin(ctx, v); err != nil {
		return err
	}
	told, err := i.c.Memory.Told()
	if err != nil {
		return fmt.Errorf("introduce the device: %w", err)
	}
	place := v.APIEndpoint + " " + v.UUID
	if told == place {
		return nil
	}
	if err := i.settings(ctx, v); err != nil {
		return err
	}
	if err := i.name(ctx, v); err != nil {
		return err
	}
	if err := i.c.Memory.KeepTold(place); err != nil {
		return fmt.Errorf("introduce the device: %w", err)
	}
	return nil
}

// pin keeps the device on the release that it came with.
func (i introducer) pin(ctx context.Context, v config.Values) error {
	fleet, commit, ok, err := i.c.Memory.Pin()
	if err != nil {
		return fmt.Errorf("pin the device: %w", err)
	}
	if !ok {
		return nil
	}
	if err := i.pinTo(ctx, v.DeviceID, fleet, commit); err != nil {
		if !errors.Is(err, ErrNoRelease) && !errors.Is(err, errNoPin) && !i.final(ctx, v, err) {
			return err
		}
		i.c.OnNotice(fmt.Errorf("the device follows its fleet, although its image asks for one release: %w", err))
	}
	if err := i.c.Memory.DropPin(); err != nil {
		return fmt.Errorf("pin the device: %w", err)
	}
	return nil
}

var errNoPin = errors.New("the wish to be pinned names no release")

func (i introducer) pinTo(ctx context.Context, device, fleet int64, commit string) error {
	if fleet <= 0 || commit == "" {
		return state.Classify(state.ClassInvalid, errNoPin)
	}
	release, err := i.c.Client.Release(ctx, fleet, commit)
	if err != nil {
		return err
	}
	return i.c.Client.PinTo(ctx, device, release)
}

// settings gives the cloud the values that it lacks. Without that its first
// target would take them away.
func (i introducer) settings(ctx context.Context, v config.Values) error {
	mine := i.c.Settings()
	if len(mine) == 0 {
		return nil
	}
	answer, err := i.c.Client.Target(ctx, "", 0)
	if err != nil {
		return err
	}
	theirs, err := variables(answer.Body, v.UUID)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		if theirs["BALENA_"+name] || theirs["RESIN_"+name] || theirs[name] {
			continue
		}
		err := i.c.Client.AddConfigVariable(ctx, v.DeviceID, "RESIN_"+name, mine[name])
		if err != nil && !i.final(ctx, v, err) {
			return err
		}
		if err != nil {
			i.c.OnNotice(err)
		}
	}
	return nil
}

func (i introducer) name(ctx context.Context, v config.Values) error {
	if v.DeviceName == "" {
		return nil
	}
	err := i.c.Client.Rename(ctx, v.DeviceID, v.DeviceName)
	if err != nil && i.final(ctx, v, err) {
		i.c.OnNotice(err)
		return nil
	}
	return err
}

// final reports whether the cloud refused just this, now and later: it still
// knows the device, as a row or, where there are no rows, by its target. Whatever
// else sits between the two would not.
func (i introducer) final(ctx context.Context, v config.Values, err error) bool {
	if !refused(err) {
		return false
	}
	if _, err := find(ctx, i.c.Client, v, v.DeviceAPIKey); err == nil {
		return true
	}
	answer, err := i.c.Client.Target(ctx, "", 0)
	if err == nil {
		_, err = variables(answer.Body, v.UUID)
	}
	return err == nil
}

// variables are the names of the configuration variables in a target document.
func variables(document []byte, uuid string) (map[string]bool, error) {
	var devices map[string]*struct {
		Config map[string]json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(document, &devices); err != nil || devices[uuid] == nil {
		return nil, state.Classify(state.ClassInvalid, errors.New("read the configuration that the cloud has: the answer is not about this device; is the cloud address right?"))
	}
	names := map[string]bool{}
	for name := range devices[uuid].Config {
		names[name] = true
	}
	return names, nil
}
