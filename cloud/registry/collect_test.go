package registry_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rs/zerolog"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/cloud/registry"
	"deckhand/test/s3"
)

func TestMain(m *testing.M) {
	if os.Getenv("DECKHAND_TEST_COLLECT") != "" {
		collectForTest()
		return
	}
	cloudtest.Main(s3.Tests{M: m})
}

// place is a cloud with a registry.
type place struct {
	*cloudtest.World
	stored
	host string
	key  string
}

func newPlace(t *testing.T, quota int64) *place {
	t.Helper()
	p := &place{World: cloudtest.New(t, nil), stored: newStored(t)}
	p.serve(quota)
	p.key = p.Key(p.Admin.Actor, model.RoleUser)
	return p
}

// serve adds the registry, as the cloud does.
func (p *place) serve(quota int64) {
	p.T.Helper()
	p.host = p.server(quota)
}

// server is one more, and its host.
func (p *place) server(quota int64) (host string) {
	p.T.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	p.T.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	reg, err := registry.New(registry.Config{
		Storage: p.Storage, Secret: "shared", Realm: server.URL + "/auth/v1/token", Service: p.Auth.RegistryService(), Issuer: p.Auth.RegistryIssuer(),
		JWKS: p.Auth.RegistryJWKS(), Quota: registry.Quota{Bytes: quota, Owners: p.DB}, Log: zerolog.Nop(),
	})
	if err != nil {
		p.T.Fatal(err)
	}
	p.T.Cleanup(func() { _ = reg.Close() })
	mux.Handle("/v2/", reg)
	p.Auth.Routes(mux)
	return host
}

func (p *place) collector(grace time.Duration) *registry.Collector {
	return registry.NewCollector(registry.CollectorConfig{Storage: p.Storage, Records: p.DB, Grace: grace, Log: zerolog.Nop()})
}

func (p *place) collect(grace time.Duration) registry.Collection {
	p.T.Helper()
	done, err := p.collector(grace).Collect(p.T.Context())
	if err != nil {
		p.T.Fatal(err)
	}
	return done
}

func (p *place) auth() remote.Option {
	return remote.WithAuth(&authn.Basic{Username: "admin", Password: p.key})
}

// ref is a tag or digest ("@…") in the repository of an image.
func (p *place) ref(i model.Image, what string) name.Reference {
	p.T.Helper()
	ref, err := name.ParseReference(p.host+"/"+model.Repository(i.Location)+what, name.Insecure)
	if err != nil {
		p.T.Fatal(err)
	}
	return ref
}

