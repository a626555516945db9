package model_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

func TestOneHoldsALeaseAtATime(t *testing.T) {
	now := time.Now()
	w := cloudtest.New(t, func() time.Time { return now })
	ctx := t.Context()
	if done, err := w.DB.LastDone(ctx, "work"); err != nil || !done.IsZero() {
		t.Fatalf("done %s, %v; want never", done, err)
	}
	err := w.DB.Hold(ctx, "work", func(ctx context.Context) error {
		if err := w.DB.Hold(ctx, "other work", func(context.Context) error { return nil }); err != nil {
			t.Errorf("another lease: %v", err)
		}
		err := w.DB.Hold(ctx, "work", func(context.Context) error { t.Error("two at a time"); return nil })
		if held, ok := errors.AsType[*model.HeldError](err); !ok || !held.Until.After(now) {
			t.Errorf("the second got %v", err)
		}
		// A holder that was killed does not come back to end its lease.
		now = now.Add(3 * time.Minute)
		return w.DB.Hold(ctx, "work", func(context.Context) error { return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	if done, err := w.DB.LastDone(ctx, "work"); err != nil || done.UnixMilli() != now.UnixMilli() {
		t.Errorf("done %s, %v; want %s", done, err, now)
	}
	failed := errors.New("failed")
	if err := w.DB.Hold(ctx, "work", func(context.Context) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if err := w.DB.Hold(ctx, "work", func(context.Context) error { return nil }); err != nil {
		t.Errorf("after a failure: %v", err)
	}
}

func TestAnImageIsForgottenWhenNoReleaseHasIt(t *testing.T) {
	now := time.Now()
	w := cloudtest.New(t, func() time.Time { return now })
	ctx := t.Context()
	fleet := w.Fleet(w.Admin, "kitchen")
	_, images := w.Release(fleet, "aaaa", `{"services":{"main":{"image":"x"}}}`)
	repository := model.Repository(images[0].Location)
	after := now.Add(time.Minute)
	ran := 0
	do := func() error { ran++; return nil }
	if forgotten, err := w.DB.Forget(ctx, repository, after, do); forgotten || err != nil || ran != 0 {
		t.Errorf("the image of a release: forgotten %v, %v, %d times", forgotten, err, ran)
	}
	stored, err := w.DB.StoredImages(ctx, after)
	if err != nil || len(stored) != 1 || stored[0].Repository != repository || !stored[0].Done || !strings.HasPrefix(stored[0].Release, "admin/kitchen/0.0.0") {
		t.Errorf("stored %+v, %v", stored, err)
	}
	if owner, err := w.DB.OwnerOf(ctx, repository); err != nil || owner.Handle != "admin" {
		t.Errorf("owner %+v, %v", owner, err)
	}
	if _, err := w.DB.OwnerOf(ctx, "v2/none"); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("owner of nothing: %v", err)
	}
	if forgotten, err := w.DB.Forget(ctx, "v2/none", after, do); !forgotten || err != nil || ran != 1 {
		t.Errorf("nobody's: forgotten %v, %v, %d times", forgotten, err, ran)
	}
}

func TestTheCloudKeepsItsID(t *testing.T) {
	w := cloudtest.New(t, nil)
	first, err := w.DB.CloudID(t.Context())
	if err != nil || len(first) != 32 {
		t.Fatalf("%q %v", first, err)
	}
	if second, err := w.DB.CloudID(t.Context()); err != nil || second != first {
		t.Errorf("%q %v, want %q", second, err, first)
	}
}
