package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"

	"deckhand/state"
)

// Snapshot is what is on the engine at one moment: IDs of containers, images and
// networks, names of volumes, each sorted.
type Snapshot struct {
	Containers []string
	Images     []string
	Networks   []string
	Volumes    []string
	Taken      time.Time
}

// Keep is what stays although a snapshot does not have it, by the engine's names.
type Keep struct {
	Images   []string // canonical references
	Networks []string
	Volumes  []string
}

// Snapshot looks at everything on the engine, whoever made it.
func (e *Engine) Snapshot(ctx context.Context) (Snapshot, error) {
	_, l, err := e.inventory(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("take a snapshot: %w", err)
	}
	s := Snapshot{Taken: time.Now().UTC()}
	for _, c := range l.containers {
		s.Containers = append(s.Containers, c.ID)
	}
	for _, i := range l.images {
		s.Images = append(s.Images, i.ID)
	}
	for _, n := range l.networks {
		s.Networks = append(s.Networks, n.ID)
	}
	for _, v := range l.volumes {
		if v != nil {
			s.Volumes = append(s.Volumes, v.Name)
		}
	}
	for _, list := range [][]string{s.Containers, s.Images, s.Networks, s.Volumes} {
		slices.Sort(list)
	}
	return s, nil
}

// RemoveSince removes what came since a snapshot and nothing uses: containers that
// neither we nor another supervisor look after, then networks, volumes and images.
// Our own container and what it uses stay. What cannot be removed is in failed,
// object by object; err means that the engine could not be asked.
func (e *Engine) RemoveSince(ctx context.Context, since Snapshot, keep Keep) (removed []string, failed []error, err error) {
	d, l, err := e.inventory(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("remove what came since %s: %w", since.Taken.Format(time.RFC3339), err)
	}
	r := &removal{doing: d, since: since, keep: keep, own: ownContainers()}
	defer func() { e.memo.touch(question{kinds: everything}) }()
	r.containers(ctx, l)
	if l, err = e.list(ctx, d); err != nil { // what is used now
		return r.removed, r.failed, fmt.Errorf("remove what came since %s: %w", since.Taken.Format(time.RFC3339), err)
	}
	r.networks(ctx, l)
	r.volumes(ctx, l)
	r.images(ctx, l)
	return r.removed, r.failed, nil
}

// inventory asks for everything, whatever the last look knows.
func (e *Engine) inventory(ctx context.Context) (doing, lists, error) {
	c, err := e.connected(ctx)
	if err != nil {
		return doing{}, lists{}, err
	}
	d := doing{e: e, Client: c}
	l, err := e.list(ctx, d)
	return d, l, err
}

func (e *Engine) list(ctx context.Context, d doing) (l lists, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := ask(ctx, d.Client, question{kinds: everything}, &l); err != nil {
		return l, d.fail("list everything", err)
	}
	return l, nil
}

// removal is one run of RemoveSince.
type removal struct {
	doing
	since   Snapshot
	keep    Keep
	own     map[string]bool
	removed []string
	failed  []error
}

// note keeps the books of one removal. What is gone already is as good.
func (r *removal) note(what string, err error) bool {
	if err != nil && !errdefs.IsNotFound(err) {
		r.failed = append(r.failed, r.fail("remove "+what, err))
		return false
	}
	r.removed = append(r.removed, what)
	return true
}

func (r *removal) containers(ctx context.Context, l lists) {
	for _, c := range l.containers {
		name := containerName(c.Names)
		if has(r.since.Containers, c.ID) || r.own[c.ID] || r.own[name] || lookedAfter(c.Labels) {
			continue
		}
		r.note("container "+cmp.Or(name, c.ID), r.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}))
	}
}

// lookedAfter reports whether a supervisor or "deckhand apply" makes and removes
// the container.
func lookedAfter(labels map[string]string) bool {
	_, balena := labels[state.LabelSupervised]
	_, resin := labels["io.resin.supervised"]
	_, project := labels[state.LabelProject]
	return balena || resin || project
}