func (p *place) push(i model.Image, img v1.Image) error {
	return remote.Write(p.ref(i, ":latest"), img, p.auth(), remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
}

// pull downloads all of an image and checks it.
func (p *place) pull(i model.Image, digest v1.Hash) error {
	img, err := remote.Image(p.ref(i, "@"+digest.String()), p.auth())
	if err != nil {
		return err
	}
	return validate.Image(img)
}

// released is a pushed image of a release.
type released struct {
	release model.Release
	image   model.Image
	digest  v1.Hash
}

var commits int

// release makes a release of one image and pushes it.
func (p *place) release(fleet model.Fleet, img v1.Image) released {
	p.T.Helper()
	r := p.building(fleet)
	if err := p.push(r.image, img); err != nil {
		p.T.Fatal(err)
	}
	p.finish(&r, img)
	return r
}

func (p *place) building(fleet model.Fleet) released {
	p.T.Helper()
	commits++
	r := p.Building(fleet, fmt.Sprintf("%040x", commits), `{"services":{"main":{"image":"x"}}}`)
	images, err := p.DB.Images(p.T.Context(), r.ID)
	if err != nil {
		p.T.Fatal(err)
	}
	return released{release: r, image: images[0]}
}

func (p *place) finish(r *released, img v1.Image) {
	p.T.Helper()
	digest, err := img.Digest()
	if err != nil {
		p.T.Fatal(err)
	}
	p.finishAs(r, digest)
}

func (p *place) finishAs(r *released, digest v1.Hash) {
	p.T.Helper()
	r.digest = digest
	ctx := p.T.Context()
	if err := p.DB.FinishImage(ctx, r.image.ID, model.ImageResult{Status: model.StatusSuccess, ContentHash: r.digest.String(), PushedAt: time.Now()}); err != nil {
		p.T.Fatal(err)
	}
	if _, err := p.DB.FinishRelease(ctx, r.release.ID, model.StatusSuccess, ""); err != nil {
		p.T.Fatal(err)
	}
}

func (p *place) remove(resource string, id int64) {
	p.T.Helper()
	by := access.Caller{Role: access.User, ID: p.Admin.ID, Actor: p.Admin.Actor, Name: "admin"}
	n, err := p.DB.Delete(p.T.Context(), by, resource, model.Selection{SQL: "t.id = ?", Args: []any{id}})
	if err != nil || n != 1 {
		p.T.Fatalf("delete %s %d: %d, %v", resource, id, n, err)
	}
}

// image has the given layers and one of its own.
func image(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	own, err := random.Layer(512, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, append(slices.Clip(layers), own)...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func layer(t testing.TB, size int64) v1.Layer {
	t.Helper()
	l, err := random.Layer(size, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func missing(err error) bool {
	e, ok := errors.AsType[*transport.Error](err)
	return ok && e.StatusCode == http.StatusNotFound
}

func TestAnImageStaysWhileAReleaseHasIt(t *testing.T) {
	p := newPlace(t, 0)
	fleet := p.Fleet(p.Admin, "kitchen")
	shared := layer(t, 4096)
	first := p.release(fleet, image(t, shared))
	second := p.release(fleet, image(t, shared))
	p.age()
	if done := p.collect(0); !done.Empty() {
		t.Fatalf("everything is needed, and removed was %+v", done)
	}
	p.remove("release", first.release.ID)
	p.age()
	if done := p.collect(time.Hour * 24 * 365); !done.Empty() {
		t.Fatalf("within the grace period removed was %+v", done)
	}
	would, err := p.collector(0).Look(t.Context())
	if err != nil || would.Repositories != 1 || would.Blobs != 3 {
		t.Fatalf("would remove %+v, %v", would, err)
	}
	if err := p.pull(first.image, first.digest); err != nil {
		t.Errorf("until it is cleared up: %v", err)
	}
	p.age()
	done := p.collect(0)
	would.KeptBlobs, would.KeptBytes = done.KeptBlobs, done.KeptBytes
	if done.Repositories != 1 || done.Blobs != 3 || done.Bytes < 512 { // manifest, config, its own layer
		t.Errorf("removed %+v, and said before %+v", done, would)
	}
	if err := p.pull(second.image, second.digest); err != nil {
		t.Errorf("the other release: %v", err)
	}
	if err := p.complete(model.Repository(first.image.Location), first.digest.String()); err == nil {
		t.Error("the image of the deleted release is still there")
	}
	if err := p.complete(model.Repository(second.image.Location), second.digest.String()); err != nil {
		t.Error(err)
	}

	p.remove("application", fleet.ID)
	p.age()
	if done := p.collect(0); done.KeptBlobs != 0 {
		t.Errorf("after the fleet was deleted there is %+v", done)
	}
}

func TestWhatWasReplacedInARepositoryGoes(t *testing.T) {
	p := newPlace(t, 0)
	fleet := p.Fleet(p.Admin, "kitchen")
	r := p.building(fleet)
	replaced, final := image(t, layer(t, 1024)), image(t, layer(t, 1024))
	for _, img := range []v1.Image{replaced, final} {
		if err := p.push(r.image, img); err != nil {
			t.Fatal(err)
		}
	}
	p.finish(&r, final)
	// A build cache of the image stays as long as the image.
	cache := r.image
	cache.Location += "-0"
	stages := image(t)
	if err := p.push(cache, stages); err != nil {
		t.Fatal(err)
	}
	upload, err := http.NewRequest("POST", "http://"+p.host+"/v2/"+model.Repository(r.image.Location)+"/blobs/uploads/", nil)
	if err != nil {
		t.Fatal(err)
	}
	ref := p.ref(r.image, ":latest")
	rt, err := transport.NewWithContext(t.Context(), ref.Context().Registry, &authn.Basic{Username: "admin", Password: p.key}, http.DefaultTransport, []string{ref.Scope(transport.PushScope)})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: rt}).Do(upload)
	if err != nil || answer.StatusCode != http.StatusAccepted {
		t.Fatalf("%v %v", answer, err)
	}
	answer.Body.Close()
	if done := p.collect(time.Hour); !done.Empty() {
		t.Errorf("a running push lost %+v", done)
	}
	p.age()
	done := p.collect(time.Hour)
	if done.Manifests != 1 || done.Uploads != 1 || done.Repositories != 0 || done.Blobs != 4 {
		t.Errorf("removed %+v; want one manifest with two layers and a config, and an upload", done)
	}
	if err := p.pull(r.image, r.digest); err != nil {
		t.Error(err)
	}
	digest, err := stages.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.pull(cache, digest); err != nil {
		t.Errorf("build cache: %v", err)
	}
}

func TestAManifestWithoutItsLayersCountsAsMissing(t *testing.T) {
	p := newPlace(t, 0)
	img := image(t, layer(t, 1024))
	r := p.release(p.Fleet(p.Admin, "kitchen"), img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(p.data(digest))); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(p.ref(r.image, ":latest"), p.auth()); !missing(err) {
		t.Errorf("asking for the manifest: %v, want 404", err)
	}
	if err := p.complete(model.Repository(r.image.Location), r.digest.String()); err == nil || !strings.Contains(err.Error(), digest.Hex) {
		t.Errorf("complete: %v", err)
	}
	// Pushing again makes it whole.
	if err := p.push(r.image, img); err != nil {
		t.Fatal(err)
	}
	if err := p.pull(r.image, r.digest); err != nil {
		t.Error(err)
	}
}

func TestAnUnreadableManifestKeepsAllOfItsRepository(t *testing.T) {
	p := newPlace(t, 0)
	r := p.release(p.Fleet(p.Admin, "kitchen"), image(t))
	data := p.data(r.digest)
	whole, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.age()
	if done := p.collect(0); done.Blobs != 0 || len(done.Unreadable) != 1 {
		t.Errorf("removed %+v", done)
	}
	if err := os.WriteFile(data, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.pull(r.image, r.digest); err != nil {
		t.Error(err)
	}
}

func TestImagesOfAnotherCloudAreNotTouched(t *testing.T) {
	p := newPlace(t, 0)
	p.release(p.Fleet(p.Admin, "kitchen"), image(t))
	p.collect(0)
	other := cloudtest.New(t, nil)
	c := registry.NewCollector(registry.CollectorConfig{Storage: p.Storage, Records: other.DB, Log: zerolog.Nop()})
	p.age()
	if _, err := c.Collect(t.Context()); err == nil || !strings.Contains(err.Error(), "belong to another cloud") {
		t.Errorf("got %v", err)
	}
}

func TestPushesWhileClearingUp(t *testing.T) { pushWhileCollecting(t, 15) }

// Releases come and go and share layers, while the registry is cleared up all the
// time. The grace period is so short that a push may be told that a layer is missing;
// it then pushes again. What was acknowledged stays.
func pushWhileCollecting(t *testing.T, pushes int) {
	const grace = 100 * time.Millisecond
	p := newPlace(t, 0)
	fleet := p.Fleet(p.Admin, "kitchen")
	var pool []v1.Layer
	for range 6 {
		pool = append(pool, layer(t, 2048))
	}
	stop := p.collectAllTheTime(grace)
	chance := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same story each time
	var kept []released
	again := 0
	for range pushes {
		r := p.building(fleet)
		img := image(t, pool[chance.IntN(len(pool))], pool[chance.IntN(len(pool))])
		for err := p.push(r.image, img); err != nil; err = p.push(r.image, img) {
			if again++; again > 20*pushes {
				t.Fatal(err)
			}
		}
		p.finish(&r, img)
		if err := p.pull(r.image, r.digest); err != nil {
			t.Fatalf("just pushed: %v", err)
		}
		kept = append(kept, r)
		if len(kept) > 2 {
			p.remove("release", kept[0].release.ID)
			kept = kept[1:]
		}
	}
	collected, rounds := stop()
	for _, r := range kept {
		if err := p.pull(r.image, r.digest); err != nil {
			t.Errorf("after all: %v", err)
		}
	}
	t.Logf("%d pushes, %d of them again; cleared up %d times: %d images and %d blobs removed", pushes, again, rounds, collected.Repositories, collected.Blobs)
	if collected.Blobs == 0 || collected.Repositories == 0 {
		t.Error("nothing was removed meanwhile")
	}
}

// collectAllTheTime clears up until the function it returns is called, which says
// what was removed and in how many times.
func (p *place) collectAllTheTime(grace time.Duration) func() (registry.Collection, int) {
	ctx, cancel := context.WithCancel(context.Background())
	p.T.Cleanup(cancel)
	var all registry.Collection
	var rounds int
	var collecting sync.WaitGroup
	collecting.Go(func() {
		c := p.collector(grace)
		for ctx.Err() == nil {
			done, err := c.Collect(ctx)
			if err != nil && ctx.Err() == nil {
				p.T.Error(err)
				return
			}
			rounds++
			all.Blobs += done.Blobs
			all.Repositories += done.Repositories
		}
	})
	return func() (registry.Collection, int) {
		cancel()
		collecting.Wait()
		return all, rounds
	}
}

// collectForTest is the program of TestKilledWhileClearingUp.
func collectForTest() {
	ctx := context.Background()
	offset, _ := strconv.Atoi(os.Getenv("DECKHAND_TEST_OFFSET"))
	db, err := model.OpenBeside(ctx, model.Config{Path: os.Getenv("DECKHAND_TEST_COLLECT"), Database: os.Getenv("DECKHAND_TEST_URL"),
		Now: func() time.Time { return time.Now().Add(time.Duration(offset) * time.Minute) }})
	if err == nil {
		fmt.Println("begin")
		c := registry.NewCollector(registry.CollectorConfig{Storage: storageOf(os.Getenv("DECKHAND_TEST_DIR"), os.Getenv("DECKHAND_TEST_BUCKET")), Records: db, Log: zerolog.Nop()})
		_, err = c.Collect(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A program beside the cloud clears up and is killed, again and again.
func TestKilledWhileClearingUp(t *testing.T) {
	p := newPlace(t, 0)
	fleet := p.Fleet(p.Admin, "kitchen")
	shared := layer(t, 1024)
	var old []released
	for range 40 {
		old = append(old, p.release(fleet, image(t, shared, layer(t, 64))))
	}
	kept := p.release(fleet, image(t, shared))
	for _, r := range old {
		p.remove("release", r.release.ID)
	}
	p.age()
	killed, tries, begun := 0, 0, 0
	for ; killed < 5 && tries < 60; tries++ {
		if p.collectInProcess((tries+1)*3, time.Duration(tries)*p.killStep()) {
			killed++
		}
		begun += len(p.left())
		if err := p.pull(kept.image, kept.digest); err != nil {
			t.Fatalf("after %d kills: %v", killed, err)
		}
	}
	if killed < 3 {
		t.Errorf("only %d of %d were killed in the middle", killed, tries)
	}
	if p.collectInProcess(300, time.Minute) {
		t.Error("the last one did not end")
	}
	for _, r := range old {
		p.gone(r)
	}
	if err := p.pull(kept.image, kept.digest); err != nil {
		t.Error(err)
	}
	if left := p.left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	t.Logf("killed %d times in %d tries, %d removals had begun", killed, tries, begun)
}

// gone checks that nothing of a deleted image is left.
func (p *place) gone(r released) {
	if err := p.complete(model.Repository(r.image.Location), r.digest.String()); err == nil {
		p.T.Errorf("%s is still there", r.image.Location)
	}
}

// collectInProcess clears up in a process that is killed a while after it began; it
// says whether that was before its end.
func (p *place) collectInProcess(offset int, after time.Duration) (killed bool) {
	p.T.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DECKHAND_TEST_COLLECT="+cmp.Or(p.Config.Path, "-"), "DECKHAND_TEST_URL="+p.Config.Database, "DECKHAND_TEST_DIR="+p.Dir, "DECKHAND_TEST_BUCKET="+p.address, "DECKHAND_TEST_OFFSET="+strconv.Itoa(offset))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.T.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.T.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		p.T.Fatalf("begin: %v", err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	timer.Stop()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == -1 {
		return true
	}
	if err != nil {
		p.T.Fatal(err)
	}
	return false
}

func TestQuotaOfAnOrganization(t *testing.T) {
	p := newPlace(t, 300_000)
	fleet := p.Fleet(p.Admin, "kitchen")
	shared := layer(t, 200_000)
	p.release(fleet, image(t, shared))
	p.release(fleet, image(t, shared)) // counts once
	r := p.building(fleet)
	err := p.push(r.image, image(t, layer(t, 200_000)))
	if err == nil || !strings.Contains(err.Error(), "DENIED") || !strings.Contains(err.Error(), "organization admin") || !strings.Contains(err.Error(), "293.0 KiB") {
		t.Errorf("a push above the quota: %v", err)
	}
	found, err := filepath.Glob(filepath.Join(p.root(), "repositories", model.Repository(r.image.Location), "_uploads/*/data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found { // of smaller layers, which the client gave up
		if info, err := os.Stat(file); err == nil && info.Size() > 100_000 {
			t.Errorf("what was refused takes room: %s", file)
		}
	}
	if err := p.push(r.image, image(t, shared)); err != nil {
		t.Errorf("a push within the quota: %v", err)
	}
	bobs := p.building(p.Fleet(p.Bob, "garden"))
	p.key = p.Key(p.Bob.Actor, model.RoleUser)
	if err := p.push(bobs.image, image(t, layer(t, 200_000))); err != nil {
		t.Errorf("another organization: %v", err)
	}
}

// The place can be shared: an upload that one server began ends on another.
func TestTwoServersOnOnePlace(t *testing.T) {
	p := newPlace(t, 0)
	other := *p
	if p.Bucket != nil {
		other.Dir = t.TempDir() // nothing in it is needed elsewhere
	}
	r := p.building(p.Fleet(p.Admin, "kitchen"))
	img := image(t, layer(t, 1024), layer(t, 1024))
	// Requests go to the two in turns.
	turns := &alternating{hosts: []string{p.host, other.server(0)}}
	if err := remote.Write(p.ref(r.image, ":latest"), img, p.auth(), remote.WithTransport(turns)); err != nil {
		t.Fatal(err)
	}
	p.finish(&r, img)
	if err := p.pull(r.image, r.digest); err != nil {
		t.Error(err)
	}
}

type alternating struct {
	mu    sync.Mutex
	hosts []string
	n     int
}

func (a *alternating) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.Path, "/v2/") {
		return http.DefaultTransport.RoundTrip(r)
	}
	a.mu.Lock()
	a.n++
	host := a.hosts[a.n%len(a.hosts)]
	a.mu.Unlock()
	asked, to := r, *r.URL
	to.Host = host
	r = r.Clone(r.Context())
	r.URL = &to
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		answer.Request = asked // what it answers is resolved against it
	}
	return answer, err
}
