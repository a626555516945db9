package build

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/test/golden"
)

func loaded(t *testing.T, files map[string]string) (*project, error) {
	t.Helper()
	return loadProject(t.Context(), sources(t, files), "")
}

func TestNormalisedComposition(t *testing.T) {
	files, err := filepath.Glob("testdata/compose/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := loaded(t, map[string]string{
			"docker-compose.yml": string(text), ".env": "TAG=7\n", "web/app.env": "FROM_FILE=yes\nSHARED=file\n", "base.yml": "services:\n  base: {image: base, environment: {BASE: one}}\n",
		})
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		got, err := json.MarshalIndent(map[string]any{"composition": p.composition, "warnings": p.warnings}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden.File(t, strings.TrimSuffix(file, ".yml")+".json", string(got)+"\n")
	}
}

func TestRefusedCompositions(t *testing.T) {
	service := func(fields string) string { return "services:\n  web:\n    image: x\n" + fields }
	for what, c := range map[string]struct{ compose, want string }{
		"unknown key":         {service("    nonsense: 1\n"), "nonsense"},
		"logging":             {service("    logging: {driver: syslog}\n"), "devices cannot run this: services.web.logging.driver: syslog"},
		"scale":               {service("    scale: 2\n"), "service.scale is not allowed"},
		"isolation":           {service("    isolation: hyperv\n"), "service.isolation is not allowed"},
		"another's processes": {service("    pid: service:db\n  db: {image: y}\n"), "devices cannot run this: services.web.pid"},
		"a profile in a file": {service("    security_opt: [seccomp=profile.json]\n"), "security_opt seccomp=profile.json is not allowed"},
		"host path":           {service("    volumes: [/etc:/etc]\n"), "host path /etc is not allowed"},
		"relative host path":  {service("    volumes: [./x:/x]\n"), "is not allowed as a volume"},
		"half of the journal": {service("    volumes: [/var/log/journal:/var/log/journal]\n"), "only available together"},
		"secret in a file":    {service("") + "secrets:\n  s: {file: ./x}\n", "secrets.s.file: a release has no files beside it"},
		"config in a file":    {service("") + "configs:\n  s: {file: ./x}\n", "configs.s.file: a release has no files beside it"},
		"secret elsewhere":    {service("") + "secrets:\n  s: {external: true}\n", "secrets.s.external: there is no store"},
		"secret in two ways":  {service("") + "secrets:\n  s: {content: x, environment: Y}\n", "content"},
		"part of a volume":    {service("    volumes: [{type: volume, source: v, target: /v, volume: {subpath: a}}]\n") + "volumes: {v: {}}\n", "volume.subpath: the whole volume"},
		"external host":       {service("") + "networks:\n  n: {external: true, name: host}\n", "use network_mode: host"},
		"network driver":      {service("") + "networks:\n  n: {driver: overlay}\n", "networks.n.driver"},
		"include":             {service("") + "include: [other.yml]\n", "include is not allowed"},
		"extends outside":     {"services:\n  web: {extends: {file: ../x.yml, service: y}}\n", "not inside the project"},
		"extends absolute":    {"services:\n  web: {extends: {file: /etc/passwd, service: y}}\n", "not inside the project"},
		"extends remote":      {"services:\n  web: {extends: {file: 'https://x/y.yml', service: y}}\n", "not inside the project"},
		"env_file outside":    {service("    env_file: /etc/passwd\n"), "not inside the project"},
		"env_file above":      {service("    env_file: ../../etc/passwd\n"), "not inside the project"},
		"label_file outside":  {service("    label_file: /etc/passwd\n"), "not inside the project"},
		"context outside":     {"services:\n  web: {build: ../other}\n", "not inside the project"},
		"remote context":      {"services:\n  web: {build: 'https://github.com/a/b.git'}\n", "is remote"},
		"dockerfile outside":  {"services:\n  web: {build: {context: ., dockerfile: ../Dockerfile}}\n", "not inside"},
		"build secrets":       {"services:\n  web: {build: {context: ., secrets: [s]}}\nsecrets: {s: {file: ./x}}\n", "is not allowed"},
		"build ssh":           {"services:\n  web: {build: {context: ., ssh: [default]}}\n", "build.ssh is not allowed"},
		"not for devices":     {service("    mem_limit: 1\n    tmpfs: [relative]\n"), "devices cannot run this"},
		"an alias in itself":  {"services:\n  a: &a\n    <<: *a\n", "the anchor a contains itself"},
		"extends no yaml":     {"services:\n  web: {extends: {file: docker-compose.txt, service: y}}\n", "not named *.yml"},
		"extends itself":      {"services: {web: {extends: web}}\n", "ircular"},
		"no services":         {"services: {}\n", "no services"},
		"not yaml":            {"services: [", "docker-compose.yml"},
		"version 1":           {"web:\n  image: x\n", "docker-compose.yml"},
		"unknown dependency":  {service("    depends_on: [nobody]\n"), "nobody"},
		"too large":           {"# " + strings.Repeat("x", 2<<20), "larger than"},
		"a bomb of aliases": {"services: {}\n" + "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", ""},
	} {
		p, err := loaded(t, map[string]string{"docker-compose.yml": c.compose, "docker-compose.txt": "x"})
		if err == nil {
			t.Errorf("%s: accepted as %v", what, p.composition)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want something with %q", what, err, c.want)
		} else if strings.Contains(err.Error(), os.TempDir()) {
			t.Errorf("%s: the error names a folder of this machine: %v", what, err)
		}
	}
}

