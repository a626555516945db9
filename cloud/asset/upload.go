package asset

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// NewUpload is what a client says of a file before it sends its parts.
type NewUpload struct {
	Filename    string `json:"filename"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`       // bytes
	ChunkSize   int64  `json:"chunk_size"` // bytes of each part but the last
}

// Upload tells a client where the parts go.
type Upload struct {
	UUID  string `json:"uuid"`
	Parts []Part `json:"uploadParts"`
}

// Part is one of an upload. The URL is the permission to send it.
type Part struct {
	URL  string `json:"url"`
	Size int64  `json:"chunkSize"`
	N    int64  `json:"partNumber"`
}

// partPath is the path of addresses of parts.
const partPath = "/release-asset/v1/part"

func refuse(status int, format string, args ...any) error {
	return &answer.BodyError{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// Begin starts an upload for the one asset selected. Errors: *answer.BodyError,
// model.ErrForbidden when there is no such asset.
func (s *Store) Begin(ctx context.Context, asset model.Selection, n NewUpload) (Upload, error) {
	u := model.AssetUpload{
		UUID: newName(), Filename: cleanName(n.Filename), ContentType: cleanType(n.ContentType),
		Size: n.Size, ChunkSize: n.ChunkSize, Expires: s.db.Now().Add(uploadLife),
	}
	switch {
	case n.Size < 1 || n.ChunkSize < 1:
		return Upload{}, refuse(http.StatusBadRequest, "size and chunk_size are bytes, at least 1.")
	case n.Size > s.limit:
		return Upload{}, refuse(http.StatusRequestEntityTooLarge, "A file has at most %d bytes here.", s.limit)
	case u.Parts() > maxParts:
		return Upload{}, refuse(http.StatusBadRequest, "A file has at most %d parts; choose a larger chunk_size.", maxParts)
	}
	if err := os.Mkdir(s.path(uploads, u.UUID), 0o700); err != nil {
		return Upload{}, fmt.Errorf("begin upload: %w", err)
	}
	if err := s.db.BeginAssetUpload(ctx, asset, u); err != nil {
		return Upload{}, errors.Join(err, os.Remove(s.path(uploads, u.UUID)))
	}
	up := Upload{UUID: u.UUID}
	for n := int64(1); n <= u.Parts(); n++ {
		up.Parts = append(up.Parts, Part{N: n, Size: u.PartSize(n), URL: fmt.Sprintf("%s%s?upload=%s&part=%d", s.db.URL(), partPath, u.UUID, n)})
	}
	return up, nil
}

// Sent is a part that the client says it sent, with the answer's ETag.
type Sent struct {
	N    int64  `json:"PartNumber"`
	ETag string `json:"ETag"`
}

// Commit ends an upload: the asset selected has the file from then on. Errors:
// *answer.BodyError; model.ErrForbidden when there is no such asset.
func (s *Store) Commit(ctx context.Context, by access.Caller, asset model.Selection, uuid string, sent []Sent) error {
	u, err := s.upload(ctx, uuid)
	if err != nil {
		return err
	}
	file := model.AssetFile{ID: newName(), Filename: u.Filename, ContentType: u.ContentType, Size: u.Size}
	from, to := s.path(uploads, uuid), s.path(files, file.ID)
	now := time.Now()
	// Nothing clears up what was touched just now.
	err = os.Chtimes(from, now, now)
	if err == nil {
		err = os.Rename(from, to) // from here on no part arrives
	}
	if errors.Is(err, os.ErrNotExist) {
		return ended(model.ErrNotFound) // somebody else commits it
	}
	if err != nil {
		return fmt.Errorf("commit upload: %w", err)
	}
	if err = keepParts(to, u, sent); err == nil {
		err = s.db.FinishAssetUpload(ctx, by, asset, uuid, file)
	}
	if err != nil {
		return errors.Join(ended(err), os.Rename(to, from))
	}
	return nil
}

var sumRule = regexp.MustCompile(`^[0-9a-f]{64}$`)

// keepParts checks that all parts of an upload are in a folder, and removes what a
// client sent again with another content.
func keepParts(dir string, u model.AssetUpload, sent []Sent) error {
	etags := map[int64]string{}
	for _, p := range sent {
		etags[p.N] = strings.Trim(p.ETag, `"`)
	}
	kept := map[string]bool{}
	for n := int64(1); n <= u.Parts(); n++ {
		name := partName(n, etags[n])
		_, err := os.Stat(filepath.Join(dir, name)) // the size was right when it arrived
		if err != nil || !sumRule.MatchString(etags[n]) {
			return refuse(http.StatusBadRequest, "Part %d is missing, or has another ETag: send it again.", n)
		}
		kept[name] = true
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !kept[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Cancel ends an upload of the asset selected, which stays as it is.
func (s *Store) Cancel(ctx context.Context, asset model.Selection, uuid string) error {
	if _, err := s.upload(ctx, uuid); err != nil {
		return err
	}
	if err := s.db.CancelAssetUpload(ctx, asset, uuid); err != nil {
		return ended(err)
	}
	return os.RemoveAll(s.path(uploads, uuid))
}

// upload finds one that goes on.
func (s *Store) upload(ctx context.Context, uuid string) (model.AssetUpload, error) {
	u, err := s.db.AssetUploadNamed(ctx, uuid)
	return u, ended(err)
}

func ended(err error) error {
	if errors.Is(err, model.ErrNotFound) {
		return refuse(http.StatusNotFound, "There is no such upload: it ended, expired, or another one took its place. Begin again.")
	}
	return err
}

// part takes one part of an upload.
func (s *Store) part(w http.ResponseWriter, r *http.Request) {
	sum, err := s.receivePart(r)
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("ETag", `"`+sum+`"`)
	answer.Empty(w, http.StatusOK)
}

func (s *Store) receivePart(r *http.Request) (sum string, err error) {
	query := r.URL.Query()
	u, err := s.upload(r.Context(), query.Get("upload"))
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseInt(query.Get("part"), 10, 64)
	if err != nil || n < 1 || n > u.Parts() {
		return "", refuse(http.StatusBadRequest, "The upload has parts 1 to %d.", u.Parts())
	}
	got, err := s.receive(r.Body, u.PartSize(n))
	if err != nil {
		return "", err
	}
	defer os.Remove(got.path)
	if got.size != u.PartSize(n) {
		return "", refuse(http.StatusBadRequest, "Part %d has %d bytes, got %d.", n, u.PartSize(n), got.size)
	}
	err = os.Rename(got.path, s.path(uploads, u.UUID, partName(n, got.sum)))
	if errors.Is(err, os.ErrNotExist) {
		err = ended(model.ErrNotFound) // while this was sent
	}
	return got.sum, err
}

func fail(w http.ResponseWriter, r *http.Request, err error) {
	if body, ok := errors.AsType[*answer.BodyError](err); ok {
		answer.JSON(w, body.Status, body.Reason)
		return
	}
	answer.Failure(w, r, err)
}
