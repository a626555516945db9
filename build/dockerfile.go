package build

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// How a service's Dockerfile was found, as the image row names it.
const (
	plainDockerfile    = "Standard Dockerfile"
	templateDockerfile = "Dockerfile.template"
	archDockerfile     = "Architecture-specific Dockerfile"
	externalService    = "external service"
)

const dockerfileLimit = 1 << 20

// machine is what a build is for.
type machine struct {
	deviceType, arch string // slugs
}

// recipe is a service's Dockerfile, ready for the engine.
type recipe struct {
	kind    string
	name    string   // canonical name in the context
	text    string   // after substitution
	changed bool     // text is not what the context holds under name
	without []string // members that must not reach the engine
}

// findDockerfile chooses among the files of a context: one for the device type beats one
// for the architecture, that beats a template, that beats the plain file, although the
// compose file names the plain one.
func findDockerfile(src *Source, svc Service, m machine, vars map[string]string) (recipe, error) {
	asked := svc.dockerfile
	wanted := asked
	if wanted == "" {
		wanted = "Dockerfile"
	}
	wanted = path.Clean(wanted)
	files := src.inContext(svc.context)
	best, rank := "", 0
	r := recipe{name: wanted}
	for _, name := range sortedKeys(files) {
		if !src.has(files[name]) {
			continue
		}
		kind, score := match(name, wanted, m)
		if score > rank {
			best, rank, r.kind = name, score, kind
		}
	}
	if rank == 0 {
		return recipe{}, missingDockerfile(svc.Name, asked, files)
	}
	text, err := src.readFile(files[best], dockerfileLimit)
	if err != nil {
		return recipe{}, fmt.Errorf("service %s: %w", svc.Name, err)
	}
	r.text = string(text)
	if r.kind == plainDockerfile {
		return r, nil
	}
	if best == wanted { // the compose file names the template itself
		r.name = strings.TrimSuffix(best, path.Ext(best))
	}
	if r.text, err = substitute(r.text, vars); err != nil {
		return recipe{}, fmt.Errorf("service %s: %s: %w", svc.Name, best, err)
	}
	r.changed = true
	r.without = []string{"Dockerfile", wanted}
	return r, nil
}

// match says by which rule a file is the wanted Dockerfile, and how strongly.
func match(name, wanted string, m machine) (kind string, score int) {
	ext := strings.TrimPrefix(path.Ext(name), ".")
	named := name == wanted || strings.TrimSuffix(name, path.Ext(name)) == wanted
	switch {
	case named && ext != "" && ext == m.deviceType:
		return archDockerfile, 4
	case named && ext != "" && ext == m.arch:
		return archDockerfile, 3
	case named && ext == "template":
		return templateDockerfile, 2
	case name == wanted:
		return plainDockerfile, 1
	}
	return "", 0
}

func missingDockerfile(service, asked string, files map[string]string) error {
	prefix := "Could not detect project type: Service " + service + ": "
	if asked != "" && asked != "Dockerfile" {
		return fmt.Errorf("%sSpecified file not found or is invalid: %s", prefix, asked)
	}
	if _, ok := files["package.json"]; ok {
		return fmt.Errorf("%sa package.json alone is not enough; add a Dockerfile", prefix)
	}
	return fmt.Errorf("%sCould not find a Dockerfile for this service", prefix)
}

// templateVars are the variables a template may use.
func templateVars(m machine, fleet, service, commit string) map[string]string {
	return map[string]string{
		"BALENA_ARCH":         m.arch,
		"RESIN_ARCH":          m.arch,
		"BALENA_MACHINE_NAME": m.deviceType,
		"RESIN_MACHINE_NAME":  m.deviceType,
		"BALENA_SERVICE_NAME": service,
		"BALENA_APP_NAME":     fleet,
		"BALENA_RELEASE_HASH": commit,
	}
}

var templateVar = regexp.MustCompile(`%%[A-Z][A-Z_]+%%`)

// substitute fills in template variables, leaving comments alone.
func substitute(text string, vars map[string]string) (string, error) {
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, v := range templateVar.FindAllString(line, -1) {
			value, ok := vars[strings.Trim(v, "%")]
			if !ok {
				return "", fmt.Errorf("line %d: the variable %s is not known", i+1, v)
			}
			line = strings.Replace(line, v, value, 1)
		}
		lines[i] = line
	}
	return strings.Join(lines, ""), nil
}
