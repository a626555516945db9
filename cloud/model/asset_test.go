package model_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// assetWorld is a cloud with a release that has an asset without a file.
type assetWorld struct {
	*cloudtest.World
	by      access.Caller
	release model.Release
	asset   int64
	this    model.Selection
}

func withAsset(t *testing.T, now func() time.Time) assetWorld {
	t.Helper()
	w := assetWorld{World: cloudtest.New(t, now)}
	w.by = access.Caller{Role: access.User, ID: w.Admin.ID, Actor: w.Admin.Actor, Name: "admin"}
	w.release, _ = w.Release(w.Fleet(w.Admin, "kitchen"), "abc1", `{"services":{"web":{}}}`)
	var err error
	w.asset, err = w.DB.Create(t.Context(), w.by, "release_asset", model.Values{"release": w.release.ID, "asset_key": "notes", "asset": nil})
	if err != nil {
		t.Fatal(err)
	}
	w.this = model.Selection{SQL: "t.id = ?", Args: []any{w.asset}}
	return w
}

func (w assetWorld) upload(uuid string) model.AssetUpload {
	return model.AssetUpload{UUID: uuid, Filename: "notes.txt", ContentType: "text/plain", Size: 11, ChunkSize: 5, Expires: w.DB.Now().Add(time.Hour)}
}

func (w assetWorld) stored() map[string]bool {
	w.T.Helper()
	kept, err := w.DB.StoredAssets(context.Background())
	if err != nil {
		w.T.Fatal(err)
	}
	return kept
}

// A client cannot say that an asset has a file: it could name anybody's.
func TestOnlyWhatIsStoredIsAnAsset(t *testing.T) {
	w := withAsset(t, nil)
	forged := json.RawMessage(`{"filename":"x","href":"` + model.AssetPath + `?id=somebodys"}`)
	_, err := w.DB.Update(t.Context(), w.by, "release_asset", w.this, model.Values{"asset": forged})
	if !errors.Is(err, model.ErrInvalid) || !strings.Contains(err.Error(), "beginUpload") {
		t.Errorf("a forged file: %v", err)
	}
	if _, err := w.DB.AssetFileNamed(t.Context(), "somebodys"); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("a forged file can be downloaded: %v", err)
	}
	file := model.AssetFile{ID: "content1", Filename: `a "b" ü.txt`, ContentType: "text/plain", Size: 5}
	if _, err := w.DB.Update(t.Context(), w.by, "release_asset", w.this, model.Values{"asset": file}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.DB.AssetFileNamed(t.Context(), "content1"); err != nil || got != file {
		t.Errorf("the file is %+v, %v", got, err)
	}
	if kept := w.stored(); !kept["content1"] || len(kept) != 1 {
		t.Errorf("what must stay is %v", kept)
	}
	if _, err := w.DB.Update(t.Context(), w.by, "release_asset", w.this, model.Values{"asset": nil}); err != nil {
		t.Fatal(err)
	}
	if kept := w.stored(); len(kept) != 0 {
		t.Errorf("after it was emptied stays %v", kept)
	}
}

func TestAnUploadEndsOnceAndWithItsAsset(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	w := withAsset(t, func() time.Time { return now })
	ctx := t.Context()
	begin := func(uuid string) {
		t.Helper()
		if err := w.DB.BeginAssetUpload(ctx, w.this, w.upload(uuid)); err != nil {
			t.Fatal(err)
		}
	}
	begin("first")
	begin("second") // takes its place
	if kept := w.stored(); !kept["second"] || len(kept) != 1 {
		t.Errorf("what must stay is %v", kept)
	}
	u, err := w.DB.AssetUploadNamed(ctx, "second")
	if err != nil || u.Parts() != 3 || u.PartSize(1) != 5 || u.PartSize(3) != 1 {
		t.Errorf("the upload is %+v, %v", u, err)
	}
	nothing := model.Selection{SQL: "FALSE"}
	if err := w.DB.BeginAssetUpload(ctx, nothing, w.upload("third")); !errors.Is(err, model.ErrForbidden) {
		t.Errorf("an upload for no asset: %v", err)
	}
	file := model.AssetFile{ID: "content", Filename: "notes.txt", ContentType: "text/plain", Size: 11}
	if err := w.DB.FinishAssetUpload(ctx, w.by, w.this, "first", file); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("the end of an upload that was replaced: %v", err)
	}
	if err := w.DB.FinishAssetUpload(ctx, w.by, w.this, "second", file); err != nil {
		t.Fatal(err)
	}
	if err := w.DB.FinishAssetUpload(ctx, w.by, w.this, "second", file); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("a second end: %v", err)
	}
	begin("late")
	now = now.Add(time.Hour)
	if _, err := w.DB.AssetUploadNamed(ctx, "late"); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("an upload that expired: %v", err)
	}
	begin("last")
	if _, err := w.DB.Delete(ctx, w.by, "release", model.Selection{SQL: "t.id = ?", Args: []any{w.spare(t)}}); err != nil {
		t.Fatal(err)
	}
	if kept := w.stored(); !kept["content"] || !kept["last"] || len(kept) != 2 {
		t.Errorf("what must stay is %v", kept)
	}
	w.forget(t)
	if kept := w.stored(); len(kept) != 0 {
		t.Errorf("after its fleet went stays %v", kept)
	}
}

// spare makes another release, so that deleting one can be seen to leave others alone.
func (w assetWorld) spare(t *testing.T) int64 {
	t.Helper()
	f, err := w.DB.FleetBySlug(t.Context(), "admin/kitchen")
	if err != nil {
		t.Fatal(err)
	}
	return w.Building(f, "abc2", `{"services":{"web":{}}}`).ID
}

// forget deletes the fleet with all its releases.
func (w assetWorld) forget(t *testing.T) {
	t.Helper()
	if _, err := w.DB.Delete(t.Context(), w.by, "application", model.Selection{SQL: "t.slug = 'admin/kitchen'"}); err != nil {
		t.Fatal(err)
	}
}
