package engine

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"deckhand/state"
)

const (
	mostManifest = 4 << 20 // bytes; what registries accept
	mostKnown    = 256     // images whose size is remembered
)

// registries asks registries how big images are. The engine downloads them; it
// tells a size only while it does.
type registries struct {
	client *http.Client
	auth   func(registry string) (user, password string, ok bool)

	mu    sync.Mutex
	doors map[string]door   // by host
	known map[string]remote // by reference with a digest: that never changes
}

// door is how a registry lets us in.
type door struct {
	scheme         string // http or https
	realm, service string // where it gives tokens; empty: nowhere
	basic          bool   // it takes user and password as they are
}

// remote is an image in a registry.
type remote struct {
	layers []int64 // compressed sizes in bytes, lowest layer first
	config string  // digest of its configuration
	repo   string  // with the host
}

func (r remote) size() int64 {
	sum := int64(0)
	for _, n := range r.layers {
		sum += n
	}
	return sum
}

func newRegistryClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		MaxIdleConns: 6, MaxIdleConnsPerHost: 2, IdleConnTimeout: 10 * time.Second,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
	}}
}

// manifest is an index or an image's manifest, in Docker's or OCI's form.
type manifest struct {
	Manifests []struct {
		Digest   string `json:"digest"`
		Platform struct {
			Architecture string `json:"architecture"`
			OS           string `json:"os"`
		} `json:"platform"`
	} `json:"manifests"`
	Config struct {
		Digest string `json:"digest"`
	} `json:"config"`
	Layers []struct {
		Size int64 `json:"size"`
	} `json:"layers"`
}

// image asks for the layers of an image. Plain says that the engine talks to
// this registry without encryption.
func (r *registries) image(ctx context.Context, ref, arch string, plain bool) (remote, error) {
	r.mu.Lock()
	was, ok := r.known[ref]
	r.mu.Unlock()
	if ok {
		return was, nil
	}
	v := visit{r: r, host: state.Registry(ref), plain: plain}
	if v.host == "" {
		return remote{}, errors.New("the name has no registry")
	}
	repo := strings.TrimPrefix(state.Repository(ref), v.host+"/")
	v.repo = repo
	m, err := v.manifest(ctx, cmp.Or(state.Digest(ref), strings.TrimPrefix(ref, v.host+"/"+repo+":")))
	if err != nil {
		return remote{}, err
	}
	if len(m.Manifests) > 0 {
		digest := ""
		for _, x := range m.Manifests {
			if digest == "" && x.Platform.OS == "linux" && x.Platform.Architecture == arch {
				digest = x.Digest
			}
		}
		if digest == "" {
			return remote{}, fmt.Errorf("no image for %s", arch)
		}
		if m, err = v.manifest(ctx, digest); err != nil {
			return remote{}, err
		}
	}
	im := remote{config: m.Config.Digest, repo: v.host + "/" + repo}
	for _, l := range m.Layers {
		im.layers = append(im.layers, min(max(0, l.Size), mostLayer))
	}
	if len(im.layers) == 0 {
		return remote{}, errors.New("the manifest lists no layers")
	}
	if state.Digest(ref) != "" {
		r.remember(ref, im)
	}
	return im, nil
}

func (r *registries) remember(ref string, im remote) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= mostKnown {
		r.known = map[string]remote{}
	}
	r.known[ref] = im
}

// contents asks for the digests of the uncompressed layers, lowest first.
func (r *registries) contents(ctx context.Context, im remote, plain bool) ([]string, error) {
	host := state.Registry(im.repo)
	v := visit{r: r, host: host, repo: strings.TrimPrefix(im.repo, host+"/"), plain: plain}
	b, err := v.get(ctx, "blobs/"+im.config, "*/*")
	if err != nil {
		return nil, err
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(b, &config); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", im.repo, err)
	}
	return config.RootFS.DiffIDs, nil
}

// visit is a few questions about one repository.
type visit struct {
	r     *registries
	host  string
	repo  string
	plain bool
	pass  string // header Authorization, once we have one
}

