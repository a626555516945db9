package enginetest

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
)

// box is a container. What its fields point to never changes: a change puts
// something new in its place.
type box struct {
	id, name string
	created  time.Time
	image    string // ID
	config   *container.Config
	host     *container.HostConfig
	nets     map[string]*network.EndpointSettings // by name, as they were asked for
	mounts   []container.MountPoint

	running, paused, restarting, removing, dead bool

	code      int
	failed    string // why it could not start
	startedAt time.Time
	endedAt   time.Time
	health    string
	stopped   bool // by somebody: its restart policy is silent
	restarts  int

	endsAt, checkedAt, againAt, goneAt time.Time // what happens by itself; zero: nothing
}

func (c *box) clone() *box {
	out := *c
	out.nets = maps.Clone(c.nets)
	return &out
}

func (c *box) short() string { return c.id[:min(12, len(c.id))] }

// status is the engine's word.
func (c *box) status() string {
	switch {
	case c.paused:
		return "paused"
	case c.restarting:
		return "restarting"
	case c.running:
		return "running"
	case c.removing:
		return "removing"
	case c.dead:
		return "dead"
	case c.startedAt.IsZero():
		return "created"
	}
	return "exited"
}

// text is the engine's sentence for people.
func (c *box) text(now time.Time) string {
	ago := func(t time.Time) string { return fmt.Sprintf("%d seconds", int(now.Sub(t).Seconds())) }
	switch c.status() {
	case "paused":
		return "Up " + ago(c.startedAt) + " (Paused)"
	case "restarting":
		return fmt.Sprintf("Restarting (%d) %s ago", c.code, ago(c.endedAt))
	case "running":
		switch c.health {
		case "":
			return "Up " + ago(c.startedAt)
		case container.Starting:
			return "Up " + ago(c.startedAt) + " (health: starting)"
		}
		return "Up " + ago(c.startedAt) + " (" + c.health + ")"
	case "removing":
		return "Removal In Progress"
	case "dead":
		return "Dead"
	case "created":
		return "Created"
	}
	return fmt.Sprintf("Exited (%d) %s ago", c.code, ago(c.endedAt))
}

// find looks a container up by ID, name or the beginning of an ID.
func (m *machine) find(name string) (*box, error) {
	if c := m.containers[name]; c != nil {
		return c, nil
	}
	if c := m.named(strings.TrimPrefix(name, "/")); c != nil {
		return c, nil
	}
	var found *box
	for id, c := range m.containers {
		if name != "" && strings.HasPrefix(id, name) {
			if found != nil {
				return nil, invalid("Multiple IDs found with provided prefix: %s", name)
			}
			found = c
		}
	}
	if found == nil {
		return nil, notFound("No such container: %s", name)
	}
	return found, nil
}

func (m *machine) named(name string) *box {
	for _, c := range m.containers {
		if c.name == name {
			return c
		}
	}
	return nil
}

// sorted gives the containers, oldest first.
func (m *machine) sorted() []*box {
	return slices.SortedFunc(maps.Values(m.containers), func(a, b *box) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id, b.id))
	})
}

// changed takes note of a change and tells who listens.
func (f *Fake) changed(kind, action, id string, attributes map[string]string) {
	f.m.changes++
	f.publish(kind, action, id, attributes)
}

func (f *Fake) about(c *box, action string) {
	attributes := maps.Clone(c.config.Labels)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes["name"], attributes["image"] = c.name, c.config.Image
	if action == "die" {
		attributes["exitCode"] = fmt.Sprint(c.code)
	}
	f.changed("container", action, c.id, attributes)
}

var validName = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

