package engine

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"deckhand/state"
)

// lists is what the engine answers to the four list calls.
type lists struct {
	containers []container.Summary
	images     []image.Summary
	networks   []network.Summary
	volumes    []*volume.Volume
}

// Observe looks at the engine once. Commits, applied specs and whose the images
// are is added by the store. Objects that cannot be understood are left out.
func (e *Engine) Observe(ctx context.Context) (state.World, error) {
	c, err := e.connected(ctx)
	if err != nil {
		return state.World{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	e.looking.Lock() // whoever comes second must not believe what the first is asking for
	defer e.looking.Unlock()
	began := time.Now()
	q, l := e.memo.ask(began)
	if err := ask(ctx, c, q, &l); err != nil {
		e.memo.touch(q)
		return state.World{}, e.fail("observe engine", err)
	}
	e.memo.fill(q, l, began)
	e.available.Store(true)
	w := e.world(l)
	e.refused(ctx, c, w)
	return w, nil
}

// ask makes the list calls that are needed, at once.
func ask(ctx context.Context, c *client.Client, q question, l *lists) error {
	g, ctx := errgroup.WithContext(ctx)
	list := func(of kind, call func() error) {
		if q.kinds&of != 0 {
			g.Go(call)
		}
	}
	if len(q.ids) > 0 {
		g.Go(func() error {
			which := filters.NewArgs()
			for _, id := range q.ids {
				which.Add("id", id)
			}
			some, err := c.ContainerList(ctx, container.ListOptions{All: true, Filters: which})
			l.containers = renew(l.containers, q.ids, some)
			return err
		})
	}
	list(containers, func() (err error) {
		l.containers, err = c.ContainerList(ctx, container.ListOptions{All: true})
		return err
	})
	list(images, func() (err error) {
		l.images, err = c.ImageList(ctx, image.ListOptions{})
		return err
	})
	list(networks, func() (err error) {
		l.networks, err = c.NetworkList(ctx, network.ListOptions{})
		return err
	})
	list(volumes, func() error {
		v, err := c.VolumeList(ctx, volume.ListOptions{})
		l.volumes = v.Volumes
		return err
	})
	return g.Wait()
}

// look collects a world while the lists are read.
type look struct {
	e    *Engine
	apps map[string]*state.AppNow
	api  []string          // IDs of the networks with the name of the API network
	ids  map[string]string // of containers, by name
}

func (e *Engine) world(l lists) state.World {
	k := look{e: e, apps: map[string]*state.AppNow{}, ids: map[string]string{}}
	w := state.World{Apps: map[string]state.AppNow{}, Images: imagesOf(l.images)}
	for _, n := range l.networks {
		if n.Name == state.APINetworkName {
			k.api = append(k.api, n.ID)
			w.APINetwork = len(k.api) == 1 && e.cfg.API.is(n)
		}
	}
	for _, c := range l.containers {
		k.ids[containerName(c.Names)] = c.ID
	}
	for _, c := range l.containers {
		k.container(c)
	}
	for _, n := range l.networks {
		k.network(n)
	}
	for _, v := range l.volumes { // last: old volumes name only the app's ID
		if v != nil {
			k.volume(*v)
		}
	}
	for uuid, app := range k.apps {
		slices.SortFunc(app.Containers, func(a, b state.Container) int {
			return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID))
		})
		slices.SortFunc(app.Networks, func(a, b state.NetworkNow) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
		})
		slices.SortFunc(app.Volumes, func(a, b state.VolumeNow) int { return cmp.Compare(a.Name, b.Name) })
		w.Apps[uuid] = *app
	}
	return w
}

// app finds or makes an app; id is 0 when an object does not tell it.
func (k look) app(uuid string, id int64) *state.AppNow {
	a := k.apps[uuid]
	if a == nil {
		a = &state.AppNow{UUID: uuid}
		k.apps[uuid] = a
	}
	if id != 0 && (a.ID == 0 || id < a.ID) { // labels may disagree; lists come in any order
		a.ID = id
	}
	return a
}

// skip leaves an object out and says so once.
func (k look) skip(kind, id, name, why string) {
	if k.e.once(kind + " " + id) {
		k.e.cfg.Log.Warn().Str(kind, name).Str("id", id).Msg("left out of the observation: " + why)
	}
}

func (k look) container(c container.Summary) {
	if !k.e.ours(c.Labels) {
		return
	}
	name := containerName(c.Names)
	uuid := label(c.Labels, state.LabelAppUUID)
	if uuid == "" {
		uuid = uuidOfNetworks(c)
	}
	service := label(c.Labels, state.LabelServiceName)
	switch {
	case uuid == "":
		k.skip("container", c.ID, name, "no label and no network tells its app's UUID")
		return
	case service == "":
		k.skip("container", c.ID, name, "it has no label "+state.LabelServiceName)
		return
	}
	imageID, releaseID, commit, ok := state.ParseContainerName(name)
	if !ok {
		k.skip("container", c.ID, name, "its name is not <service>_<image>_<release>_<commit>")
		return
	}
	appID := number(label(c.Labels, state.LabelAppID))
	app := k.app(uuid, appID)
	health, exit := readStatus(c.Status)
	now := state.Container{
		ID: c.ID, Name: name, Service: service, ServiceID: number(label(c.Labels, state.LabelServiceID)),
		ImageID: imageID, ReleaseID: releaseID, Commit: commit,
		Image: c.ImageID, Hash: c.Labels[state.LabelSpec],
		Phase: state.Phase(c.State), Health: health, Created: c.Created,
	}
	if now.Phase == state.Exited {
		now.ExitCode = exit
	}
	now.Networks = networksOf(c, uuid)
	now.Volumes = volumesOf(c, appID)
	now.API = k.onAPINetwork(c)
	if owner, shared := strings.CutPrefix(c.HostConfig.NetworkMode, "container:"); shared {
		now.NetworkOwner = cmp.Or(k.ids[owner], owner) // who made it may have named it
	}
	app.Containers = append(app.Containers, now)
}