func (v *visit) manifest(ctx context.Context, name string) (manifest, error) {
	var m manifest
	b, err := v.get(ctx, "manifests/"+name, strings.Join([]string{
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json"}, ", "))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return m, fmt.Errorf("manifest of %s/%s: %w", v.host, v.repo, err)
	}
	return m, nil
}

// get asks with what is known of the registry's door, and once more with what
// the registry answered to that.
func (v *visit) get(ctx context.Context, path, accept string) ([]byte, error) {
	v.r.mu.Lock()
	d, known := v.r.doors[v.host]
	v.r.mu.Unlock()
	if !known {
		d.scheme = "https"
		if v.plain {
			d.scheme = "http"
		}
	}
	if err := v.enter(ctx, d); err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		r, err := v.ask(ctx, d.scheme+"://"+v.host+"/v2/"+v.repo+"/"+path, accept, v.pass)
		if err != nil {
			return nil, err
		}
		if r.code == http.StatusUnauthorized && attempt == 0 {
			d.realm, d.service, d.basic = challenge(r.challenge)
			if err := v.enter(ctx, d); err != nil {
				return nil, err
			}
			continue
		}
		if r.code != http.StatusOK {
			return nil, fmt.Errorf("the registry answered %s", r.status)
		}
		v.r.mu.Lock()
		if v.r.doors == nil {
			v.r.doors = map[string]door{}
		}
		v.r.doors[v.host] = d
		v.r.mu.Unlock()
		return r.body, nil
	}
}

// enter gets what the door asks for.
func (v *visit) enter(ctx context.Context, d door) error {
	if !d.basic && d.realm == "" {
		return nil
	}
	basic := ""
	if user, password, ok := v.r.auth(v.host); ok {
		basic = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	if d.basic {
		v.pass = basic
		return nil
	}
	u, err := url.Parse(d.realm)
	if err != nil || u.Scheme != "https" && u.Scheme != d.scheme {
		return errors.New("the registry names no place for tokens that can be trusted")
	}
	q := u.Query()
	if d.service != "" {
		q.Set("service", d.service)
	}
	q.Set("scope", "repository:"+v.repo+":pull")
	u.RawQuery = q.Encode()
	r, err := v.ask(ctx, u.String(), "application/json", basic)
	if err != nil {
		return err
	}
	var token struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if r.code != http.StatusOK || json.Unmarshal(r.body, &token) != nil {
		return fmt.Errorf("the registry gave no token: %s", r.status)
	}
	v.pass = "Bearer " + cmp.Or(token.Token, token.AccessToken)
	return nil
}

// reply is what a registry answered.
type reply struct {
	code      int
	status    string
	challenge []string // headers WWW-Authenticate
	body      []byte
}

// ask makes one request. Its errors name no address: a token's may be secret.
func (v *visit) ask(ctx context.Context, address, accept, pass string) (reply, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return reply{}, errors.New("the registry's address is not valid")
	}
	q.Header.Set("Accept", accept)
	if pass != "" {
		q.Header.Set("Authorization", pass)
	}
	answer, err := v.r.client.Do(q)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return reply{}, fmt.Errorf("ask registry %s: %w", v.host, err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, mostManifest+1))
	if err == nil && len(b) > mostManifest {
		err = errors.New("the answer is too long")
	}
	if err != nil {
		return reply{}, fmt.Errorf("ask registry %s: %w", v.host, err)
	}
	return reply{code: answer.StatusCode, status: answer.Status, challenge: answer.Header.Values("WWW-Authenticate"), body: b}, nil
}

var parameter = regexp.MustCompile(`(?i)([a-z]+)="([^"]*)"`)

// challenge reads what a registry wants to see.
func challenge(headers []string) (realm, service string, basic bool) {
	for _, h := range headers {
		kind, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
		switch strings.ToLower(kind) {
		case "basic":
			basic = true
		case "bearer":
			for _, m := range parameter.FindAllStringSubmatch(rest, -1) {
				switch strings.ToLower(m[1]) {
				case "realm":
					realm = m[2]
				case "service":
					service = m[2]
				}
			}
			return realm, service, false
		}
	}
	return realm, service, basic
}
