package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rs/zerolog"
)

// tokens plays the cloud's token endpoint: what a user may do is in rights.
type tokens struct {
	key    *ecdsa.PrivateKey
	rights map[string]string // user → "repository:actions[ as alias]"
}

func newTokens(t *testing.T) *tokens {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &tokens{key: key, rights: map[string]string{}}
}

func (tk *tokens) jwks(t *testing.T) []byte {
	t.Helper()
	raw, err := tk.key.PublicKey.Bytes() // 4 || X || Y
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	return fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"k1","x":%q,"y":%q}]}`,
		enc(raw[1:33]), enc(raw[33:]))
}

func (tk *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, _, _ := r.BasicAuth()
	access := []map[string]any{}
	if repo, actions, ok := strings.Cut(tk.rights[user], ":"); ok {
		actions, alias, _ := strings.Cut(actions, " as ")
		access = append(access, map[string]any{"type": "repository", "name": repo, "actions": strings.Split(actions, ","), "alias": alias})
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "api.test", "aud": "registry.test", "sub": user, "access": access,
		"nbf": time.Now().Add(-time.Second).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(tk.key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"token": signed})
}

// start serves registry and tokens under one host, as the cloud does.
func start(t *testing.T, tk *tokens, dir string) (host string) {
	t.Helper()
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	reg, err := New(Config{
		Storage: Storage{Dir: dir}, Realm: srv.URL + "/auth/v1/token", Service: "registry.test", Issuer: "api.test",
		JWKS: tk.jwks(t), Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reg.Close() })
	mux.Handle("/v2/", reg)
	mux.Handle("/auth/v1/token", tk)
	return strings.TrimPrefix(srv.URL, "http://")
}

func as(user string) remote.Option {
	return remote.WithAuth(&authn.Basic{Username: user, Password: "x"})
}

func TestOnlyTheRightTokenOpensARepository(t *testing.T) {
	tk := newTokens(t)
	tk.rights["builder"] = "v2/aaaa:pull,push"
	tk.rights["device"] = "v2/aaaa:pull"
	tk.rights["stranger"] = "v2/bbbb:pull,push"
	dir := t.TempDir()
	host := start(t, tk, dir)

	resp, err := http.Get("http://" + host + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(resp.Header.Get("WWW-Authenticate"), "registry.test") {
		t.Fatalf("without a token: %s %q, want 401 and where to get one", resp.Status, resp.Header.Get("WWW-Authenticate"))
	}

	ref, err := name.ParseReference(host+"/v2/aaaa:latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(2048, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"device", "stranger"} {
		if err := remote.Write(ref, img, as(user)); err == nil {
			t.Errorf("%s pushed to v2/aaaa, want a refusal", user)
		}
	}
	if err := remote.Write(ref, img, as("builder")); err != nil {
		t.Fatalf("push with the right scope: %v", err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	desc, err := remote.Get(ref, as("device"))
	if err != nil {
		t.Fatalf("pull with the right scope: %v", err)
	}
	if desc.Digest != want {
		t.Errorf("digest after push %s, want %s", desc.Digest, want)
	}
	if _, err := remote.Get(ref, as("stranger")); err == nil {
		t.Error("a token for another repository could read v2/aaaa")
	}

	// The images outlive the process that took them.
	again := start(t, tk, dir)
	byDigest, err := name.ParseReference(again+"/v2/aaaa@"+want.String(), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Image(byDigest, as("device")); err != nil {
		t.Errorf("pull by digest after a restart: %v", err)
	}
}

func TestBadConfigurationIsAnError(t *testing.T) {
	for what, cfg := range map[string]Config{
		"nothing given": {Storage: Storage{Dir: t.TempDir()}},
		"a broken key set": {
			Storage: Storage{Dir: t.TempDir()}, Realm: "http://x", Service: "r", Issuer: "i", JWKS: []byte("{"),
		},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestAnImageByAnotherName(t *testing.T) {
	tk := newTokens(t)
	tk.rights["builder"] = "v2/aaaa:pull,push"
	tk.rights["device"] = "v2/aaaa:pull as home/garden/1.0.0"
	tk.rights["stranger"] = "v2/bbbb:pull as home/garden/1.0.0"
	host := start(t, tk, t.TempDir())
	reference := func(repository string) name.Reference {
		t.Helper()
		ref, err := name.ParseReference(host+"/"+repository, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	img, err := random.Image(2048, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference("v2/aaaa"), img, as("builder")); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(reference("home/garden/1.0.0"), as("device"))
	if err != nil {
		t.Fatalf("pull by the other name: %v", err)
	}
	layers, err := pulled.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatal(layers, err)
	}
	for _, layer := range layers {
		blob, err := layer.Compressed()
		if err != nil {
			t.Fatalf("pull a layer by the other name: %v", err)
		}
		_, err = io.Copy(io.Discard, blob)
		if err := errors.Join(err, blob.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := remote.Get(reference("home/garden"), as("device")); err == nil {
		t.Error("a name that the token does not have was pulled")
	}
	if _, err := remote.Get(reference("home/garden/1.0.0"), as("stranger")); err == nil {
		t.Error("the name of another image led to it")
	}
	other, err := random.Image(1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference("home/garden/1.0.0"), other, as("device")); err == nil {
		t.Error("an image was pushed by a name that is for pulling")
	}

	// Who writes a token has to sign it.
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"access":[{"type":"repository","name":"v2/aaaa","alias":"x/y","actions":["pull"]}]}`))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/x/y/manifests/latest", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer e30."+forged+".AAAA")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a forged token: %s", resp.Status)
	}
}
