package registry

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
)

// unaliased is the request with the real name of the repository, where its token
// says that the name asked for is another one of it. The token is only read here:
// the library checks it, and that it is for the real name.
func unaliased(req *http.Request) *http.Request {
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok || strings.HasPrefix(path, "v2/") {
		return req
	}
	for _, a := range accessOf(req) {
		rest, ok := strings.CutPrefix(path, a.Alias+"/")
		if a.Alias == "" || !ok || !strings.HasPrefix(rest, "manifests/") && !strings.HasPrefix(rest, "blobs/") && rest != "tags/list" {
			continue
		}
		real := req.Clone(req.Context())
		real.URL.Path, real.URL.RawPath = "/v2/"+a.Name+"/"+rest, ""
		return real
	}
	return req
}

type access struct{ Name, Alias string }

// accessOf is what the request's token says that it is for; nothing when there is
// no token or it cannot be read.
func accessOf(req *http.Request) []access {
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	parts := strings.Split(token, ".")
	if !strings.EqualFold(scheme, "Bearer") || len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	var claims struct{ Access []access }
	if json.Unmarshal(payload, &claims) != nil {
		return nil
	}
	return claims.Access
}