func (f *Fake) createContainer(q request) (reply, error) {
	var asked container.CreateRequest
	if err := q.decode(&asked); err != nil {
		return reply{}, err
	}
	if asked.Config == nil {
		return reply{}, invalid("Config cannot be empty in order to create a container")
	}
	if asked.HostConfig == nil {
		asked.HostConfig = &container.HostConfig{}
	}
	forget(&asked)
	if err := verify(asked); err != nil {
		return reply{}, err
	}
	name := strings.TrimPrefix(q.Query.Get("name"), "/")
	if name != "" && !validName.MatchString(name) {
		return reply{}, invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	im, err := f.m.image(asked.Image)
	if err != nil {
		return reply{}, err
	}
	if c := f.m.named(name); c != nil {
		return reply{}, nameTaken(name, c)
	}
	c := &box{id: f.m.id(), name: name, created: time.Now(), image: im.id, host: asked.HostConfig}
	c.name = cmp.Or(name, "box_"+c.short())
	c.config = merge(asked.Config, im, c.short())
	c.nets = endpoints(asked, c)
	f.mount(c)
	f.m.containers[c.id] = c
	f.about(c, "create")
	return made(container.CreateResponse{ID: c.id, Warnings: []string{}})
}

func nameTaken(name string, by *box) error {
	return conflict("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.",
		"/"+name, by.id)
}

// forget drops what newer engines know. This one never saw it.
func forget(r *container.CreateRequest) {
	if r.Healthcheck != nil {
		r.Healthcheck.StartInterval = 0
	}
	r.HostConfig.Annotations = nil
	for i := range r.HostConfig.Mounts {
		m := &r.HostConfig.Mounts[i]
		m.ImageOptions = nil
		if m.VolumeOptions != nil {
			m.VolumeOptions.Subpath = ""
		}
		if m.TmpfsOptions != nil {
			m.TmpfsOptions.Options = nil
		}
		if m.BindOptions != nil {
			m.BindOptions.CreateMountpoint, m.BindOptions.ReadOnlyNonRecursive, m.BindOptions.ReadOnlyForceRecursive = false, false, false
		}
	}
	if r.NetworkingConfig != nil {
		for _, e := range r.NetworkingConfig.EndpointsConfig {
			if e != nil {
				e.MacAddress, e.GwPriority = "", 0
			}
		}
	}
}

// verify refuses what contradicts itself.
func verify(r container.CreateRequest) error {
	if n := r.NetworkingConfig; n != nil && len(n.EndpointsConfig) > 1 {
		return invalid("Container cannot be connected to network endpoints: %s", strings.Join(slices.Sorted(maps.Keys(n.EndpointsConfig)), ", "))
	}
	if err := policy(r.HostConfig.RestartPolicy, r.HostConfig.AutoRemove); err != nil {
		return err
	}
	for _, m := range r.HostConfig.Mounts {
		if err := mountable(m); err != nil {
			return err
		}
	}
	mode := r.HostConfig.NetworkMode
	switch {
	case !mode.IsContainer():
		return nil
	case r.Hostname != "":
		return invalid("conflicting options: hostname and the network mode")
	case len(r.HostConfig.PortBindings) > 0:
		return invalid("conflicting options: port publishing and the container type network mode")
	case len(r.ExposedPorts) > 0:
		return invalid("conflicting options: port exposing and the container type network mode")
	case len(r.HostConfig.DNS) > 0:
		return invalid("conflicting options: dns and the network mode")
	case len(r.HostConfig.ExtraHosts) > 0:
		return invalid("conflicting options: custom host-to-IP mapping and the network mode")
	case r.MacAddress != "": //nolint:staticcheck // the field of this API version
		return invalid("conflicting options: mac-address and the network mode")
	}
	return nil
}

func policy(p container.RestartPolicy, autoRemove bool) error {
	switch p.Name {
	case "", "no", "always", "unless-stopped", "on-failure":
	default:
		return invalid("invalid restart policy '%s'", p.Name)
	}
	if p.MaximumRetryCount != 0 && p.Name != "on-failure" {
		return invalid("maximum retry count cannot be used with restart policy '%s'", p.Name)
	}
	if autoRemove && p.Name != "" && p.Name != "no" {
		return invalid("can't create 'AutoRemove' container with restart policy")
	}
	return nil
}

func mountable(m mount.Mount) error {
	if !path.IsAbs(m.Target) {
		return invalid("invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", m.Type, m.Target)
	}
	switch m.Type {
	case mount.TypeBind:
		if m.VolumeOptions != nil || m.TmpfsOptions != nil {
			return invalid("invalid mount config for type \"bind\": field VolumeOptions must not be specified")
		}
		if _, err := os.Stat(m.Source); err != nil {
			return invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
		}
	case mount.TypeVolume:
		if m.BindOptions != nil || m.TmpfsOptions != nil {
			return invalid("invalid mount config for type \"volume\": field BindOptions must not be specified")
		}
	case mount.TypeTmpfs:
		if m.BindOptions != nil || m.VolumeOptions != nil || m.Source != "" {
			return invalid("invalid mount config for type \"tmpfs\": field Source must not be specified")
		}
	default:
		return invalid("mount type unknown: %q", m.Type)
	}
	return nil
}

// merge fills in what the image says.
func merge(c *container.Config, im *img, short string) *container.Config {
	out := *c
	out.Hostname = cmp.Or(out.Hostname, short)
	if len(out.Entrypoint) == 0 && len(out.Cmd) == 0 {
		out.Cmd = im.command()
	}
	if !slices.ContainsFunc(out.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		out.Env = append(slices.Clone(out.Env), "PATH=/bin")
	}
	labels := maps.Clone(im.labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, out.Labels)
	out.Labels = labels
	return &out
}

// endpoints are the networks a container is made with. They need not exist yet.
func endpoints(r container.CreateRequest, c *box) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	mode := r.HostConfig.NetworkMode
	if mode.IsContainer() {
		return out
	}
	name := string(mode)
	if name == "" || name == "default" {
		name = "bridge"
	}
	asked := &network.EndpointSettings{}
	if r.NetworkingConfig != nil {
		for n, e := range r.NetworkingConfig.EndpointsConfig {
			name = n
			if e != nil {
				asked = e
			}
		}
	}
	out[name] = endpoint(asked, name, c)
	return out
}

