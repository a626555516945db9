package engine

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"deckhand/state"
)

// Features is what the device has for a service whose labels ask for it. What is
// empty is left out of the container, and the log says so.
type Features struct {
	EngineSocket string // path of the engine's socket on the host

	APIKey string // the device's own, for the cloud
	APIURL string // of the cloud

	SupervisorKey  string // of this service, for the supervisor's API
	SupervisorPort int    // of the supervisor's API

	BoardRev string // revision of the board's support, from the host's os-release
}

// granted is what features add to a container.
type granted struct {
	env      map[string]string
	binds    []string
	mounts   []mount.Mount
	requests []container.DeviceRequest
	missing  []string // what was asked for and is not there, for people

	in    surroundings
	taken map[string]bool // paths in the container at which something is mounted
}

// grant gives a container what its features stand for.
func grant(spec state.Spec, in surroundings) granted {
	g := granted{env: map[string]string{}, in: in, taken: mountTargets(spec)}
	f := in.features
	for _, name := range spec.Features {
		switch name {
		case "journal-logs":
			g.bind(name, "/var/log/journal", "/var/log/journal", "ro")
			g.bind(name, "/run/log/journal", "/run/log/journal", "ro")
			g.bind(name, "/etc/machine-id", "/etc/machine-id", "ro")
		case "dbus":
			g.bind(name, "/run/dbus", "/host/run/dbus", "")
		case "kernel-modules":
			g.bind(name, "/lib/modules", "/lib/modules", "")
		case "firmware":
			g.bind(name, "/lib/firmware", "/lib/firmware", "")
		case "sysfs":
			g.bind(name, "/sys", "/sys", "")
		case "procfs":
			g.bind(name, "/proc", "/proc", "")
		case "balena-socket":
			g.socket(name, f.EngineSocket)
		case "balena-api":
			g.both(name, "_API_KEY", f.APIKey)
			g.both(name, "_API_URL", f.APIURL)
		case state.FeatureAPI:
			g.supervisor(name, spec.NetworkMode)
		case "gpu":
			g.requests = append(g.requests, container.DeviceRequest{Count: 1, Capabilities: [][]string{{"gpu"}}})
		case "host-os.board-rev":
			g.both(name, "_HOST_OS_BOARD_REV", f.BoardRev)
			g.both(name, "_HOST_OS_BUILD", f.BoardRev)
		case "extra-firmware":
			g.mount(name, mount.Mount{Type: mount.TypeVolume, Source: "extra-firmware", Target: "/extra-firmware"})
		default:
			g.missing = append(g.missing, name+": not known to this version")
		}
	}
	return g
}

// mountTargets are the paths at which a service itself has something mounted.
func mountTargets(spec state.Spec) map[string]bool {
	taken := map[string]bool{}
	for _, m := range spec.Mounts {
		taken[m.Target] = true
	}
	for _, f := range spec.Files {
		taken[f.Target] = true
	}
	for target := range spec.Tmpfs {
		taken[target] = true
	}
	return taken
}

// free takes a path in the container; what the service mounts there itself
// counts.
func (g *granted) free(feature, target string) bool {
	if g.taken[target] {
		g.missing = append(g.missing, feature+": the service mounts something of its own at "+target)
		return false
	}
	g.taken[target] = true
	return true
}

// bind mounts a path of the host. One that does not exist is left out: the
// engine would make a folder of the name on the host.
func (g *granted) bind(feature, source, target, mode string) {
	switch {
	case g.in.exists != nil && !g.in.exists(source):
		g.missing = append(g.missing, feature+": the host has no "+source)
	case g.free(feature, target):
		b := source + ":" + target
		if mode != "" {
			b += ":" + mode
		}
		g.binds = append(g.binds, b)
	}
}

func (g *granted) mount(feature string, m mount.Mount) {
	if g.free(feature, m.Target) {
		g.mounts = append(g.mounts, m)
	}
}

// both sets a variable under its present and its older name.
func (g *granted) both(feature, suffix, value string) {
	if value == "" {
		g.missing = append(g.missing, feature+": the device has no value for BALENA"+suffix)
		return
	}
	g.env["BALENA"+suffix], g.env["RESIN"+suffix] = value, value
}

// socket mounts the engine's socket where programs look for it.
func (g *granted) socket(feature, host string) {
	const first, usual = "/host/run/balena-engine.sock", "/var/run/balena.sock"
	if host == "" {
		g.missing = append(g.missing, feature+": the path of the engine's socket is not known")
		return
	}
	targets := []string{first}
	for _, t := range []string{path.Clean(host), usual} {
		if t != targets[len(targets)-1] && t != first {
			targets = append(targets, t)
		}
	}
	for _, t := range targets {
		g.mount(feature, mount.Mount{Type: mount.TypeBind, Source: host, Target: t})
	}
	g.env["DOCKER_HOST"] = "unix://" + first
}

// supervisor says where the supervisor's API is and with which key.
func (g *granted) supervisor(feature, networkMode string) {
	if g.in.features.SupervisorPort == 0 {
		g.missing = append(g.missing, feature+": the supervisor's API is switched off")
		return
	}
	host := g.in.gateway
	if networkMode == "host" {
		host = "127.0.0.1"
	}
	port := strconv.Itoa(g.in.features.SupervisorPort)
	g.both(feature, "_SUPERVISOR_HOST", host)
	g.both(feature, "_SUPERVISOR_PORT", port)
	g.both(feature, "_SUPERVISOR_ADDRESS", fmt.Sprintf("http://%s:%s", host, port))
	g.both(feature, "_SUPERVISOR_API_KEY", g.in.features.SupervisorKey)
}

// onHost reports whether the host has a path.
func (e *Engine) onHost(name string) bool {
	_, err := os.Stat(filepath.Join("/", e.cfg.HostRoot, name))
	return err == nil
}