// containerName is the container's own name; links add others of the form
// /other/alias.
func containerName(names []string) string {
	for _, n := range names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}

func networksOf(c container.Summary, uuid string) []string {
	if c.NetworkSettings == nil {
		return nil
	}
	var out []string
	for n := range c.NetworkSettings.Networks {
		if short, ok := strings.CutPrefix(n, uuid+"_"); ok {
			out = append(out, short)
		}
	}
	slices.Sort(out)
	return out
}

// onAPINetwork reports whether a container is attached to the API network that
// exists now. One that never ran may not know the network's ID yet: it will get
// the one that has the name.
func (k look) onAPINetwork(c container.Summary) bool {
	if c.NetworkSettings == nil {
		return false
	}
	end, on := c.NetworkSettings.Networks[state.APINetworkName]
	if !on || len(k.api) == 0 {
		return false
	}
	return end == nil || end.NetworkID == "" || slices.Contains(k.api, end.NetworkID)
}

func volumesOf(c container.Summary, appID int64) []string {
	var out []string
	for _, m := range c.Mounts {
		if short, ok := strings.CutPrefix(m.Name, strconv.FormatInt(appID, 10)+"_"); ok && m.Type == "volume" {
			out = append(out, short)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var (
	appNetwork = regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{62})_(.+)$`)
	appVolume  = regexp.MustCompile(`^(\d+)_(\S+)$`)
	exitStatus = regexp.MustCompile(`^Exited \((-?\d+)\)`)
)

func uuidOfNetworks(c container.Summary) string {
	if c.NetworkSettings == nil {
		return ""
	}
	var found []string
	for n := range c.NetworkSettings.Networks {
		if m := appNetwork.FindStringSubmatch(n); m != nil {
			found = append(found, m[1])
		}
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Min(found)
}

// readStatus takes health and exit code from the engine's text for people; the
// list has them nowhere else.
func readStatus(status string) (health string, exit int) {
	if m := exitStatus.FindStringSubmatch(status); m != nil {
		exit, _ = strconv.Atoi(m[1])
	}
	switch {
	case strings.HasSuffix(status, "(healthy)"):
		health = "healthy"
	case strings.HasSuffix(status, "(unhealthy)"):
		health = "unhealthy"
	case strings.HasSuffix(status, "(health: starting)"):
		health = "starting"
	}
	return health, exit
}

func (k look) network(n network.Summary) {
	if !k.e.ours(n.Labels) {
		return
	}
	uuid := label(n.Labels, state.LabelAppUUID)
	if uuid == "" {
		if m := appNetwork.FindStringSubmatch(n.Name); m != nil {
			uuid = m[1]
		}
	}
	name, ok := strings.CutPrefix(n.Name, uuid+"_")
	if uuid == "" || !ok || name == "" {
		k.skip("network", n.ID, n.Name, "its name is not <app UUID>_<name>")
		return
	}
	app := k.app(uuid, number(label(n.Labels, state.LabelAppID)))
	app.Networks = append(app.Networks, state.NetworkNow{ID: n.ID, Name: name, Hash: n.Labels[state.LabelSpec]})
}

func (k look) volume(v volume.Volume) {
	m := appVolume.FindStringSubmatch(v.Name)
	if v.Labels[state.LabelProject] != k.e.cfg.Project {
		return
	}
	if m == nil {
		if supervised(v.Labels) {
			k.skip("volume", v.Name, v.Name, "its name is not <app ID>_<name>")
		}
		return
	}
	id := number(m[1])
	uuid := label(v.Labels, state.LabelAppUUID)
	if uuid == "" {
		uuid = k.uuidOf(id)
	}
	if uuid == "" {
		if supervised(v.Labels) {
			k.skip("volume", v.Name, v.Name, "nothing tells its app's UUID")
		}
		return
	}
	app := k.app(uuid, id)
	app.Volumes = append(app.Volumes, state.VolumeNow{Name: m[2], Hash: v.Labels[state.LabelSpec]})
}

// uuidOf is the UUID of the app with the ID, among those seen so far.
func (k look) uuidOf(id int64) string {
	found := ""
	for uuid, a := range k.apps {
		if a.ID == id && id != 0 && (found == "" || uuid < found) {
			found = uuid
		}
	}
	return found
}

func imagesOf(list []image.Summary) map[string]state.Image {
	out := map[string]state.Image{}
	for _, i := range list {
		out[i.ID] = state.Image{ID: i.ID, Refs: references(i.RepoTags, i.RepoDigests), Size: i.Size}
	}
	return out
}

// references are the canonical names of an image; the engine lists <none> for
// what it lacks.
func references(tags, digests []string) []string {
	var out []string
	for _, r := range slices.Concat(tags, digests) {
		if !strings.Contains(r, "<none>") {
			out = append(out, state.Reference(r))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// number reads an ID from a label; 0 when it is none.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
