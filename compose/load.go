package compose

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"deckhand/state"
)

// Options say what kind of document is loaded.
type Options struct {
	// Release marks a document from the cloud: tty is on unless switched off,
	// a port without a host port is published under its own number, and
	// attributes may be spelled in camel case, as releases always could.
	Release bool

	// Name is the project's name when the document has none.
	Name string

	// LookupEnv resolves variables of a compose file: os.LookupEnv for the
	// shell of the person who applies it. Nil: there are none.
	LookupEnv func(name string) (value string, ok bool)

	// Profiles are the profiles of a compose file whose services are wanted.
	Profiles []string

	// Folder is where the files of secrets and configs of a compose file are
	// looked for. Empty: they are refused.
	Folder string

	// AnyVariable takes secrets and configs from variables that are not set: a
	// release is looked at before devices give them values.
	AnyVariable bool
}

// Project is a document in canonical form. IDs are not part of it.
type Project struct {
	Name     string                   `json:"name"`
	Services map[string]state.Service `json:"services"`
	Networks map[string]state.Network `json:"networks"`
	Volumes  map[string]state.Volume  `json:"volumes"`
}

// Load turns a decoded document into canonical values. Everything that is not
// applied as written is named in the problems, sorted; when one of them is
// Rejected (see Refusal) the project is not complete and must not be used. The
// error says that nothing could be read at all.
func Load(ctx context.Context, o Options, doc map[string]any) (Project, []Problem, error) {
	if err := ctx.Err(); err != nil {
		return Project{}, nil, err
	}
	if o.LookupEnv == nil {
		o.LookupEnv = func(string) (string, bool) { return "", false }
	}
	s := &screen{file: !o.Release, lookup: o.LookupEnv}
	v, _ := s.value(table, "", doc)
	clean, _ := v.(map[string]any)

	b := &builder{file: s.file, folder: o.Folder, lookup: o.LookupEnv, anyVariable: o.AnyVariable, portsLeft: maxPorts, project: Project{
		Name:     o.Name,
		Services: map[string]state.Service{},
		Networks: map[string]state.Network{},
		Volumes:  map[string]state.Volume{},
	}}
	if name, ok := clean["name"].(string); ok && o.Name == "" {
		b.project.Name = name
	}
	b.take(clean)
	decoded, err := decode(clean)
	if err != nil {
		b.reject("services", err.Error())
	} else {
		b.build(decoded)
	}
	for _, p := range s.stillTrue(b.list, doc, clean) {
		s.add(p.Path, p.Text, p.Kind)
	}
	return b.project, tidy(s.list), nil
}

// stillTrue leaves of what the builder found what does not come from the screen
// having taken something away. The builder looks at a refused document too: its
// owner hears of all that must be mended at once.
func (s *screen) stillTrue(found []Problem, doc, clean map[string]any) []Problem {
	if !s.rejected {
		return found
	}
	for _, section := range []string{"services", "networks", "volumes", "secrets", "configs"} {
		before, _ := doc[section].(map[string]any)
		after, _ := clean[section].(map[string]any)
		if len(before) != len(after) {
			return nil // whatever refers to what is missing would look wrong
		}
	}
	var refused []string
	for _, p := range s.list {
		switch {
		case p.Kind != Rejected:
		case !strings.Contains(p.Path, "."), strings.HasSuffix(p.Path, ".extends"):
			return nil // what stands in another document is missing
		default:
			place, _, _ := strings.Cut(p.Path, "[") // the items after it have moved up
			refused = append(refused, place)
		}
	}
	return slices.DeleteFunc(found, func(p Problem) bool {
		return p.Kind != Rejected || slices.ContainsFunc(refused, func(place string) bool {
			return within(p.Path, place) || within(place, p.Path)
		})
	})
}

// isService reports whether the document has a service of the name, built
// already or not.
func (b *builder) isService(name string) bool {
	_, ok := b.around[name]
	return ok
}

// within says whether a path is another one or beneath it.
func within(path, top string) bool {
	rest, ok := strings.CutPrefix(path, top)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// builder makes canonical values from what compose-go decoded.
type builder struct {
	notes
	file        bool
	folder      string
	lookup      func(string) (string, bool)
	anyVariable bool

	project   Project
	around    map[string]around // by service
	outside   outside
	contents  map[string]map[string]any // secrets and configs, by section and name
	portsLeft int
}

// around is what does not go through compose-go: ports, because it makes an
// object of every port of a range; ulimits, because it holds them in an int that
// has 32 bits on some devices; swappiness, because it cannot tell 0 from
// nothing; secrets and configs, because its errors show what it cannot read.
type around struct {
	ports, ulimits, swappiness any
	files                      map[string]any // by section
}

// take removes from a screened document what goes around compose-go, and sets
// what releases have by default.
func (b *builder) take(doc map[string]any) {
	services, _ := doc["services"].(map[string]any)
	b.around = make(map[string]around, len(services))
	for name, v := range services {
		service, _ := v.(map[string]any)
		b.around[name] = around{
			ports: service["ports"], ulimits: service["ulimits"], swappiness: service["mem_swappiness"],
			files: map[string]any{"secrets": service["secrets"], "configs": service["configs"]},
		}
		if _, set := service["tty"]; !set && !b.file && service != nil {
			service["tty"] = true
		}
		for _, attribute := range []string{"ports", "ulimits", "mem_swappiness", "secrets", "configs"} {
			delete(service, attribute)
		}
	}
	b.outside = outside{networks: takeExternal(doc["networks"]), volumes: takeExternal(doc["volumes"])}
	b.contents = map[string]map[string]any{}
	for _, k := range fileKinds() {
		b.contents[k.section], _ = doc[k.section].(map[string]any)
		delete(doc, k.section)
	}
}

// decode binds a screened document to compose-go's types. The loader's other
// passes (short forms, merging, validation) look at every value about a hundred
// times; the screen has done their work in one. Should the library all the same
// give up on a value, the document is refused and the process goes on.
func decode(doc map[string]any) (p *types.Project, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be read as a compose document: %v", r)
		}
	}()
	p = &types.Project{}
	if err := loader.Transform(doc, p); err != nil {
		return nil, fmt.Errorf("cannot be read as a compose document: %w", err)
	}
	return p, nil
}

func (b *builder) build(p *types.Project) {
	b.reserved()
	b.declarations()
	for _, name := range slices.Sorted(maps.Keys(p.Networks)) {
		b.network(name, p.Networks[name])
	}
	for _, name := range slices.Sorted(maps.Keys(p.Volumes)) {
		v := p.Volumes[name]
		b.volume(name, &v)
	}
	names := slices.Sorted(maps.Keys(p.Services))
	for _, name := range names {
		c := p.Services[name]
		b.service(name, &c)
	}
	b.inherit(names, p.Services)
	b.dependencies(names, p.Services)
	b.portClashes(names)
	for name, s := range b.project.Services {
		s.Hash = s.Spec.Hash()
		b.project.Services[name] = s
	}
}