// endpoint adds the names that the engine gives a container in a network of
// users: its short ID and its host name.
func endpoint(asked *network.EndpointSettings, name string, c *box) *network.EndpointSettings {
	e := asked.Copy()
	e.NetworkID, e.EndpointID, e.IPAddress, e.MacAddress = "", "", "", ""
	if predefined(name) {
		return e
	}
	for _, extra := range []string{c.short(), c.config.Hostname} {
		if extra != c.name && !slices.Contains(e.Aliases, extra) {
			e.Aliases = append(e.Aliases, extra)
		}
	}
	return e
}

// mount makes the volumes that do not exist yet.
func (f *Fake) mount(c *box) {
	add := func(name, target string, readOnly bool) {
		anonymous := name == ""
		if anonymous {
			name = f.m.id()
		}
		if f.m.volumes[name] == nil {
			f.m.volumes[name] = &vol{name: name, driver: "local", created: time.Now(), anonymous: anonymous}
			f.changed("volume", "create", name, map[string]string{"driver": "local"})
		}
		c.mounts = append(c.mounts, container.MountPoint{
			Type: mount.TypeVolume, Name: name, Source: "/var/lib/docker/volumes/" + name + "/_data", Destination: target, Driver: "local", RW: !readOnly,
		})
	}
	for _, m := range c.host.Mounts {
		if m.Type == mount.TypeVolume {
			add(m.Source, m.Target, m.ReadOnly)
			continue
		}
		c.mounts = append(c.mounts, container.MountPoint{Type: m.Type, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly})
	}
	for _, b := range c.host.Binds {
		source, rest, _ := strings.Cut(b, ":")
		target, mode, _ := strings.Cut(rest, ":")
		if path.IsAbs(source) {
			c.mounts = append(c.mounts, container.MountPoint{Type: mount.TypeBind, Source: source, Destination: target, Mode: mode, RW: mode != "ro"})
			continue
		}
		add(source, target, mode == "ro")
	}
	for _, target := range slices.Sorted(maps.Keys(c.config.Volumes)) {
		add("", target, false)
	}
}

func (f *Fake) listContainers(q request) (reply, error) {
	match, err := q.filters("ancestor", "id", "label", "name", "network", "status", "volume", "health", "exited")
	if err != nil {
		return reply{}, err
	}
	out := []container.Summary{}
	for _, c := range slices.Backward(f.m.sorted()) {
		if (q.yes("all") || c.running || match.Len() > 0 && match.Contains("status")) && f.matches(c, match) {
			out = append(out, f.summary(c))
		}
	}
	return answer(out)
}

func (f *Fake) matches(c *box, match filters.Args) bool {
	if match.Len() == 0 {
		return true
	}
	if match.Contains("ancestor") && !slices.ContainsFunc(match.Get("ancestor"), func(ref string) bool {
		im, err := f.m.image(ref)
		return err == nil && im.id == c.image
	}) {
		return false
	}
	for _, field := range []string{"network", "volume"} {
		if match.Contains(field) && !slices.ContainsFunc(match.Get(field), func(want string) bool { return f.uses(c, field, want) }) {
			return false
		}
	}
	return match.MatchKVList("label", c.config.Labels) && match.Match("id", c.id) && match.Match("name", "/"+c.name) && match.ExactMatch("status", c.status())
}

func (f *Fake) uses(c *box, field, want string) bool {
	if field == "volume" {
		return slices.ContainsFunc(c.mounts, func(m container.MountPoint) bool { return m.Name == want || m.Destination == want })
	}
	for name, e := range c.nets {
		if name == want || e.NetworkID != "" && e.NetworkID == want {
			return true
		}
	}
	return false
}

func (f *Fake) summary(c *box) container.Summary {
	s := container.Summary{
		ID: c.id, Names: []string{"/" + c.name}, Image: c.config.Image, ImageID: c.image, Created: c.created.Unix(),
		Command: strings.Join(slices.Concat(c.config.Entrypoint, c.config.Cmd), " "), Labels: c.config.Labels,
		State: c.status(), Status: c.text(time.Now()), NetworkSettings: &container.NetworkSettingsSummary{Networks: f.shown(c)},
		Mounts: f.mountsShown(c), Ports: []container.Port{},
	}
	s.HostConfig.NetworkMode = string(c.host.NetworkMode)
	if !f.m.leads(c.config.Image, c.image) { // the name leads elsewhere by now
		s.Image = c.image
	}
	return s
}

