package build

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"deckhand/compose"
)

// normaliser brings one loaded compose project into the form that releases store.
type normaliser struct {
	src *Source
	out *project
}

func (n *normaliser) warn(format string, args ...any) {
	n.out.warnings = append(n.out.warnings, fmt.Sprintf(format, args...))
}

// topLevel checks and trims everything but the services.
func (n *normaliser) topLevel(doc map[string]any, p *types.Project) error {
	for _, key := range sortedKeys(doc) {
		switch {
		case key == "services" || key == "networks" || key == "volumes" || key == "secrets" || key == "configs":
		case key == "name":
			delete(doc, key)
		case strings.HasPrefix(key, "x-"):
			delete(doc, key)
		default:
			return fmt.Errorf("%s is not allowed at the top of the compose file", key)
		}
	}
	for _, kind := range []string{"networks", "volumes"} {
		if child(doc, kind) == nil {
			doc[kind] = map[string]any{}
		}
		n.unname(child(doc, kind))
	}
	n.contents(doc, p)
	return nil
}

// contents keeps the secrets and configs. Where their content is a variable, the
// device gives it the value of the service's own: the builder's .env is for what
// the compose file says of itself.
func (n *normaliser) contents(doc map[string]any, p *types.Project) {
	secrets, configs := child(doc, "secrets"), child(doc, "configs")
	for name, def := range p.Secrets {
		plain(secrets[name], types.FileObjectConfig(def))
		if content, ok := def.Extensions[secretContent].(string); ok {
			secrets[name] = map[string]any{"content": content}
		}
	}
	for name, def := range p.Configs {
		plain(configs[name], types.FileObjectConfig(def))
	}
}

// plain takes off a secret or config what the loader added to it.
func plain(declared any, def types.FileObjectConfig) {
	fields, _ := declared.(map[string]any)
	if def.Environment != "" {
		delete(fields, "content")
	}
	if strings.HasPrefix(def.Name, projectName+"_") {
		delete(fields, "name")
	}
}

// unname takes the project's name off network and volume names.
func (n *normaliser) unname(things map[string]any) {
	for name, thing := range things {
		fields, ok := thing.(map[string]any)
		if !ok {
			things[name] = map[string]any{}
			continue
		}
		if fields["name"] == projectName+"_"+name {
			delete(fields, "name")
		}
		if ipam, ok := fields["ipam"].(map[string]any); ok && len(ipam) == 0 {
			delete(fields, "ipam")
		}
		maps.DeleteFunc(fields, func(key string, _ any) bool { return strings.HasPrefix(key, "x-") })
	}
}

// allowedFields are the service attributes that a release may carry: what devices apply, and
// a few that only help elsewhere. What is missing here is refused by its name, so nothing
// new passes by accident.
func allowedFields() []string {
	fields := []string{"annotations", "attach", "build", "container_name", "env_file", "label_file", "post_start", "pre_stop", "profiles"}
	for _, a := range compose.Attributes {
		name, ok := strings.CutPrefix(a.Path, "services.*.")
		if ok && a.Treat == compose.Apply && !strings.Contains(name, ".") {
			fields = append(fields, name)
		}
	}
	return fields
}

func allowedBuildFields() []string {
	return []string{"args", "cache_from", "context", "dockerfile", "extra_hosts", "labels", "shm_size", "target"}
}

func (n *normaliser) service(name string, s *types.ServiceConfig, fields map[string]any) error {
	for _, key := range []string{"command", "entrypoint"} {
		if fields[key] == nil {
			delete(fields, key)
		}
	}
	maps.DeleteFunc(fields, func(key string, _ any) bool { return strings.HasPrefix(key, "x-") })
	allowed := allowedFields()
	for _, key := range sortedKeys(fields) {
		if !slices.Contains(allowed, key) {
			return notAllowed(name, key)
		}
	}
	if err := n.values(name, s); err != nil {
		return err
	}
	n.reshape(name, s, fields)
	if err := n.volumes(name, s, fields); err != nil {
		return err
	}
	out := Service{Name: name, Labels: s.Labels, Environment: plainEnvironment(s.Environment), image: s.Image}
	if s.Build != nil {
		if err := n.build(name, s, fields, &out); err != nil {
			return err
		}
	}
	n.out.services = append(n.out.services, out)
	return nil
}

var profileName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// values refuses settings whose key is fine and whose value is not.
func (n *normaliser) values(name string, s *types.ServiceConfig) error {
	if len(name) > 63 {
		return fmt.Errorf("service %s: the name is longer than 63 characters", name)
	}
	for _, opt := range s.SecurityOpt {
		if !securityAllowed(opt) {
			return notAllowed(name, "security_opt "+opt)
		}
	}
	for _, d := range s.Devices {
		if d.Target == "" || !strings.HasPrefix(d.Source, "/") {
			return notAllowed(name, "devices with "+d.Source)
		}
	}
	for _, p := range s.Profiles {
		if !profileName.MatchString(p) {
			return fmt.Errorf("service %s: %q is no profile name", name, p)
		}
	}
	return n.dependencies(name, s)
}

