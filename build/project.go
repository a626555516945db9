package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const (
	composeFileLimit = 1 << 20
	loadDeadline     = 10 * time.Second
	serviceLimit     = 100
)

// project is what a push asks for: the composition as the release stores it, and how
// each service comes to its image.
type project struct {
	composition map[string]any
	services    []Service // by name
	warnings    []string
}

// Service is one service's way to its image.
type Service struct {
	Name                string
	Labels, Environment map[string]string // as the composition has them

	image      string // run as it is, when build is nil
	build      *types.BuildConfig
	context    string // clean path in the source, "." for all of it
	dockerfile string // as asked for, relative to context; "" when nobody asked
}

// Built says whether the service is built; otherwise it runs an image as it is.
func (s Service) Built() bool { return s.build != nil }

// loadProject finds out what kind of project was pushed and reads it.
func loadProject(ctx context.Context, src *Source, dockerfile string) (*project, error) {
	for _, name := range []string{"docker-compose.yml", "docker-compose.yaml"} {
		if !src.has(name) {
			continue
		}
		p, err := loadCompose(ctx, src, name)
		if err != nil {
			return nil, err
		}
		if err := p.asDevicesReadIt(ctx); err != nil {
			return nil, err
		}
		if dockerfile != "" {
			p.warnings = append(p.warnings, "the Dockerfile option is ignored: the project has a "+name)
		}
		return p, nil
	}
	return singleService(dockerfile)
}

// singleService is the composition of a project that has a Dockerfile only. Its one
// service gets the rights that such projects have always had.
func singleService(dockerfile string) (*project, error) {
	build := map[string]any{"context": "."}
	if dockerfile != "" {
		if clean := path.Clean(dockerfile); !staysInside(".", dockerfile) || clean == "." {
			return nil, fmt.Errorf("the Dockerfile %q is not inside the project", dockerfile)
		}
		build["dockerfile"] = path.Clean(dockerfile)
	}
	labels := map[string]string{}
	for _, feature := range []string{"kernel-modules", "firmware", "dbus", "supervisor-api", "resin-api"} {
		labels["io.resin.features."+feature] = "1"
	}
	main := map[string]any{
		"build":        build,
		"privileged":   true,
		"tty":          true,
		"restart":      "always",
		"network_mode": "host",
		"volumes":      []any{"resin-data:/data"},
		"labels":       labels,
	}
	s := Service{Name: "main", Labels: labels, build: &types.BuildConfig{}, context: "."}
	if dockerfile != "" {
		s.dockerfile = path.Clean(dockerfile)
	}
	return &project{
		composition: map[string]any{
			"networks": map[string]any{},
			"volumes":  map[string]any{"resin-data": map[string]any{}},
			"services": map[string]any{"main": main},
		},
		services: []Service{s},
	}, nil
}

func loadCompose(ctx context.Context, src *Source, file string) (*project, error) {
	ctx, cancel := context.WithTimeout(ctx, loadDeadline)
	defer cancel()
	type outcome struct {
		read reading
		err  error
	}
	// The loader does not watch its context everywhere: a hostile file costs a goroutine
	// for a while, not the request.
	done := make(chan outcome, 1)
	go func() {
		var out outcome
		defer func() {
			if p := recover(); p != nil {
				out = outcome{err: fmt.Errorf("the compose loader failed: %v", p)}
			}
			done <- out
		}()
		out.read, out.err = readCompose(ctx, src, file)
	}()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%s takes longer than %s to read", file, loadDeadline)
	case out := <-done:
		if out.err != nil {
			return nil, errors.New(strings.ReplaceAll(out.err.Error(), src.dir+string(filepath.Separator), ""))
		}
		return normalise(out.read, src)
	}
}

// reading is a compose file as the loader understood it.
type reading struct {
	project *types.Project
	zeros   map[string]map[string]any // by service: settings that the project cannot tell from none
}

// zerosOf finds what was set to false or 0. The loader's types do not write that down,
// and for a few attributes it is not what devices do unless told.
func zerosOf(services map[string]any) map[string]map[string]any {
	all := map[string]map[string]any{}
	for name := range services {
		all[name] = map[string]any{}
		for key, value := range child(services, name) {
			if value == false || value == 0 {
				all[name][key] = value
			}
		}
	}
	return all
}

// readCompose loads a compose file without looking outside of the project: not at the
// process's environment, not at other folders, not at the network.
func readCompose(ctx context.Context, src *Source, file string) (reading, error) {
	content, err := src.readFile(file, composeFileLimit)
	if err != nil {
		return reading{}, err
	}
	if err := checkYAML(file, content); err != nil {
		return reading{}, err
	}
	if content, err = hideContents(content); err != nil {
		return reading{}, fmt.Errorf("read %s: %w", file, err)
	}
	env, err := projectEnvironment(src)
	if err != nil {
		return reading{}, err
	}
	details := types.ConfigDetails{
		WorkingDir:  src.dir,
		Environment: env,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(src.dir, file), Content: content}},
	}
	options := []func(*loader.Options){
		func(o *loader.Options) {
			o.SetProjectName(projectName, true)
			o.SkipInclude = true
			o.SkipResolveEnvironment = true
			o.SkipResolveLabels = true
			o.ResolvePaths = false // people see the paths they wrote
			o.Profiles = []string{"*"}
			o.ResourceLoaders = []loader.ResourceLoader{fence{src}}
		},
	}
	model, err := loader.LoadModelWithContext(ctx, details, options...)
	if err != nil {
		return reading{}, fmt.Errorf("read %s: %w", file, err)
	}
	if _, ok := model["include"]; ok {
		return reading{}, fmt.Errorf("%s: include is not allowed; write the services into one file", file)
	}
	zeros := zerosOf(child(model, "services"))
	p, err := loader.ModelToProject(model, loader.ToOptions(&details, options), details)
	if err != nil {
		return reading{}, fmt.Errorf("read %s: %w", file, err)
	}
	p, err = resolveFiles(p, src)
	return reading{project: p, zeros: zeros}, err
}

