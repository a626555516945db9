package compose

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"deckhand/state"
	"deckhand/strategy"
)

// Label is one row of the table of labels with a meaning.
type Label struct {
	Name  string // a name; with a trailing * every name that begins like this
	Treat Treatment
	Keep  bool   // part of the container's settings: a change replaces it
	Why   string // why it has no effect, or what it does
}

// The labels that say how a service is updated.
const (
	LabelStrategy          = "io.balena.update.strategy"
	LabelHandoverTimeout   = "io.balena.update.handover-timeout"
	LabelHandoverOnTimeout = "io.balena.update.handover-on-timeout"
	LabelRequiresReboot    = "io.balena.update.requires-reboot"
)

// featurePrefix begins the labels that give a service something of the device.
const featurePrefix = "io.balena.features."

// FeatureOptional marks a service that is left out, instead of refusing the
// release, where the device lacks what its contract requires. It gives nothing
// to the container.
const FeatureOptional = "optional"

// What handover-on-timeout may say.
const (
	keepOld = "keep-old"
	stopOld = "stop-old"
)

// Labels is the table of labels with a meaning. Every other label is the
// owner's own and is put on the container as it is. The first row that fits
// counts.
var Labels = []Label{
	{Name: LabelStrategy, Treat: Apply, Why: "how the service is updated"},
	{Name: LabelHandoverTimeout, Treat: Apply, Why: "how long the old container waits for the new one under the strategy hand-over, in milliseconds; 60000 unless set"},
	{Name: LabelHandoverOnTimeout, Treat: Apply, Why: "when that time is over, stop-old (the default) goes on with the new container, keep-old fails the release and keeps the old one"},
	{Name: LabelRequiresReboot, Treat: Apply, Why: "1 or true: a new container of the service first runs after a reboot of the device"},
	{Name: "io.balena.update.*", Treat: Ignore, Why: "has no meaning"},
	{Name: featurePrefix + "balena-api", Treat: Apply, Keep: true, Why: "variables BALENA_API_KEY and BALENA_API_URL"},
	{Name: featurePrefix + "balena-socket", Treat: Apply, Keep: true, Why: "the engine's socket at /host/run/balena-engine.sock and /var/run/balena.sock, and DOCKER_HOST"},
	{Name: featurePrefix + "dbus", Treat: Apply, Keep: true, Why: "/run/dbus of the host at /host/run/dbus"},
	{Name: featurePrefix + "extra-firmware", Treat: Apply, Keep: true, Why: "the device's volume for more firmware at /extra-firmware"},
	{Name: featurePrefix + "firmware", Treat: Apply, Keep: true, Why: "/lib/firmware of the host"},
	{Name: featurePrefix + "gpu", Treat: Apply, Keep: true, Why: "one GPU"},
	{Name: featurePrefix + "host-os.board-rev", Treat: Apply, Keep: true, Why: "variables BALENA_HOST_OS_BOARD_REV and BALENA_HOST_OS_BUILD"},
	{Name: featurePrefix + "journal-logs", Treat: Apply, Keep: true, Why: "the host's journal, read-only: /var/log/journal, /run/log/journal and /etc/machine-id"},
	{Name: featurePrefix + "kernel-modules", Treat: Apply, Keep: true, Why: "/lib/modules of the host"},
	{Name: featurePrefix + FeatureOptional, Treat: Apply, Keep: true, Why: "the service may be left out where its contract is not met"},
	{Name: featurePrefix + "procfs", Treat: Apply, Keep: true, Why: "/proc of the host"},
	{Name: featurePrefix + state.FeatureAPI, Treat: Apply, Keep: true, Why: "the supervisor's API: its network, and variables BALENA_SUPERVISOR_ADDRESS, _HOST, _PORT and _API_KEY"},
	{Name: featurePrefix + "sysfs", Treat: Apply, Keep: true, Why: "/sys of the host"},
	{Name: featurePrefix + "*", Treat: Ignore, Keep: true, Why: "is not a feature; it has no effect"},
	{Name: state.LabelSupervised, Treat: Ignore, Why: "set by the supervisor"},
	{Name: state.LabelAppID, Treat: Ignore, Why: "set by the supervisor"},
	{Name: state.LabelAppUUID, Treat: Ignore, Why: "set by the supervisor"},
	{Name: state.LabelServiceID, Treat: Ignore, Why: "set by the supervisor"},
	{Name: state.LabelServiceName, Treat: Ignore, Why: "set by the supervisor"},
	{Name: "io.deckhand.*", Treat: Ignore, Why: "set by the supervisor"},
}