func (r *removal) networks(ctx context.Context, l lists) {
	used := map[string]bool{}
	for _, c := range l.containers {
		if c.NetworkSettings == nil {
			continue
		}
		for _, n := range c.NetworkSettings.Networks {
			if n != nil {
				used[n.NetworkID] = true
			}
		}
	}
	for _, n := range l.networks {
		if has(r.since.Networks, n.ID) || used[n.ID] || standard(n) || slices.Contains(r.keep.Networks, n.Name) {
			continue
		}
		r.note("network "+n.Name, r.NetworkRemove(ctx, n.ID))
	}
}

// standard reports whether the engine or we make the network anew anyway, or
// whether it belongs to "deckhand apply".
func standard(n network.Inspect) bool {
	_, project := n.Labels[state.LabelProject]
	switch n.Name {
	case "bridge", "host", "none", state.APINetworkName:
		return true
	}
	return project
}

func (r *removal) volumes(ctx context.Context, l lists) {
	used := map[string]bool{}
	for _, c := range l.containers {
		for _, m := range c.Mounts {
			used[m.Name] = true
		}
	}
	for _, v := range l.volumes {
		if v == nil || has(r.since.Volumes, v.Name) || used[v.Name] || slices.Contains(r.keep.Volumes, v.Name) {
			continue
		}
		if _, project := v.Labels[state.LabelProject]; project {
			continue
		}
		r.note("volume "+v.Name, r.VolumeRemove(ctx, v.Name, false))
	}
}

// images removes in rounds: one that others are built on goes after those.
func (r *removal) images(ctx context.Context, l lists) {
	used := map[string]bool{}
	for _, c := range l.containers {
		used[c.ImageID] = true
	}
	var left []image.Summary
	for _, i := range l.images {
		if !has(r.since.Images, i.ID) && !used[i.ID] && !r.wanted(i) {
			left = append(left, i)
		}
	}
	for len(left) > 0 {
		var errs []error
		before := len(left)
		left = slices.DeleteFunc(left, func(i image.Summary) bool {
			_, err := r.ImageRemove(ctx, i.ID, image.RemoveOptions{Force: true, PruneChildren: true})
			if err != nil && !errdefs.IsNotFound(err) {
				errs = append(errs, r.fail("remove image "+imageLabel(i), err))
				return false
			}
			r.removed = append(r.removed, "image "+imageLabel(i))
			return true
		})
		if len(left) == before {
			r.failed = append(r.failed, errs...)
			return
		}
	}
}

func (r *removal) wanted(i image.Summary) bool {
	now := state.Image{Refs: references(i.RepoTags, i.RepoDigests)}
	return slices.ContainsFunc(r.keep.Images, now.Leads)
}

func imageLabel(i image.Summary) string {
	if refs := references(i.RepoTags, i.RepoDigests); len(refs) > 0 {
		return refs[0]
	}
	return i.ID
}

func has(sorted []string, s string) bool {
	_, found := slices.BinarySearch(sorted, s)
	return found
}

var containerFolder = regexp.MustCompile(`/containers/([0-9a-f]{64})/|docker[-/]([0-9a-f]{64})`)

// ownContainers are names and IDs that the container we run in may have.
func ownContainers() map[string]bool {
	own := map[string]bool{"balena_supervisor": true, "resin_supervisor": true, "deckhand": true}
	if id := os.Getenv("SUPERVISOR_CONTAINER_ID"); id != "" {
		own[id] = true
	}
	for _, file := range []string{"/proc/self/mountinfo", "/proc/self/cgroup"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, m := range containerFolder.FindAllStringSubmatch(string(b), -1) {
			own[m[1]+m[2]] = true // one of them is empty
		}
	}
	return own
}

// madeHere is how the names of images begin that clients build on the device: they
// say local_image_SERVICE or local_SERVICE, and mean no registry.
const madeHere = "local_"

// errNotPushed is what helps against a lost image of that kind.
var errNotPushed = errors.New("it was built on this device and is in no registry; push to the device again")

// pushedHere reports whether an image can only have been built on the device.
func pushedHere(ref string) bool {
	return strings.HasPrefix(ref, madeHere) && !strings.Contains(ref, "/")
}