func TestTheBuildersEnvironmentStaysHidden(t *testing.T) {
	t.Setenv("DECKHAND_TEST_SECRET", "leaked")
	p, err := loaded(t, map[string]string{
		"docker-compose.yml": "services:\n  web:\n    image: x\n    environment: [DECKHAND_TEST_SECRET, 'B=${DECKHAND_TEST_SECRET}']\n    env_file: app.env\n",
		"app.env":            "C=${DECKHAND_TEST_SECRET}\nDECKHAND_TEST_SECRET\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p.composition)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "leaked") {
		t.Errorf("the builder's environment is in the composition: %s", text)
	}
}

func TestWhichDockerfile(t *testing.T) {
	m := machine{deviceType: "raspberrypi4-64", arch: "aarch64"}
	vars := templateVars(m, "fleet", "web", "abc")
	for what, c := range map[string]struct {
		files, asked string
		want         string // kind and canonical name, or part of the error
	}{
		"plain":                     {"Dockerfile", "", "Standard Dockerfile as Dockerfile"},
		"template beats plain":      {"Dockerfile Dockerfile.template", "Dockerfile", "Dockerfile.template as Dockerfile"},
		"arch beats template":       {"Dockerfile.template Dockerfile.aarch64", "Dockerfile", "Architecture-specific Dockerfile as Dockerfile"},
		"device type beats arch":    {"Dockerfile.aarch64 Dockerfile.raspberrypi4-64", "", "Architecture-specific Dockerfile as Dockerfile"},
		"another arch is no match":  {"Dockerfile.amd64 Dockerfile", "", "Standard Dockerfile as Dockerfile"},
		"nested":                    {"sub/My.Dockerfile Dockerfile", "sub/My.Dockerfile", "Standard Dockerfile as sub/My.Dockerfile"},
		"nested template":           {"sub/My.Dockerfile.template Dockerfile", "sub/My.Dockerfile", "Dockerfile.template as sub/My.Dockerfile"},
		"dotted folder":             {"a.b/Dockerfile.template", "a.b/Dockerfile", "Dockerfile.template as a.b/Dockerfile"},
		"template named by compose": {"Dockerfile.template", "Dockerfile.template", "Dockerfile.template as Dockerfile"},
		"none":                      {"readme", "", "Could not detect project type: Service web: Could not find a Dockerfile for this service"},
		"asked and missing":         {"Dockerfile", "Other", "Service web: Specified file not found or is invalid: Other"},
		"node only":                 {"package.json", "", "add a Dockerfile"},
	} {
		files := map[string]string{}
		for _, f := range strings.Fields(c.files) {
			files[f] = "FROM scratch\n"
		}
		r, err := findDockerfile(sources(t, files), Service{Name: "web", context: ".", dockerfile: c.asked}, m, vars)
		got := r.kind + " as " + r.name
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
}

func TestTemplates(t *testing.T) {
	vars := templateVars(machine{deviceType: "intel-nuc", arch: "amd64"}, "fleet", "web", "abc")
	got, err := substitute("# %%UNKNOWN%%\nFROM x/%%BALENA_MACHINE_NAME%%:%%RESIN_ARCH%%\nLABEL s=%%BALENA_SERVICE_NAME%%\n", vars)
	if want := "# %%UNKNOWN%%\nFROM x/intel-nuc:amd64\nLABEL s=web\n"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if _, err := substitute("FROM scratch\nRUN %%NO_SUCH%%", vars); err == nil || !strings.Contains(err.Error(), "line 2: the variable %%NO_SUCH%% is not known") {
		t.Errorf("unknown variable: %v", err)
	}
}

func TestSingleDockerfileProject(t *testing.T) {
	p, err := loaded(t, map[string]string{"Dockerfile": "FROM scratch"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(p.composition, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/single.json", string(got)+"\n")
}

func TestMetadata(t *testing.T) {
	m, err := readMetadata(sources(t, map[string]string{
		"balena.yml":                    "type: sw.application\nversion: 1.2.3\n",
		".balena/balena.yml":            "build-variables:\n  global: [A=1, B=2]\n  services:\n    web: {B: three}\n",
		".balena/registry-secrets.json": `{"docker.io":{"username":"u","password":"p"}}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	if m.semver != "1.2.3" || m.registries["docker.io"].Password != "p" || m.registries[hubRegistry].Username != "u" {
		t.Errorf("read %+v", m)
	}
	if diff := cmp.Diff(map[string]string{"A": "1", "B": "three"}, m.arguments("web")); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	for what, files := range map[string]map[string]string{
		"two folders":   {".balena/x": "", ".resin/x": ""},
		"two files":     {".balena/balena.yml": "{}", ".balena/balena.json": "{}"},
		"build secrets": {".balena/balena.yml": "build-secrets: {global: [{source: a, dest: b}]}"},
		"bad type":      {"balena.yml": "type: sw.os\n"},
		"bad variable":  {".balena/balena.yml": "build-variables: {global: [A]}"},
	} {
		if _, err := readMetadata(sources(t, files)); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func FuzzProject(f *testing.F) {
	for _, file := range []string{"testdata/compose/full.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), "A=1\n")
	}
	f.Add("services: {a: {build: {context: ., args: [X]}, volumes: [/sys:/sys]}}", "X")
	f.Add("services:\n  a: &a\n    <<: *a\n", "")
	f.Add("services: {a: {extends: a}}", "A=${A}")
	f.Fuzz(func(t *testing.T, compose, env string) {
		p, err := loaded(t, map[string]string{"docker-compose.yml": compose, ".env": env, "web/app.env": "A=1\n", "base.yml": "services: {base: {image: b}}"})
		if err != nil {
			return
		}
		if _, err := json.Marshal(p.composition); err != nil {
			t.Errorf("a composition that cannot be stored: %v", err)
		}
		if len(p.services) == 0 {
			t.Error("a project without services was accepted")
		}
	})
}
