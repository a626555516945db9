package model_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/test/postgres"
)

// servers are two on one database; a file has one, which is both.
func servers(t *testing.T, now func() time.Time) (here, there *model.DB) {
	t.Helper()
	cfg := cloudtest.Database(t)
	cfg.Now = now
	here = opened(t, cfg)
	if !postgres.Wanted() {
		return here, here
	}
	return here, opened(t, cfg)
}

func TestABuildWhoseServerIsGoneIsEndedOnce(t *testing.T) {
	var passed atomic.Int64
	here, there := servers(t, func() time.Time {
		return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).Add(time.Duration(passed.Load()))
	})
	f := fleet(t, here, owner(t, here, "alice"), "kitchen")
	ctx := t.Context()
	gone, slow := started(t, here, f, "a1", true), started(t, here, f, "a2", true)
	image, err := here.AddImage(ctx, model.NewImage{Release: gone.ID, Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	ends := func(want int, when string) {
		t.Helper()
		var ended atomic.Int64
		var looking sync.WaitGroup
		for _, db := range []*model.DB{here, there, there} {
			looking.Go(func() {
				n, err := db.EndAbandonedBuilds(ctx)
				if err != nil {
					t.Error(err)
				}
				ended.Add(int64(n))
			})
		}
		looking.Wait()
		if int(ended.Load()) != want {
			t.Errorf("%s: %d builds were ended, want %d", when, ended.Load(), want)
		}
	}
	passed.Add(int64(40 * time.Second))
	ends(0, "while both servers are there")
	if err := here.RenewBuild(ctx, slow.ID); err != nil {
		t.Fatal(err)
	}
	passed.Add(int64(20 * time.Second))
	ends(1, "a minute after the last sign of one")
	ends(0, "again")

	// Its server was only very slow: it does not get the build back.
	if err := here.RenewBuild(ctx, gone.ID); err == nil {
		t.Error("the build of a server that was taken for gone was renewed")
	} else if lost, ok := errors.AsType[*model.LostError](err); !ok {
		t.Errorf("got %v", lost)
	}
	if err := here.FinishImage(ctx, image.ID, model.ImageResult{Status: model.StatusSuccess, ContentHash: "sha256:x", PushedAt: time.Now()}); err != nil {
		t.Error(err)
	}
	got, err := here.FinishRelease(ctx, gone.ID, model.StatusSuccess, "all is well")
	if err != nil || got.Status != model.StatusError || !strings.Contains(got.BuildLog, "The server that built this release is gone; push again.") {
		t.Errorf("the release is %+v, %v", got, err)
	}
	images, err := here.Images(ctx, gone.ID)
	if err != nil || images[0].Status != model.StatusError || !strings.Contains(images[0].ErrorMessage, "push again") {
		t.Errorf("its image is %+v, %v", images, err)
	}
	// The other build goes on to its end, and then nobody has it.
	if r, err := here.FinishRelease(ctx, slow.ID, model.StatusSuccess, ""); err != nil || r.Status != model.StatusSuccess {
		t.Errorf("the renewed build: %+v, %v", r, err)
	}
	if err := here.RenewBuild(ctx, slow.ID); err == nil {
		t.Error("a build that ended was renewed")
	}
	passed.Add(int64(time.Hour))
	ends(0, "after the end of all")
}

// A build that an older deckhand-cloud began has no lease.
func TestABuildWithoutALeaseIsEndedAfterADay(t *testing.T) {
	var passed atomic.Int64
	here, there := servers(t, func() time.Time {
		return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).Add(time.Duration(passed.Load()))
	})
	started(t, here, fleet(t, here, owner(t, here, "alice"), "kitchen"), "a1", true)
	if err := here.Exec(t.Context(), `DELETE FROM lease`); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{0, 1} {
		if n, err := there.EndAbandonedBuilds(t.Context()); err != nil || n != want {
			t.Errorf("%d builds were ended, %v; want %d", n, err, want)
		}
		passed.Add(int64(25 * time.Hour))
	}
}