func labelRow(name string) *Label {
	for i := range Labels {
		l := &Labels[i]
		if prefix, wild := strings.CutSuffix(l.Name, "*"); l.Name == name || wild && strings.HasPrefix(name, prefix) {
			return l
		}
	}
	return nil
}

// NormaliseLabels writes the old names io.resin.… as io.balena.…; a label that
// has the new name already wins.
func NormaliseLabels(in map[string]string) map[string]string {
	out := make(map[string]string, len(in))
	for _, k := range slices.Sorted(maps.Keys(in)) {
		name := k
		if strings.HasPrefix(k, "io.resin.") {
			name = strings.ReplaceAll(k, "resin", "balena")
			if _, ok := in[name]; ok {
				continue
			}
		}
		out[name] = in[k]
	}
	return out
}

// labels is what goes on the container, network or volume.
func (b *builder) labels(at string, in map[string]string) map[string]string {
	var out map[string]string
	for name, value := range NormaliseLabels(in) {
		l := labelRow(name)
		if l != nil && l.Keep && l.Treat == Apply && !on(value) && !off(value) {
			b.warn(join(at+".labels", name), "want 1, true or on, got "+strconv.Quote(clip(value))+"; it has no effect")
		}
		if l != nil && l.Treat == Ignore && !(l.Keep && off(value)) {
			where := join(at+".labels", name)
			if l.Keep || strings.HasPrefix(name, "io.balena.update.") {
				b.warn(where, l.Why)
			} else {
				b.ignore(where, l.Why)
			}
		}
		if l == nil || l.Keep {
			put(&out, name, value)
		}
	}
	return out
}

// off reports whether a label's value switches a feature off.
func off(value string) bool {
	switch strings.ToLower(value) {
	case "0", "false", "off", "":
		return true
	}
	return false
}

// on reports whether a label's value switches something on. A value may be
// neither.
func on(value string) bool {
	switch strings.ToLower(value) {
	case "1", "true", "on":
		return true
	}
	return false
}

// features are the names of the features that the labels switch on. Labels baked
// into an image do not count: who makes an image does not own the device.
func features(in map[string]string) []string {
	var out []string
	for label, value := range NormaliseLabels(in) {
		name, ok := strings.CutPrefix(label, featurePrefix)
		if ok && on(value) && name != FeatureOptional && labelRow(label).Treat == Apply {
			out = append(out, name)
		}
	}
	return set(out)
}

// update reads how the service is updated.
func (b *builder) update(at string, in map[string]string, s *state.Service) {
	l := NormaliseLabels(in)
	s.Strategy = b.strategy(at, l[LabelStrategy])
	s.HandoverTimeout = b.handoverTimeout(at, l[LabelHandoverTimeout])
	switch v := strings.TrimSpace(l[LabelHandoverOnTimeout]); v {
	case "", stopOld:
	case keepOld:
		s.KeepOld = true
	default:
		b.warn(join(at, LabelHandoverOnTimeout), "want "+keepOld+" or "+stopOld+", got "+strconv.Quote(clip(v))+"; "+stopOld+" is used")
	}
	switch v := strings.TrimSpace(l[LabelRequiresReboot]); {
	case on(v):
		s.RequiresReboot = true
	case !off(v):
		b.warn(join(at, LabelRequiresReboot), "want 1, true or on, got "+strconv.Quote(clip(v))+"; no reboot is required")
	}
}

// strategy is the update strategy that the label asks for.
func (b *builder) strategy(at, name string) string {
	name = strings.TrimSpace(name)
	if name == "" {
		return strategy.Default
	}
	if _, ok := strategy.All[name]; !ok {
		b.warn(join(at, LabelStrategy), fmt.Sprintf("want one of %s, got %s; %s is used",
			strings.Join(slices.Sorted(maps.Keys(strategy.All)), ", "), strconv.Quote(clip(name)), strategy.Default))
		return strategy.Default
	}
	return name
}

// handoverTimeout is in milliseconds; zero: the default.
func (b *builder) handoverTimeout(at, text string) state.Duration {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0
	}
	const most = int64(math.MaxInt64 / time.Millisecond)
	if number, zeros, ok := strings.Cut(text, "."); ok && strings.Trim(zeros, "0") == "" {
		text = number // 60000.0, as other tools write whole numbers
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 || n > most {
		b.warn(join(at, LabelHandoverTimeout), "want milliseconds, more than 0, got "+strconv.Quote(clip(text))+"; the default is used")
		return 0
	}
	return state.Duration(n * int64(time.Millisecond))
}
