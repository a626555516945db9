package registry

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"regexp"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// manifestPath is the path of a manifest: repository, and tag or digest.
var manifestPath = regexp.MustCompile(`^/v2/(.+)/manifests/[^/]+$`)

// guard answers for a manifest only when all its parts are there, and keeps them
// from being cleared up meanwhile: who is told that a manifest is there, or was
// stored, pushes nothing more.
type guard struct {
	place place
	next  http.Handler
}

func (g guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := manifestPath.FindStringSubmatch(r.URL.Path)
	if parts == nil || r.Method == http.MethodDelete {
		g.next.ServeHTTP(w, r)
		return
	}
	g.next.ServeHTTP(&judged{ResponseWriter: w, judge: func(header http.Header) error {
		// Only who may see the manifest gets here.
		digest, ok := hexOf(header.Get("Docker-Content-Digest"))
		if !ok {
			return nil
		}
		err := g.hold(r.Context(), parts[1], digest)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, fs.ErrNotExist):
			return errcode.ErrorCodeUnavailable.WithMessage("the store of the images does not answer; try again")
		case r.Method == http.MethodPut:
			return errcode.ErrorCodeUnavailable.WithMessage("layers of the image were cleared up while it was pushed; push it again")
		}
		return errcode.ErrorCodeManifestUnknown.WithMessage("parts of the image are missing in the registry; push it again")
	}}, r)
}

// hold notes that all parts of an image are in use; fs.ErrNotExist: one is not there.
func (g guard) hold(ctx context.Context, repository, digest string) error {
	parts, err := partsOf(ctx, g.place, repository, digest, 0)
	if err != nil {
		return err
	}
	return g.place.use(ctx, parts)
}

// judged lets an answer of success through when the judge has nothing against it.
type judged struct {
	http.ResponseWriter
	judge   func(http.Header) error
	decided bool
	refused bool
}

// WriteHeader is where the library says how it ended.
func (j *judged) WriteHeader(status int) {
	if j.refused {
		return // of the answer that is not given
	}
	if j.decided || status < http.StatusOK {
		j.ResponseWriter.WriteHeader(status)
		return
	}
	j.decided = true
	if status >= http.StatusMultipleChoices {
		j.ResponseWriter.WriteHeader(status)
		return
	}
	err := j.judge(j.Header())
	if err == nil {
		j.ResponseWriter.WriteHeader(status)
		return
	}
	j.refused = true
	refuse(j.ResponseWriter, err)
}

func (j *judged) Write(b []byte) (int, error) {
	if !j.decided {
		j.WriteHeader(http.StatusOK)
	}
	if j.refused {
		return len(b), nil // of the answer that is not given
	}
	return j.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (j *judged) Unwrap() http.ResponseWriter { return j.ResponseWriter }

// refuse answers with an error of the protocol.
func refuse(w http.ResponseWriter, err error) {
	for _, of := range []string{"Content-Length", "Content-Type", "Docker-Content-Digest", "Docker-Upload-Uuid", "Etag", "Location", "Range"} {
		w.Header().Del(of)
	}
	_ = errcode.ServeJSON(w, err) // the client is gone
}
