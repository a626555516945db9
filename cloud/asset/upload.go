package asset

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"

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
	if err := s.shelf.begin(u.UUID); err != nil {
		return Upload{}, fmt.Errorf("begin upload: %w", err)
	}
	if err := s.db.BeginAssetUpload(ctx, asset, u); err != nil {
		return Upload{}, errors.Join(err, s.shelf.cancel(ctx, u.UUID))
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
	names, err := partNames(u, sent)
	if err != nil {
		return err
	}
	undo, err := s.shelf.commit(ctx, uuid, file.ID, names)
	if part, ok := errors.AsType[missingPart](err); ok {
		return noPart(int64(part) + 1)
	}
	if errors.Is(err, os.ErrNotExist) {
		return ended(model.ErrNotFound) // somebody else commits it
	}
	if err != nil {
		return fmt.Errorf("commit upload: %w", err)
	}
	if err := s.db.FinishAssetUpload(ctx, by, asset, uuid, file); err != nil {
		return errors.Join(ended(err), undo())
	}
	return nil
}

var sumRule = regexp.MustCompile(`^[0-9a-f]{64}$`)

// partNames are the names of all parts of an upload, as a client says that it sent them.
func partNames(u model.AssetUpload, sent []Sent) ([]string, error) {
	etags := map[int64]string{}
	for _, p := range sent {
		etags[p.N] = strings.Trim(p.ETag, `"`)
	}
	var names []string
	for n := int64(1); n <= u.Parts(); n++ {
		if !sumRule.MatchString(etags[n]) {
			return nil, noPart(n)
		}
		names = append(names, partName(n, etags[n]))
	}
	return names, nil
}

func noPart(n int64) error {
	return refuse(http.StatusBadRequest, "Part %d is missing, or has another ETag: send it again.", n)
}

// Cancel ends an upload of the asset selected, which stays as it is.
func (s *Store) Cancel(ctx context.Context, asset model.Selection, uuid string) error {
	if _, err := s.upload(ctx, uuid); err != nil {
		return err
	}
	if err := s.db.CancelAssetUpload(ctx, asset, uuid); err != nil {
		return ended(err)
	}
	return s.shelf.cancel(ctx, uuid)
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
	err = s.shelf.put(r.Context(), u.UUID, partName(n, got.sum), got)
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
