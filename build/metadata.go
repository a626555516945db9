package build

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/registry"
	"go.yaml.in/yaml/v4"
)

// metadata is what a project says about its build beside the composition.
type metadata struct {
	semver     string // of the release contract; "" when there is none
	registries map[string]registry.AuthConfig
	variables  map[string]string            // build arguments for all services
	perService map[string]map[string]string // and for one
	warnings   []string
}

// arguments are the extra build arguments of one service.
func (m metadata) arguments(service string) map[string]string {
	args := map[string]string{}
	for _, from := range []map[string]string{m.variables, m.perService[service]} {
		for name, value := range from {
			args[name] = value
		}
	}
	return args
}

// readMetadata reads the release contract and the folder .balena.
func readMetadata(src *Source) (metadata, error) {
	m := metadata{registries: map[string]registry.AuthConfig{}}
	if err := m.readContract(src); err != nil {
		return m, err
	}
	dir, err := metadataFolder(src)
	if err != nil || dir == "" {
		return m, err
	}
	if err := m.readVariables(src, dir); err != nil {
		return m, err
	}
	return m, m.readSecrets(src, dir)
}

func metadataFolder(src *Source) (string, error) {
	var found []string
	for _, dir := range []string{".balena", ".resin"} {
		if slices.ContainsFunc(src.names(), func(name string) bool { return strings.HasPrefix(name, dir+"/") }) {
			found = append(found, dir)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", errors.New("the project has both a .balena and a .resin folder; keep one")
}

// readContract takes the version from the project's own balena.yml.
func (m *metadata) readContract(src *Source) error {
	if !src.has("balena.yml") {
		return nil
	}
	var contract struct {
		Type    string `yaml:"type"`
		Version string `yaml:"version"`
	}
	if err := readYAML(src, "balena.yml", &contract); err != nil {
		return err
	}
	if contract.Type != "sw.application" && contract.Type != "sw.block" {
		return fmt.Errorf("balena.yml: the type is %q; it must be sw.application or sw.block", contract.Type)
	}
	m.semver = contract.Version
	return nil
}

func readYAML(src *Source, name string, into any) error {
	data, err := src.readFile(name, composeFileLimit)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// readVariables reads build variables. Build secrets are refused: without a way to give
// them to a RUN step they would end in a layer.
func (m *metadata) readVariables(src *Source, dir string) error {
	var file string
	for _, name := range []string{"balena.yml", "balena.yaml", "balena.json", "resin.yml", "resin.yaml", "resin.json"} {
		if !src.has(dir + "/" + name) {
			continue
		}
		if file != "" {
			return fmt.Errorf("the project has both %s and %s/%s; keep one", file, dir, name)
		}
		file = dir + "/" + name
	}
	if file == "" {
		return nil
	}
	var doc struct {
		Variables struct {
			Global   any            `yaml:"global"`
			Services map[string]any `yaml:"services"`
		} `yaml:"build-variables"`
		Secrets any `yaml:"build-secrets"`
	}
	if err := readYAML(src, file, &doc); err != nil {
		return err
	}
	if doc.Secrets != nil {
		return fmt.Errorf("%s: build-secrets are not supported by this builder", file)
	}
	var err error
	if m.variables, err = variableList(doc.Variables.Global); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	m.perService = map[string]map[string]string{}
	for _, service := range sortedKeys(doc.Variables.Services) {
		if m.perService[service], err = variableList(doc.Variables.Services[service]); err != nil {
			return fmt.Errorf("%s: service %s: %w", file, service, err)
		}
	}
	return nil
}

// variableList reads both spellings of a list of variables.
func variableList(v any) (map[string]string, error) {
	out := map[string]string{}
	switch v := v.(type) {
	case nil:
	case map[string]any:
		for _, name := range sortedKeys(v) {
			text, ok := v[name].(string)
			if !ok {
				return nil, fmt.Errorf("the build variable %s is not a text; put it in quotes", name)
			}
			out[name] = text
		}
	case []any:
		for _, item := range v {
			text, _ := item.(string)
			name, value, ok := strings.Cut(text, "=")
			if !ok || name == "" || value == "" {
				return nil, fmt.Errorf("the build variable %v is not of the form NAME=value", item)
			}
			out[name] = value
		}
	default:
		return nil, errors.New("build variables are a map or a list")
	}
	return out, nil
}

const hubRegistry = "https://index.docker.io/v1/"

// readSecrets reads the credentials of other registries.
func (m *metadata) readSecrets(src *Source, dir string) error {
	for _, name := range []string{"registry-secrets.json", "registry-secrets.yml", "registry-secrets.yaml"} {
		file := dir + "/" + name
		if !src.has(file) {
			continue
		}
		var doc map[string]struct {
			Username string `yaml:"username"`
			Password string `yaml:"password"`
		}
		if err := readYAML(src, file, &doc); err != nil {
			return fmt.Errorf("%s cannot be read; it maps registries to username and password", file) // the text may hold a password
		}
		clear(m.registries)
		for host, secret := range doc {
			m.registries[host] = registry.AuthConfig{Username: secret.Username, Password: secret.Password, ServerAddress: host}
			switch host {
			case "", "docker.io", "index.docker.io", "hub.docker.com", "registry-1.docker.io", hubRegistry:
				hub := registry.AuthConfig{Username: secret.Username, Password: secret.Password, ServerAddress: hubRegistry}
				m.registries[hubRegistry], m.registries["docker.io"] = hub, hub
			}
		}
	}
	return nil
}
