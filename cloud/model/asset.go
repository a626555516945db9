package model

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/url"
	"time"

	"deckhand/cloud/access"
)

// AssetFile is a file that belongs to a release. As the value of a field it says
// that the content is stored already; nobody else can say so.
type AssetFile struct {
	// ID names the content. Who knows it may download the file, so it is random
	// and never shown but in the address.
	ID          string
	Filename    string
	ContentType string
	Size        int64 // bytes
}

// AssetPath is the path below the API's URL where files are.
const AssetPath = "/release-asset/v1/file"

// assetDocument is an AssetFile as it is stored and shown.
type assetDocument struct {
	Filename    string `json:"filename"`
	Href        string `json:"href"`
	ContentType string `json:"content_type"`
	Disposition string `json:"content_disposition"`
	Size        int64  `json:"size"`
}

// Disposition is the Content-Disposition of a download: it is saved, never shown.
func (f AssetFile) Disposition() string {
	return mime.FormatMediaType("attachment", map[string]string{"filename": f.Filename})
}

func (f AssetFile) document() (json.RawMessage, error) {
	return json.Marshal(assetDocument{f.Filename, AssetPath + "?id=" + url.QueryEscape(f.ID), f.ContentType, f.Disposition(), f.Size})
}

// fileDocument is a stored document with a complete href. What cannot be read is
// shown as it is.
func (db *DB) fileDocument(stored string) string {
	var d assetDocument
	if json.Unmarshal([]byte(stored), &d) != nil {
		return stored
	}
	d.Href = db.url() + d.Href
	b, err := json.Marshal(d)
	if err != nil {
		return stored
	}
	return string(b)
}

func assetRules() rules {
	return rules{
		required: "release asset_key",
		fixed:    "release asset_key",
		lengths:  map[string][2]int{"asset_key": {1, 1000}},
		create:   storedAsset,
		update:   storedAsset,
		after:    each(afterAsset),
	}
}

// storedAsset takes a file that is stored, or none: a client cannot say by itself
// that there is one.
func storedAsset(_ context.Context, _ *txn, w *write) error {
	switch v := w.set["asset"].(type) {
	case nil:
	case AssetFile:
		document, err := v.document()
		w.set["asset"] = document
		return err
	default:
		return invalid("asset", "asset is a file: send it as multipart/form-data, or in parts with beginUpload.")
	}
	return nil
}

// afterAsset notes which folder the row needs, for who serves it and who clears up.
func afterAsset(ctx context.Context, t *txn, w *write) error {
	if w.verb == access.Delete || !w.sets("asset") {
		return nil
	}
	var d assetDocument
	if raw, ok := w.set["asset"].(json.RawMessage); ok {
		if err := json.Unmarshal(raw, &d); err != nil {
			return err
		}
	}
	address, err := url.Parse(d.Href)
	if err != nil {
		return err
	}
	_, err = t.ExecContext(ctx, `UPDATE release_asset SET file = ? WHERE id = ?`, text(address.Query().Get("id")), w.id)
	return err
}

// AssetFileNamed finds the file with an ID. ErrNotFound: no release has it (any
// more).
func (db *DB) AssetFileNamed(ctx context.Context, id string) (AssetFile, error) {
	var stored string
	if err := db.read.QueryRowContext(ctx, `SELECT asset FROM release_asset WHERE file = ?`, id).Scan(&stored); err != nil {
		return AssetFile{}, notFound(err, "asset")
	}
	var d assetDocument
	err := json.Unmarshal([]byte(stored), &d)
	return AssetFile{ID: id, Filename: d.Filename, ContentType: d.ContentType, Size: d.Size}, err
}

// AssetUpload is a file that comes in parts.
type AssetUpload struct {
	// UUID names it. Who knows it may send parts until Expires.
	UUID        string
	Filename    string
	ContentType string
	Size        int64 // bytes of the whole
	ChunkSize   int64 // bytes of each part; the last may be smaller
	Expires     time.Time
}

// Parts is how many parts the file comes in; at least one.
func (u AssetUpload) Parts() int64 { return max(1, (u.Size+u.ChunkSize-1)/u.ChunkSize) }

// PartSize is the size in bytes of a part; the first is 1.
func (u AssetUpload) PartSize(n int64) int64 { return min(u.ChunkSize, u.Size-(n-1)*u.ChunkSize) }

