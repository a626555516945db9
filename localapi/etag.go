package localapi

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// send writes an answer that is known whole. It carries a weak ETag, so that a
// client that asks again and again gets the content only when it is another one;
// see recorder.
func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("ETag", etagOf(body))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// etagOf is the weak ETag of a body.
func etagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return fmt.Sprintf(`W/"%x-%s"`, len(body), base64.RawURLEncoding.EncodeToString(sum[:16]))
}

// isFresh reports whether the client of a request has what would be answered: a
// success with that ETag.
func isFresh(r *http.Request, status int, etag string) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || status/100 != 2 || etag == "" {
		return false
	}
	if strings.Contains(strings.ToLower(r.Header.Get("Cache-Control")), "no-cache") {
		return false
	}
	for known := range strings.SplitSeq(strings.Join(r.Header.Values("If-None-Match"), ","), ",") {
		if known = strings.TrimSpace(known); known == "*" || strings.TrimPrefix(known, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}
