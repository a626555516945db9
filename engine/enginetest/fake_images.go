package enginetest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"deckhand/state"
)

// img is an image. It never changes; its names are in machine.refs.
type img struct {
	id     string
	size   int64
	labels map[string]string
}

func (*img) command() []string { return []string{"/bin/sh", "-c", "idle"} }

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(s[:])
}

// ImageID is the engine's ID of the image whose manifest has the digest.
func ImageID(digest string) string { return sum("config of " + digest) }

// DigestOf is the digest of the manifest behind a reference that Config.Pull
// says nothing about.
func DigestOf(ref string) string {
	return cmp.Or(state.Digest(ref), sum("manifest of "+state.Reference(ref)))
}

// Load puts an image onto the engine under the references, as if it had been
// pulled or built there.
func (f *Fake) Load(id string, size int64, refs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m.images[id] = &img{id: id, size: size}
	for _, r := range refs {
		f.m.refs[state.Reference(r)] = id
	}
	f.changed("image", "load", id, map[string]string{"name": id})
}

// image finds one by reference, ID or the beginning of an ID.
func (m *machine) image(ref string) (*img, error) {
	if im := m.images[ref]; im != nil {
		return im, nil
	}
	if im := m.images[m.refs[state.Reference(ref)]]; im != nil {
		return im, nil
	}
	hexa := strings.TrimPrefix(ref, "sha256:")
	for id, im := range m.images {
		if len(hexa) >= 12 && strings.HasPrefix(strings.TrimPrefix(id, "sha256:"), hexa) {
			return im, nil
		}
	}
	return nil, notFound("No such image: %s", ref)
}

// names are the references of an image, sorted; digests tells which kind.
func (m *machine) names(id string, digests bool) []string {
	out := []string{}
	for _, ref := range slices.Sorted(maps.Keys(m.refs)) {
		if m.refs[ref] == id && (state.Digest(ref) != "") == digests {
			out = append(out, ref)
		}
	}
	return out
}

func (f *Fake) listImages(q request) (reply, error) {
	match, err := q.filters("before", "dangling", "label", "reference", "since")
	if err != nil {
		return reply{}, err
	}
	out := []image.Summary{}
	for _, id := range slices.Sorted(maps.Keys(f.m.images)) {
		im, tags, digests := f.m.images[id], f.m.names(id, false), f.m.names(id, true)
		dangling, err := match.GetBoolOrDefault("dangling", len(tags) == 0)
		if err != nil {
			return reply{}, invalid("%s", err)
		}
		if dangling != (len(tags) == 0) || match.Contains("label") && !match.MatchKVList("label", im.labels) {
			continue
		}
		s := image.Summary{ID: id, RepoTags: tags, RepoDigests: digests, Size: im.size, SharedSize: -1, Containers: -1, Labels: im.labels}
		s.VirtualSize = im.size //nolint:staticcheck // a field of this API version
		switch {
		case len(tags) == 0 && len(digests) == 0:
			s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		case len(digests) == 0:
			s.RepoDigests = nil
		case len(tags) == 0:
			s.RepoTags = nil
		}
		out = append(out, s)
	}
	return answer(out)
}

func (f *Fake) inspectImage(q request) (reply, error) {
	im, err := f.m.image(q.Object)
	if err != nil {
		return reply{}, err
	}
	config := dockerspec.DockerOCIImageConfig{}
	config.Cmd, config.Env, config.Labels = im.command(), []string{"PATH=/bin"}, im.labels
	return answer(image.InspectResponse{
		ID: im.id, RepoTags: f.m.names(im.id, false), RepoDigests: f.m.names(im.id, true), Size: im.size,
		Os: "linux", Architecture: "amd64", Config: &config,
	})
}

func pulled(q request) string {
	repo, tag := q.Query.Get("fromImage"), q.Query.Get("tag")
	switch {
	case tag == "":
		return state.Reference(repo)
	case strings.Contains(tag, ":"):
		return state.Reference(repo + "@" + tag)
	}
	return state.Reference(repo + ":" + tag)
}

// pull downloads an image. What goes wrong before the first line has a status;
// what goes wrong later is a line of its own, under status 200.
func (f *Fake) pull(q request) (reply, error) {
	if err := f.cfg.Before(q.ctx, q.Call); err != nil {
		return reply{}, err
	}
	ref := q.Object
	p := f.cfg.Pull(ref)
	p.Digest, p.Size = cmp.Or(p.Digest, DigestOf(ref)), cmp.Or(p.Size, 1000)
	if p.Missing {
		if state.Digest(ref) != "" {
			return reply{}, notFound("manifest for %s not found: manifest unknown: manifest unknown", ref)
		}
		return reply{}, notFound("manifest for %s not found: manifest unknown: manifest tagged by %q is not found", ref, q.Query.Get("tag"))
	}
	return reply{status: http.StatusOK, stream: func(ctx context.Context, line func(any) bool) error {
		if !f.download(ctx, q, p, line) {
			return nil
		}
		f.store(ref, p)
		if err := f.cfg.After(q.ctx, q.Call); err != nil {
			return err
		}
		line(map[string]any{"status": "Digest: " + p.Digest})
		line(map[string]any{"status": "Status: Downloaded newer image for " + ref})
		return nil
	}}, nil
}