// BeginAssetUpload notes an upload for the one asset selected; another one that
// was going on for it ends. ErrForbidden: there is no such asset.
func (db *DB) BeginAssetUpload(ctx context.Context, asset Selection, u AssetUpload) error {
	return db.update(ctx, func(t *txn) error {
		id, err := t.oneAsset(ctx, asset)
		if err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, `DELETE FROM asset_upload WHERE release_asset = ?`, id); err != nil {
			return err
		}
		_, err = t.insert(ctx, `INSERT INTO asset_upload (created_at, expires_at, uuid, release_asset, filename, content_type, size, chunk_size) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			millis(t.now), millis(u.Expires), u.UUID, id, u.Filename, u.ContentType, u.Size, u.ChunkSize)
		return err
	})
}

// oneAsset is the id of the asset selected, and keeps others from changing it.
func (t *txn) oneAsset(ctx context.Context, asset Selection) (int64, error) {
	ids, err := t.ids(ctx, `SELECT t.id FROM release_asset t WHERE `+asset.SQL+` ORDER BY t.id LIMIT 2`+t.locking(), asset.Args...)
	if err == nil && len(ids) != 1 {
		err = fmt.Errorf("%d assets are meant: %w", len(ids), ErrForbidden)
	}
	if err != nil {
		return 0, err
	}
	return ids[0], nil
}

// AssetUploadNamed finds an upload that goes on. ErrNotFound: it ended, or expired.
func (db *DB) AssetUploadNamed(ctx context.Context, uuid string) (AssetUpload, error) {
	u := AssetUpload{UUID: uuid}
	var expires int64
	err := db.read.QueryRowContext(ctx, `SELECT filename, content_type, size, chunk_size, expires_at FROM asset_upload WHERE uuid = ? AND expires_at > ?`, uuid, millis(db.Now())).
		Scan(&u.Filename, &u.ContentType, &u.Size, &u.ChunkSize, &expires)
	u.Expires = time.UnixMilli(expires).UTC()
	return u, notFound(err, "upload")
}

// FinishAssetUpload ends an upload of the one asset selected, which has the file
// from then on. ErrNotFound: the upload is not, or no longer, one of the asset.
func (db *DB) FinishAssetUpload(ctx context.Context, by access.Caller, asset Selection, uuid string, file AssetFile) error {
	return db.update(ctx, func(t *txn) error {
		id, err := t.endAssetUpload(ctx, asset, uuid)
		if err != nil {
			return err
		}
		_, err = t.change(ctx, writer{Caller: by}, "release_asset", one(id), Values{"asset": file})
		return err
	})
}

// CancelAssetUpload ends an upload of the one asset selected, which stays as it is.
func (db *DB) CancelAssetUpload(ctx context.Context, asset Selection, uuid string) error {
	return db.update(ctx, func(t *txn) error {
		_, err := t.endAssetUpload(ctx, asset, uuid)
		return err
	})
}

func (t *txn) endAssetUpload(ctx context.Context, asset Selection, uuid string) (int64, error) {
	id, err := t.oneAsset(ctx, asset)
	if err != nil {
		return 0, err
	}
	n, err := t.affected(ctx, `DELETE FROM asset_upload WHERE uuid = ? AND release_asset = ?`, uuid, id)
	if err == nil && n == 0 {
		err = fmt.Errorf("upload: %w", ErrNotFound)
	}
	return id, err
}

// StoredAssets forgets uploads that expired, and gives the names of the files and
// of the uploads whose content must stay.
func (db *DB) StoredAssets(ctx context.Context) (map[string]bool, error) {
	if err := db.update(ctx, func(t *txn) error {
		_, err := t.ExecContext(ctx, `DELETE FROM asset_upload WHERE expires_at <= ?`, millis(t.now))
		return err
	}); err != nil {
		return nil, err
	}
	names, err := column[string](db.read.QueryContext(ctx, `SELECT file FROM release_asset WHERE file IS NOT NULL UNION ALL SELECT uuid FROM asset_upload`))
	kept := make(map[string]bool, len(names))
	for _, name := range names {
		kept[name] = true
	}
	return kept, err
}

// URL is where the API is, without a slash at its end.
func (db *DB) URL() string { return db.url() }
