package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"

	"deckhand/state"
)

// maxFile is the largest compose file, in bytes.
const maxFile = 1 << 20

// LoadFile is Load for a compose file in YAML. Variables in it come from
// o.LookupEnv first and from the file .env beside it second; o.Release does not
// apply.
func LoadFile(ctx context.Context, path string, o Options) (Project, []Problem, error) {
	content, err := readFile(path)
	if err != nil {
		return Project{}, nil, state.Classify(state.ClassInvalid, fmt.Errorf("compose file: %w", err))
	}
	env, err := dotEnv(filepath.Join(filepath.Dir(path), ".env"), o.LookupEnv)
	if err != nil {
		return Project{}, nil, state.Classify(state.ClassInvalid, err)
	}
	o.LookupEnv, o.Folder = env, filepath.Dir(path)
	p, problems, err := loadYAML(ctx, content, o)
	if err != nil {
		return Project{}, nil, state.Classify(state.ClassInvalid, fmt.Errorf("%s: %w", path, err))
	}
	return p, problems, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return content, nil
}

// dotEnv adds the variables of a .env file, if there is one, beneath first.
func dotEnv(path string, first func(string) (string, bool)) (func(string) (string, bool), error) {
	if first == nil {
		first = func(string) (string, bool) { return "", false }
	}
	content, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return first, nil
	}
	if err != nil {
		return nil, err
	}
	vars, err := dotenv.UnmarshalBytesWithLookup(content, first)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func(name string) (string, bool) {
		if v, ok := first(name); ok {
			return v, true
		}
		v, ok := vars[name]
		return v, ok
	}, nil
}

// loadYAML loads the content of a compose file.
func loadYAML(ctx context.Context, content []byte, o Options) (Project, []Problem, error) {
	if o.LookupEnv == nil {
		o.LookupEnv = func(string) (string, bool) { return "", false }
	}
	doc, err := parse(content)
	if err != nil {
		return Project{}, nil, err
	}
	var n notes
	doc, err = interpolate(&n, doc, o.LookupEnv)
	if err != nil {
		return Project{}, nil, withoutValue(err)
	}
	withProfiles(&n, doc, o.Profiles)
	o.Release = false
	p, problems, err := Load(ctx, o, doc)
	if err != nil {
		return Project{}, nil, err
	}
	return p, tidy(append(problems, n.list...)), nil
}

// parse decodes one YAML document whose keys are text.
func parse(content []byte) (map[string]any, error) {
	d := yaml.NewDecoder(bytes.NewReader(content))
	var raw any
	if err := d.Decode(&raw); errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty")
	} else if err != nil {
		return nil, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("want one YAML document; there is more after its end")
	}
	v, err := textKeys("", raw)
	if err != nil {
		return nil, err
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("want a mapping with services, got %s", kind(v))
	}
	return doc, nil
}

// textKeys writes keys that YAML read as numbers or truth values as text.
func textKeys(path string, v any) (any, error) {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			var err error
			if x[k], err = textKeys(join(path, k), e); err != nil {
				return nil, err
			}
		}
	case map[any]any:
		m := make(map[string]any, len(x))
		for k, e := range x {
			name, ok := scalar(k)
			if !ok {
				return nil, fmt.Errorf("%s: a key must be text, got %s", path, kind(k))
			}
			var err error
			if m[name], err = textKeys(join(path, name), e); err != nil {
				return nil, err
			}
		}
		return m, nil
	case []any:
		for i, e := range x {
			var err error
			if x[i], err = textKeys(path, e); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// interpolate replaces variables and names those that are not set.
func interpolate(n *notes, doc map[string]any, lookup func(string) (string, bool)) (out map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("variables cannot be read: %v", r)
		}
	}()
	missing := map[string]bool{}
	out, err = interpolation.Interpolate(doc, interpolation.Options{
		LookupValue: lookup,
		Substitute: func(text string, m template.Mapping) (string, error) {
			if !strings.Contains(text, "$") {
				return text, nil
			}
			for name, v := range template.ExtractVariables(map[string]any{"": text}, nil) {
				_, set := lookup(name)
				optional := v.DefaultValue != "" || v.PresenceValue != "" || v.Required ||
					strings.Contains(text, "{"+name+"-") || strings.Contains(text, "{"+name+":-")
				if !set && !optional {
					missing[name] = true
				}
			}
			return template.SubstituteWithOptions(text, m, template.WithoutLogging)
		},
	})
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		n.warn("${"+clip(name)+"}", "the variable is not set; it is replaced by nothing")
	}
	return out, err
}

// withoutValue leaves the text that cannot be read out of the message about it:
// it may hold a secret.
func withoutValue(err error) error {
	if _, ok := errors.AsType[*template.InvalidTemplateError](err); ok {
		where, _, _ := strings.Cut(err.Error(), "\n")
		return errors.New(strings.TrimSuffix(where, ".") + "; write $$ for a $")
	}
	return err
}

// withProfiles leaves out services of profiles that are not asked for.
func withProfiles(n *notes, doc map[string]any, wanted []string) {
	services, _ := doc["services"].(map[string]any)
	for name, v := range services {
		service, _ := v.(map[string]any)
		profiles, _ := service["profiles"].([]any)
		if len(profiles) == 0 {
			continue
		}
		if !slices.ContainsFunc(profiles, func(p any) bool {
			t, _ := p.(string)
			return slices.Contains(wanted, t)
		}) {
			n.warn("services."+clip(name), "left out: none of its profiles is asked for")
			delete(services, name)
			continue
		}
		delete(service, "profiles")
	}
}
