//go:build engine

package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	engineimage "github.com/docker/docker/api/types/image"
	dockerregistry "github.com/docker/docker/api/types/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"deckhand/test/dockerd"
)

func TestTwoHundredPushesWhileClearingUp(t *testing.T) { pushWhileCollecting(t, 200) }

// engine is a real engine that pushes and pulls.
type engine struct {
	*dockerd.Engine
	t    *testing.T
	auth string
}

func newEngine(t *testing.T, p *place) *engine {
	t.Helper()
	auth, err := dockerregistry.EncodeAuthConfig(dockerregistry.AuthConfig{Username: "admin", Password: p.key})
	if err != nil {
		t.Fatal(err)
	}
	return &engine{dockerd.Start(t), t, auth}
}

// ended reads what the engine says until its end.
func ended(out io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer out.Close()
	for lines := json.NewDecoder(out); ; {
		var line struct{ Error string }
		if err := lines.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if line.Error != "" {
			return fmt.Errorf("%s", line.Error)
		}
	}
}

func (e *engine) push(p *place, r released, tag string) error {
	e.t.Helper()
	ctx := context.Background()
	ref := p.ref(r.image, ":latest").String()
	if err := e.Client.ImageTag(ctx, tag, ref); err != nil {
		e.t.Fatal(err)
	}
	return ended(e.Client.ImagePush(ctx, ref, engineimage.PushOptions{RegistryAuth: e.auth}))
}

func (e *engine) pull(p *place, r released) error {
	return ended(e.Client.ImagePull(context.Background(), p.ref(r.image, "@"+r.digest.String()).String(), engineimage.PullOptions{RegistryAuth: e.auth}))
}

func TestAnEnginePushesAndPullsAroundACollection(t *testing.T) {
	p := newPlace(t, 0)
	e := newEngine(t, p)
	fleet := p.Fleet(p.Admin, "kitchen")
	var all []released
	for _, tag := range []string{"first:1", "second:1"} {
		e.Busybox(t, tag, tag)
		r := p.building(fleet)
		if err := e.push(p, r, tag); err != nil {
			t.Fatal(err)
		}
		p.finishAs(&r, p.digest(r))
		all = append(all, r)
	}
	for _, tag := range []string{"first:1", "second:1"} {
		if _, err := e.Client.ImageRemove(context.Background(), tag, engineimage.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range all {
		if err := e.pull(p, r); err != nil {
			t.Fatalf("before: %v", err)
		}
	}
	p.remove("release", all[0].release.ID)
	p.age()
	if done := p.collect(0); done.Repositories != 1 || done.Blobs == 0 {
		t.Errorf("removed %+v", done)
	}
	e.forget()
	if err := e.pull(p, all[1]); err != nil {
		t.Errorf("after: %v", err)
	}
	if err := e.pull(p, all[0]); err == nil {
		t.Error("the removed image was pulled")
	}
}

// forget removes all images of the engine.
func (e *engine) forget() {
	e.t.Helper()
	ctx := context.Background()
	images, err := e.Client.ImageList(ctx, engineimage.ListOptions{All: true})
	if err != nil {
		e.t.Fatal(err)
	}
	for _, i := range images {
		if _, err := e.Client.ImageRemove(ctx, i.ID, engineimage.RemoveOptions{Force: true}); err != nil {
			e.t.Fatal(err)
		}
	}
}

func TestAnEngineIsToldOfTheQuota(t *testing.T) {
	p := newPlace(t, 100_000)
	e := newEngine(t, p)
	e.Busybox(t, "first:1")
	err := e.push(p, p.building(p.Fleet(p.Admin, "kitchen")), "first:1")
	if err == nil || !strings.Contains(err.Error(), "denied") || !strings.Contains(err.Error(), "organization admin would take") {
		t.Errorf("push above the quota: %v", err)
	}
}

// digest is what the tag "latest" of an image stands for.
func (p *place) digest(r released) v1.Hash {
	p.T.Helper()
	d, err := remote.Head(p.ref(r.image, ":latest"), p.auth())
	if err != nil {
		p.T.Fatal(err)
	}
	return d.Digest
}
