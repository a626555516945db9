package compose

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/tree"

	"deckhand/test/golden"
)

// An attribute that the specification gains must be decided on.
func TestEveryAttributeHasARow(t *testing.T) {
	for _, path := range schema.AttributePaths() {
		if !claimed(string(path)) {
			t.Errorf("%s: no row in attributes.go claims this attribute of the specification", path)
		}
	}
}

func claimed(path string) bool {
	n := table
	for part := range strings.SplitSeq(path, ".") {
		next := n.fields[part]
		if n.each != nil && (part == "*" || part == "[]") {
			next = n.each
		}
		if next == nil {
			return n.row != nil && (n.row.Treat != Apply || n.fields == nil && n.each == nil)
		}
		n = next
	}
	return n.row != nil
}

func TestRowsAreComplete(t *testing.T) {
	known := schema.AttributePaths()
	seen := map[string]bool{}
	for _, a := range Attributes {
		switch {
		case seen[a.Path]:
			t.Errorf("%s: two rows", a.Path)
		case a.Treat == Apply && a.form == nil:
			t.Errorf("%s: applied without a form that checks it", a.Path)
		case a.Treat != Apply && a.Why == "":
			t.Errorf("%s: no reason", a.Path)
		case a.Treat != Apply && a.Class != "":
			t.Errorf("%s: a class, but not applied", a.Path)
		}
		seen[a.Path] = true
		if !a.Beyond && !strings.HasSuffix(a.Path, "[]") && !slices.ContainsFunc(known, func(p tree.Path) bool { return string(p) == a.Path }) {
			t.Errorf("%s: not an attribute of the specification", a.Path)
		}
	}
}

func TestDocsAreCurrent(t *testing.T) {
	golden.File(t, "../docs/compose.md", markdown())
}

func markdown() string {
	var b strings.Builder
	b.WriteString(`# Compose attributes

Written by ` + "`go test ./compose -update`" + ` from the table in compose/attributes.go; do not edit.

Every attribute of the compose specification is applied, ignored or rejected. What is
not applied is reported by name: in the log and the release's status on a device, and
on the terminal by ` + "`deckhand apply`" + `. One rejected attribute rejects the release of its app;
the app's last good release keeps running. A row that is not applied speaks for the attributes beneath it.

The last column says what a change does to a running service. **replace**: a new
container (network, volume) is made. **in place**: the engine changes the running
container. **metadata**: nothing on the engine is touched. **injected**: takes effect
when the container is next made.

`)
	for _, part := range []struct{ title, prefix string }{
		{"Document", ""}, {"Services", "services.*."}, {"Networks", "networks.*."}, {"Volumes", "volumes.*."},
		{"Secrets", "secrets.*."}, {"Configs", "configs.*."},
	} {
		fmt.Fprintf(&b, "## %s\n\n| attribute | treatment | change |\n| --- | --- | --- |\n", part.title)
		for _, a := range Attributes {
			name, ok := strings.CutPrefix(a.Path, part.prefix)
			if ok && !(part.prefix == "" && strings.Contains(name, ".")) && !(a.Class == "" && a.Treat == Apply) {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, treatment(&a), a.Class)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString(sharing)
	b.WriteString(`## Labels

Names that begin with io.resin. are read as io.balena. Every other label is put on the container as it is.
A feature is on with 1, true or on. What the device lacks is left out and named in its log.
Labels that are baked into an image give it nothing: those of the release count.

| label | treatment | change |
| --- | --- | --- |
`)
	for _, l := range Labels {
		change := "metadata"
		if l.Keep {
			change = "replace"
		}
		fmt.Fprintf(&b, "| `%s` | %s: %s | %s |\n", l.Name, l.Treat, l.Why, change)
	}
	b.WriteString(variables)
	b.WriteString(`
## Defaults

| attribute | default |
| --- | --- |
| restart | always |
| ipc | shareable |
| tty | true in a release, false in a compose file |
| stop_grace_period | 10s; parts of a second are rounded up |
| shm_size | 64m |
| networks | default, which exists exactly when a service uses it |
| ports without a host port | the same number in a release, one of the engine's choice in a compose file |
| healthcheck | the image's |
| logging | the engine's; json-file where only options are given |
| gpus and reservations.devices without count and device_ids | all devices |
| file of a secret | /run/secrets/NAME; a target without / at its beginning goes there too |
| file of a config | /NAME; a target without / at its beginning goes there too |
| uid, gid and mode of these files | 0, 0 and 0444 |
| main network | the one of highest priority, then the first by name |
`)
	return b.String()
}

// treatment is the second column of the table of attributes.
func treatment(a *Attribute) string {
	text := string(a.Treat)
	if why := a.why(); why != "" {
		text += ": " + why
	}
	if a.Beyond {
		text += "; not in the compose specification"
	}
	if a.InFile != "" {
		text += " (" + string(a.InFile) + " in a compose file)"
	}
	return text
}

const sharing = `## What is shared

**Networks and volumes** with ` + "`external: true`" + ` are not the app's: they are taken as they are, under the
name in ` + "`name`" + ` or else their own, and never made, changed or removed. All others belong to the app.

**` + "`network_mode: service:NAME`" + `** uses the network of another service of the app, which starts first.
The service then has no hostname, mac_address, extra_hosts, dns, ports, expose or networks of its own.
` + "`container:NAME`" + ` does so with a container that is not the app's.

**` + "`volumes_from`" + `** mounts the named volumes of another service at the same places.

**Secrets and configs** are read-only files that are kept in memory on the device. Their content is in the
document (` + "`content`" + `) or in a variable (` + "`environment`" + `): on a device one of the service's own variables, for
` + "`deckhand apply`" + ` one of the shell or of .env. With ` + "`deckhand apply`" + ` it may also be in a file beside the compose file.
Contents are in no label, log or plan. A change of one replaces the services that use it.

`

const variables = `
## Variables

Each service gets these variables. Those of the image are beneath them, those of the release and the device above.
Each name that begins with BALENA also exists with RESIN.

| variable | value |
| --- | --- |
| BALENA | 1 |
| BALENA_APP_ID, BALENA_APP_UUID, BALENA_APP_NAME | the app's |
| BALENA_SERVICE_NAME | the service's |
| BALENA_DEVICE_UUID, BALENA_DEVICE_TYPE, BALENA_DEVICE_ARCH | the device's |
| BALENA_DEVICE_NAME_AT_INIT | the device's name when the container was made |
| BALENA_HOST_OS_VERSION | the host's |
| BALENA_APP_LOCK_PATH | /tmp/balena/updates.lock |
| BALENA_SERVICE_HANDOVER_COMPLETE_PATH, RESIN_SERVICE_KILL_ME_PATH | /tmp/balena/handover-complete |
| USER | root |
| BALENA_API_KEY, BALENA_API_URL | with the feature balena-api |
| BALENA_SUPERVISOR_ADDRESS, BALENA_SUPERVISOR_HOST, BALENA_SUPERVISOR_PORT, BALENA_SUPERVISOR_API_KEY | with the feature supervisor-api |
| BALENA_HOST_OS_BOARD_REV, BALENA_HOST_OS_BUILD | with the feature host-os.board-rev |
| DOCKER_HOST | with the feature balena-socket |
`