// securityAllowed refuses a profile in a file: a device has no files of the project.
func securityAllowed(opt string) bool {
	profile, ok := strings.CutPrefix(strings.Replace(opt, ":", "=", 1), "seccomp=")
	return !ok || profile == "unconfined" || strings.HasPrefix(profile, "{")
}

// dependencies accepts the conditions that devices wait for.
func (n *normaliser) dependencies(name string, s *types.ServiceConfig) error {
	for _, on := range sortedKeys(s.DependsOn) {
		d := s.DependsOn[on]
		switch d.Condition {
		case types.ServiceConditionStarted, types.ServiceConditionHealthy, types.ServiceConditionCompletedSuccessfully:
		default:
			return fmt.Errorf("service %s: depends_on.%s: the condition %q is not known", name, on, d.Condition)
		}
	}
	return nil
}

// reshape brings long forms back to the short ones that devices of all ages read.
func (n *normaliser) reshape(name string, s *types.ServiceConfig, fields map[string]any) {
	if s.ContainerName != "" {
		n.warn("service %s: service.container_name is ignored", name)
		delete(fields, "container_name")
	}
	delete(fields, "env_file")
	delete(fields, "label_file")
	if len(s.Environment) > 0 {
		fields["environment"] = plainEnvironment(s.Environment)
	}
	if len(s.DependsOn) > 0 {
		fields["depends_on"] = shortDependencies(s.DependsOn)
	}
	if deploy := child(fields, "deploy"); len(child(deploy, "placement")) == 0 {
		delete(deploy, "placement") // the loader writes it whatever there was
	}
	for i, f := range s.Secrets {
		fileMode(fields["secrets"], i, f.Mode)
	}
	for i, f := range s.Configs {
		fileMode(fields["configs"], i, f.Mode)
	}
	if len(s.Ports) > 0 {
		fields["ports"] = n.ports(name, s.Ports)
	}
	if len(s.Devices) > 0 {
		var devices []string
		for _, d := range s.Devices {
			devices = append(devices, strings.TrimSuffix(d.Source+":"+d.Target+":"+d.Permissions, ":"))
		}
		fields["devices"] = devices
	}
	if len(s.ExtraHosts) > 0 {
		fields["extra_hosts"] = hosts(s.ExtraHosts)
	}
	if len(s.SecurityOpt) > 0 {
		var opts []string
		for _, o := range s.SecurityOpt {
			opts = append(opts, strings.Replace(o, ":", "=", 1))
		}
		fields["security_opt"] = opts
	}
	n.questionable(name, s)
}

// fileMode writes the permissions of a secret or config as the number they were: a device
// reads them as the compose file says them.
func fileMode(list any, i int, mode *types.FileMode) {
	files, _ := list.([]any)
	if fields, ok := files[i].(map[string]any); ok && mode != nil {
		fields["mode"] = int64(*mode)
	}
}

// questionable warns of settings that are kept and may still not do what was meant.
func (n *normaliser) questionable(name string, s *types.ServiceConfig) {
	for _, label := range sortedKeys(s.Labels) {
		if strings.HasPrefix(label, "io.balena.private") {
			n.warn("service %s: the label %s is reserved for the supervisor", name, label)
		}
	}
	if s.OomScoreAdj <= -900 {
		n.warn("service %s: with oom_score_adj %d the kernel may stop the supervisor first", name, s.OomScoreAdj)
	}
}

func plainEnvironment(env types.MappingWithEquals) map[string]string {
	plain := map[string]string{}
	for key, value := range env {
		plain[key] = ""
		if value != nil {
			plain[key] = *value
		}
	}
	return plain
}

// shortDependencies is the list form, or the map form when a condition says more than
// "started" does.
func shortDependencies(deps types.DependsOnConfig) any {
	names := sortedKeys(deps)
	long := map[string]any{}
	plain := true
	for _, name := range names {
		fields := map[string]any{"condition": deps[name].Condition}
		if deps[name].Restart {
			fields["restart"], plain = true, false
		}
		if !deps[name].Required {
			fields["required"], plain = false, false
		}
		if deps[name].Condition != types.ServiceConditionStarted {
			plain = false
		}
		long[name] = fields
	}
	if plain {
		return names
	}
	return long
}

func (n *normaliser) ports(name string, ports []types.ServicePortConfig) []string {
	var short []string
	for _, p := range ports {
		if p.Name != "" || p.AppProtocol != "" || p.Mode != "" && p.Mode != "ingress" {
			n.warn("service %s: name, app_protocol and mode of port %d are ignored", name, p.Target)
		}
		text := fmt.Sprint(p.Target)
		if p.Published != "" {
			text = p.Published + ":" + text
		}
		if p.HostIP != "" {
			if p.Published == "" {
				text = ":" + text
			}
			text = p.HostIP + ":" + text
		}
		if p.Protocol != "" && p.Protocol != "tcp" {
			text += "/" + p.Protocol
		}
		short = append(short, text)
	}
	return short
}

func hosts(list types.HostsList) []string {
	var short []string
	for _, name := range sortedKeys(list) {
		for _, ip := range list[name] {
			short = append(short, name+":"+ip)
		}
	}
	return short
}