// leads reports whether a reference still leads to an image.
func (m *machine) leads(ref, id string) bool {
	im, err := m.image(ref)
	return err == nil && im.id == id
}

// mountsShown is in an order of the engine's own.
func (f *Fake) mountsShown(c *box) []container.MountPoint {
	out := slices.Clone(c.mounts)
	slices.SortFunc(out, func(a, b container.MountPoint) int { return cmp.Compare(b.Destination, a.Destination) })
	return out
}

func (f *Fake) shown(c *box) map[string]*network.EndpointSettings {
	out := make(map[string]*network.EndpointSettings, len(c.nets))
	for name, e := range c.nets {
		out[name] = e.Copy()
		if n, err := f.m.network(name); err == nil && e.NetworkID == "" {
			out[name].NetworkID = n.id
		}
	}
	return out
}

func (f *Fake) inspectContainer(q request) (reply, error) {
	c, err := f.m.find(q.Object)
	if err != nil {
		return reply{}, err
	}
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	s := &container.State{
		Status: c.status(), Running: c.running, Paused: c.paused, Restarting: c.restarting, Dead: c.dead,
		ExitCode: c.code, Error: c.failed, StartedAt: stamp(c.startedAt), FinishedAt: stamp(c.endedAt),
	}
	if c.health != "" {
		s.Health = &container.Health{Status: c.health, Log: []*container.HealthcheckResult{}}
	}
	program := slices.Concat(c.config.Entrypoint, c.config.Cmd)
	return answer(container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{
			ID: c.id, Created: stamp(c.created), Path: program[0], Args: program[1:], State: s, Image: c.image, Name: "/" + c.name,
			RestartCount: c.restarts, Driver: "overlay2", Platform: "linux", HostConfig: c.host,
		},
		Mounts: f.mountsShown(c), Config: c.config,
		NetworkSettings: &container.NetworkSettings{Networks: f.shown(c)},
	})
}

func (f *Fake) renameContainer(q request) (reply, error) {
	c, err := f.m.find(q.Object)
	if err != nil {
		return reply{}, err
	}
	name := strings.TrimPrefix(q.Query.Get("name"), "/")
	switch other := f.m.named(name); {
	case name == "":
		return reply{}, invalid("Neither old nor new names may be empty")
	case name == c.name:
		return reply{}, invalid("Renaming a container with the same name as its current name")
	case !validName.MatchString(name):
		return reply{}, invalid("Error when allocating new name: Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	case other != nil:
		return reply{}, refuse(http.StatusConflict, "Error when allocating new name: %s", nameTaken(name, other))
	}
	c.name = name
	f.about(c, "rename")
	return done()
}

func (f *Fake) updateContainer(q request) (reply, error) {
	c, err := f.m.find(q.Object)
	if err != nil {
		return reply{}, err
	}
	var asked container.UpdateConfig
	if err := q.decode(&asked); err != nil {
		return reply{}, err
	}
	if c.removing || c.dead {
		return reply{}, broken("Cannot update container %s: Container is marked for removal and cannot be \"update\".", c.id)
	}
	if err := policy(asked.RestartPolicy, c.host.AutoRemove); err != nil {
		return reply{}, err
	}
	host := *c.host
	if asked.RestartPolicy.Name != "" {
		host.RestartPolicy = asked.RestartPolicy
	}
	if asked.Memory != 0 {
		host.Memory = asked.Memory
	}
	c.host = &host
	f.about(c, "update")
	return answer(map[string][]string{"Warnings": {}})
}

func (f *Fake) removeContainer(q request) (reply, error) {
	c, err := f.m.find(q.Object)
	if err != nil {
		return reply{}, err
	}
	switch {
	case c.removing:
		return reply{}, conflict("removal of container %s is already in progress", q.Object)
	case c.running && !q.yes("force"):
		state := cmp.Or(map[bool]string{c.paused: "paused", c.restarting: "restarting"}[true], "running")
		return reply{}, conflict("You cannot remove a %s container %s. Stop the container before attempting removal or force remove", state, c.id)
	case c.running:
		f.end(c, 137)
	}
	delete(f.m.containers, c.id)
	f.about(c, "destroy")
	if q.yes("v") {
		for _, m := range c.mounts {
			if v := f.m.volumes[m.Name]; v != nil && v.anonymous && len(f.m.usersOf(m.Name)) == 0 {
				delete(f.m.volumes, m.Name)
				f.changed("volume", "destroy", m.Name, map[string]string{"driver": "local"})
			}
		}
	}
	return done()
}