// projectName is what the loader puts in front of names; normalise takes it off again.
const projectName = "deckhandproject"

// resolveFiles reads env_file and label_file entries, after looking at where they are.
func resolveFiles(p *types.Project, src *Source) (*types.Project, error) {
	for _, name := range sortedKeys(p.Services) {
		s := p.Services[name]
		if len(s.PreStart) > 0 {
			return nil, notAllowed(name, "pre_start")
		}
		var err error
		for i := range s.EnvFiles {
			if s.EnvFiles[i].Path, err = src.readable(s.EnvFiles[i].Path); err != nil {
				return nil, fmt.Errorf("service %s: %w", name, err)
			}
		}
		for i := range s.LabelFiles {
			if s.LabelFiles[i], err = src.readable(s.LabelFiles[i]); err != nil {
				return nil, fmt.Errorf("service %s: %w", name, err)
			}
		}
		p.Services[name] = s
	}
	resolved, err := p.WithServicesEnvironmentResolved(true)
	if err != nil {
		return nil, err
	}
	return resolved.WithServicesLabelsResolved(true)
}

// readable is where a file that the compose file names lies on the disk. Anything but a
// small file of the project is refused. A missing one is left to the loader, which knows
// whether it is required.
func (s *Source) readable(file string) (string, error) {
	full := filepath.Join(s.dir, file)
	if !filepath.IsLocal(file) {
		return "", fmt.Errorf("the file %s is not inside the project", file)
	}
	info, err := s.root.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return full, nil
	case err != nil:
		return "", fmt.Errorf("the file %s is not inside the project", file)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file", file)
	case info.Size() > composeFileLimit:
		return "", fmt.Errorf("the file %s is larger than %d kB", file, composeFileLimit>>10)
	}
	return full, nil
}

// projectEnvironment is the project's own .env file: the only variables that may be used.
func projectEnvironment(src *Source) (types.Mapping, error) {
	if !src.has(".env") {
		return types.Mapping{}, nil
	}
	data, err := src.readFile(".env", composeFileLimit)
	if err != nil {
		return nil, err
	}
	nothing := func(string) (string, bool) { return "", false }
	env, err := dotenv.ParseWithLookup(strings.NewReader(string(data)), nothing)
	if err != nil {
		return nil, fmt.Errorf("read .env: %w", err)
	}
	return env, nil
}

// fence claims the files that a compose file must not name, in order to refuse them. All
// others are left to the loader's own reading from the project's folder.
type fence struct{ src *Source }

// Accept claims paths outside of the project, remote ones and overlong files.
func (f fence) Accept(file string) bool { return f.refusal(file) != nil }

// Load refuses.
func (f fence) Load(_ context.Context, file string) (string, error) { return "", f.refusal(file) }

// Dir is never reached: Load has refused before.
func (f fence) Dir(string) string { return f.src.dir }

var yamlName = regexp.MustCompile(`\.(ya?ml|json)$`)

var remote = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*:|^git@`)

func (f fence) refusal(file string) error {
	if remote.MatchString(file) || !filepath.IsLocal(file) && file != "" {
		return fmt.Errorf("the file %s is not inside the project", file)
	}
	if f.isFile(file) && !yamlName.MatchString(file) {
		return fmt.Errorf("the file %s is not named *.yml or *.yaml", file)
	}
	// The path may be relative to another folder: look at all that it could be.
	base := path.Base(filepath.ToSlash(file))
	for _, name := range f.src.names() {
		if path.Base(name) != base || !yamlName.MatchString(base) || !f.isFile(name) {
			continue
		}
		content, err := f.src.readFile(name, composeFileLimit)
		if err != nil {
			return err
		}
		if err := checkYAML(name, content); err != nil {
			return err
		}
	}
	return nil
}

// isFile follows links.
func (f fence) isFile(name string) bool {
	info, err := f.src.root.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// normalise turns what the loader understood into what devices read, and refuses by name
// what they could not honour.
func normalise(r reading, src *Source) (*project, error) {
	p := r.project
	if len(p.Services) == 0 {
		return nil, errors.New("the compose file has no services")
	}
	if len(p.Services) > serviceLimit {
		return nil, fmt.Errorf("the compose file has %d services; %d is the limit", len(p.Services), serviceLimit)
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write composition: %w", err)
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("write composition: %w", err)
	}
	n := &normaliser{src: src, out: &project{composition: doc}}
	if err := n.topLevel(doc, p); err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(p.Services) {
		s := p.Services[name]
		fields := child(child(doc, "services"), name)
		for key, zero := range r.zeros[name] {
			if fields[key] == nil {
				fields[key] = zero
			}
		}
		if err := n.service(name, &s, fields); err != nil {
			return nil, err
		}
	}
	return n.out, nil
}

func notAllowed(service, field string) error {
	return fmt.Errorf("service %s: service.%s is not allowed", service, field)
}

func child(doc map[string]any, key string) map[string]any {
	m, _ := doc[key].(map[string]any)
	return m
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// folder is the clean path of a folder that the compose file names.
func (s *Source) folder(name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("%s is not inside the project", name)
	}
	if _, err := s.root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s is not inside the project", name)
	}
	return path.Clean(name), nil
}