// volumes keeps named ones, moves tmpfs to its own field and turns the binds that devices
// offer into the labels that ask for them. All other host paths are refused.
func (n *normaliser) volumes(name string, s *types.ServiceConfig, fields map[string]any) error {
	var sorted mounts
	for _, v := range s.Volumes {
		if err := sorted.add(name, v); err != nil {
			return err
		}
	}
	features, err := bindFeatures(name, sorted.binds)
	if err != nil {
		return err
	}
	if len(features) > 0 && s.Labels == nil {
		s.Labels = types.Labels{}
	}
	for _, f := range features {
		s.Labels["io.balena.features."+f] = "1"
	}
	if len(s.Labels) > 0 {
		fields["labels"] = s.Labels
	}
	setOrDelete(fields, "volumes", sorted.kept)
	setOrDelete(fields, "tmpfs", append(slices.Clone([]string(s.Tmpfs)), sorted.tmpfs...))
	return nil
}

// mounts are a service's volumes, by what becomes of them.
type mounts struct {
	kept         []any // in the short form where it says all
	tmpfs, binds []string
}

func (m *mounts) add(service string, v types.ServiceVolumeConfig) error {
	if v.Target == "" {
		return notAllowed(service, "volumes without target")
	}
	switch v.Type {
	case types.VolumeTypeVolume:
		m.kept = append(m.kept, volumeForm(v))
	case types.VolumeTypeTmpfs:
		if o := v.Tmpfs; o != nil && (o.Size != 0 || o.Mode != 0) || v.ReadOnly {
			v.Consistency = ""
			m.kept = append(m.kept, v)
			break
		}
		m.tmpfs = append(m.tmpfs, v.Target)
	case types.VolumeTypeBind:
		m.binds = append(m.binds, v.Source)
	default:
		return notAllowed(service, "volumes of type "+v.Type)
	}
	return nil
}

// volumeForm is source:target, target, or the long form where there is more to say.
func volumeForm(v types.ServiceVolumeConfig) any {
	if o := v.Volume; o != nil && (o.NoCopy || o.Subpath != "" || len(o.Labels) > 0) || v.Source == "" && v.ReadOnly {
		v.Consistency = ""
		return v
	}
	if v.Source == "" {
		return v.Target
	}
	text := v.Source + ":" + v.Target
	if v.ReadOnly {
		text += ":ro"
	}
	return text
}

func setOrDelete[T any](fields map[string]any, key string, list []T) {
	if len(list) == 0 {
		delete(fields, key)
		return
	}
	fields[key] = list
}

// bindFeatures finds the labels that give a service the host paths it asks for.
func bindFeatures(name string, binds []string) ([]string, error) {
	groups := []struct {
		feature string
		paths   []string
	}{
		{"balena-socket", []string{"/var/run/docker.sock"}},
		{"balena-socket", []string{"/var/run/balena-engine.sock"}},
		{"dbus", []string{"/run/dbus"}},
		{"sysfs", []string{"/sys"}},
		{"procfs", []string{"/proc"}},
		{"kernel-modules", []string{"/lib/modules"}},
		{"firmware", []string{"/lib/firmware"}},
		{"journal-logs", []string{"/var/log/journal", "/run/log/journal", "/etc/machine-id"}},
	}
	var features []string
	for _, bind := range binds {
		found := false
		for _, g := range groups {
			if !slices.Contains(g.paths, bind) {
				continue
			}
			for _, p := range g.paths {
				if !slices.Contains(binds, p) {
					return nil, fmt.Errorf("service %s: %s is only available together with %s", name, bind, strings.Join(g.paths, ", "))
				}
			}
			found = true
			if !slices.Contains(features, g.feature) {
				features = append(features, g.feature)
			}
		}
		if !found {
			return nil, fmt.Errorf("service %s: the host path %s is not allowed as a volume; use a named volume", name, bind)
		}
	}
	return features, nil
}

func (n *normaliser) build(name string, s *types.ServiceConfig, fields map[string]any, out *Service) error {
	b := child(fields, "build")
	maps.DeleteFunc(b, func(key string, _ any) bool { return strings.HasPrefix(key, "x-") })
	allowed := allowedBuildFields()
	for _, key := range sortedKeys(b) {
		if !slices.Contains(allowed, key) {
			return notAllowed(name, "build."+key)
		}
	}
	if strings.HasSuffix(s.Build.Context, ".git") || remote.MatchString(s.Build.Context) {
		return fmt.Errorf("service %s: the build context %s is remote; only folders of the project can be built", name, s.Build.Context)
	}
	rel, err := n.src.folder(s.Build.Context)
	if err != nil {
		return fmt.Errorf("service %s: the build context %w", name, err)
	}
	if !staysInside(".", s.Build.Dockerfile) {
		return fmt.Errorf("service %s: the Dockerfile %s is not inside the build context", name, s.Build.Dockerfile)
	}
	b["context"] = rel
	if len(s.Build.ExtraHosts) > 0 {
		b["extra_hosts"] = hosts(s.Build.ExtraHosts)
	}
	out.build, out.context, out.dockerfile = s.Build, rel, s.Build.Dockerfile
	return nil
}