// download is the part of a pull that has no effect; it is false if it failed.
// Nobody who has left gets an image.
func (f *Fake) download(ctx context.Context, q request, p Pull, line func(any) bool) bool {
	layer := strings.TrimPrefix(p.Digest, "sha256:")[:12]
	detail := func(status string, current int64) bool {
		return line(map[string]any{"status": status, "id": layer, "progressDetail": map[string]int64{"current": current, "total": p.Size}})
	}
	takes := f.cfg.Delay(q.Call) + p.Takes
	if !line(map[string]any{"status": "Pulling from " + state.Repository(q.Object), "id": q.Query.Get("tag")}) || !detail("Downloading", p.Size/2) || !pause(ctx, takes/2) {
		return false
	}
	if p.Fails != "" {
		line(map[string]any{"errorDetail": map[string]string{"message": p.Fails}, "error": p.Fails})
		return false
	}
	return pause(ctx, takes-takes/2) && detail("Downloading", p.Size) && detail("Download complete", p.Size) && detail("Pull complete", p.Size)
}

func (f *Fake) store(ref string, p Pull) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := ImageID(p.Digest)
	f.m.images[id] = &img{id: id, size: p.Size, labels: p.Labels}
	f.m.refs[state.Repository(ref)+"@"+p.Digest] = id
	f.m.refs[ref] = id
	f.changed("image", "pull", ref, map[string]string{"name": state.Repository(ref)})
}

func (f *Fake) tagImage(q request) (reply, error) {
	im, err := f.m.image(q.Object)
	if err != nil {
		return reply{}, err
	}
	repo, tag := q.Query.Get("repo"), cmp.Or(q.Query.Get("tag"), "latest")
	if repo == "" || strings.Contains(repo, "@") {
		return reply{}, invalid("invalid reference format")
	}
	f.m.refs[state.Reference(repo+":"+tag)] = im.id
	f.changed("image", "tag", im.id, map[string]string{"name": repo + ":" + tag})
	return reply{status: http.StatusCreated}, nil
}

// single reports whether an image has at most one tag, and all its names are of
// one repository.
func single(refs []string) bool {
	tags, repos := 0, map[string]bool{}
	for _, r := range refs {
		repos[state.Repository(r)] = true
		if state.Digest(r) == "" {
			tags++
		}
	}
	return len(refs) <= 1 || tags <= 1 && len(repos) == 1
}

// removeImage takes names away, and the image with the last of them.
func (f *Fake) removeImage(q request) (reply, error) {
	im, err := f.m.image(q.Object)
	if err != nil {
		return reply{}, err
	}
	refs := slices.Concat(f.m.names(im.id, false), f.m.names(im.id, true))
	ref, force := state.Reference(q.Object), q.yes("force")
	var out []image.DeleteResponse
	untag := func(r string) {
		delete(f.m.refs, r)
		out = append(out, image.DeleteResponse{Untagged: r})
		f.changed("image", "untag", im.id, map[string]string{"name": im.id})
	}
	byName := f.m.refs[ref] != ""
	if byName {
		if c := f.userOf(im); c != nil && !force && single(refs) {
			return reply{}, conflict("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s", q.Object, c.short(), im.id[7:19])
		}
		untag(ref)
		f.dropDigests(im, ref, untag)
		if refs = slices.Concat(f.m.names(im.id, false), f.m.names(im.id, true)); len(refs) > 0 {
			return answer(out)
		}
	}
	if c := f.userOf(im); c != nil {
		switch {
		case byName && force:
			return answer(out)
		case c.running:
			return reply{}, conflict("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", im.id[7:19], c.short())
		case !force:
			return reply{}, conflict("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", im.id[7:19], c.short())
		}
	}
	if !single(refs) && !force {
		return reply{}, conflict("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", im.id[7:19])
	}
	for _, r := range refs {
		untag(r)
	}
	delete(f.m.images, im.id)
	f.changed("image", "delete", im.id, map[string]string{"name": im.id})
	return answer(append(out, image.DeleteResponse{Deleted: im.id}))
}

// userOf is a container of the image, a running one if there is any.
func (f *Fake) userOf(im *img) *box {
	var found *box
	for _, c := range f.m.sorted() {
		if c.image == im.id && (found == nil || c.running) {
			found = c
		}
	}
	return found
}

// dropDigests removes the digests of a repository with its last tag.
func (f *Fake) dropDigests(im *img, gone string, untag func(string)) {
	if state.Digest(gone) != "" {
		return
	}
	repo := func(r string) bool { return state.Repository(r) == state.Repository(gone) }
	if slices.ContainsFunc(f.m.names(im.id, false), repo) {
		return
	}
	for _, r := range f.m.names(im.id, true) {
		if repo(r) {
			untag(r)
		}
	}
}

func (f *Fake) distribution(q request) (reply, error) {
	ref := state.Reference(q.Object)
	p := f.cfg.Pull(ref)
	if p.Missing {
		return reply{}, notFound("manifest unknown: manifest unknown")
	}
	return answer(registry.DistributionInspect{
		Descriptor: ocispec.Descriptor{
			MediaType: "application/vnd.docker.distribution.manifest.v2+json", Digest: digest.Digest(cmp.Or(p.Digest, DigestOf(ref))), Size: 500,
		},
		Platforms: []ocispec.Platform{{Architecture: "amd64", OS: "linux"}},
	})
}
