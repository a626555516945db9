package asset

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// Routes adds the addresses of files and of parts. They take no credential: who
// knows one may use it.
func (s *Store) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+model.AssetPath, s.download)
	mux.HandleFunc("PUT "+partPath, s.part)
}

// Serves says whether a request is for a file or a part, which may have any size.
func Serves(r *http.Request) bool {
	return r.URL.Path == model.AssetPath || r.URL.Path == partPath
}

func (s *Store) download(w http.ResponseWriter, r *http.Request) {
	f, err := s.db.AssetFileNamed(r.Context(), r.URL.Query().Get("id"))
	var content *content
	if err == nil {
		content, err = open(s.path(files, f.ID))
	}
	if errors.Is(err, model.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		answer.JSON(w, http.StatusNotFound, "There is no such file any more; ask for the asset again.")
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	defer content.Close()
	h := w.Header()
	h.Set("Content-Type", f.ContentType)
	h.Set("Content-Disposition", f.Disposition())
	// Users choose type and content; the web page has the same origin.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Referrer-Policy", "no-referrer")
	http.ServeContent(w, r, "", time.Time{}, content)
}

// content reads the parts of a file as one.
type content struct {
	parts  []piece
	size   int64
	at     int64
	opened int // the part that file is
	file   *os.File
}

// piece is one part, and where it begins.
type piece struct {
	path        string
	begin, size int64
}

func open(dir string) (*content, error) {
	entries, err := os.ReadDir(dir) // by name, so in order
	if err != nil {
		return nil, err
	}
	c := &content{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		c.parts = append(c.parts, piece{filepath.Join(dir, e.Name()), c.size, info.Size()})
		c.size += info.Size()
	}
	return c, nil
}

// Read reads on, up to the end of a part.
func (c *content) Read(b []byte) (int, error) {
	for i, p := range c.parts {
		if c.at < p.begin || c.at >= p.begin+p.size {
			continue
		}
		if c.file == nil || c.opened != i {
			if err := c.Close(); err != nil {
				return 0, err
			}
			f, err := os.Open(p.path)
			if err != nil {
				return 0, err
			}
			c.file, c.opened = f, i
		}
		n, err := c.file.ReadAt(b[:min(int64(len(b)), p.begin+p.size-c.at)], c.at-p.begin)
		c.at += int64(n)
		return n, err
	}
	return 0, io.EOF
}

// Seek is that of io.Seeker.
func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.at
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	c.at = offset
	return offset, nil
}

// Close is that of io.Closer.
func (c *content) Close() error {
	if c.file == nil {
		return nil
	}
	f := c.file
	c.file = nil
	return f.Close()
}
