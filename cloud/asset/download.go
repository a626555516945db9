package asset

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
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
		content, err = s.shelf.open(r.Context(), f.ID)
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
	from  func(path string, offset int64) (io.ReadCloser, error)
	parts []piece
	size  int64
	at    int64
	open  io.ReadCloser // goes on at "at"; nil: to be opened
}

// piece is one part, and where it begins.
type piece struct {
	path        string
	begin, size int64
}

func (c *content) add(path string, size int64) {
	c.parts = append(c.parts, piece{path, c.size, size})
	c.size += size
}

// Read reads on, up to the end of a part.
func (c *content) Read(b []byte) (int, error) {
	for _, p := range c.parts {
		if c.at < p.begin || c.at >= p.begin+p.size {
			continue
		}
		if c.open == nil {
			r, err := c.from(p.path, c.at-p.begin)
			if err != nil {
				return 0, err
			}
			c.open = r
		}
		left := p.begin + p.size - c.at
		n, err := c.open.Read(b[:min(int64(len(b)), left)])
		c.at += int64(n)
		if int64(n) == left { // the next one goes on
			return n, c.Close()
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
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
	if offset == c.at {
		return offset, nil
	}
	c.at = offset
	return offset, c.Close()
}

// Close is that of io.Closer. Who reads on opens again.
func (c *content) Close() error {
	if c.open == nil {
		return nil
	}
	r := c.open
	c.open = nil
	return r.Close()
}
