package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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

// LabelStrategy names the update strategy of a service.
const LabelStrategy = "io.balena.update.strategy"

// Labels is the table of labels with a meaning. Every other label is the
// owner's own and is put on the container as it is. The first row that fits
// counts.
var Labels = []Label{
	{Name: LabelStrategy, Treat: Apply, Why: "how the service is updated"},
	{Name: "io.balena.update.handover-timeout", Treat: Ignore, Why: "hand-over is not supported yet"},
	{Name: "io.balena.update.requires-reboot", Treat: Ignore, Why: "reboots for an update are not supported yet"},
	{Name: "io.balena.update.*", Treat: Ignore, Why: "has no meaning"},
	{Name: "io.balena.features.*", Treat: Ignore, Keep: true, Why: "has no effect yet"},
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

// strategy is the update strategy that the labels ask for.
func (b *builder) strategy(at string, in map[string]string) string {
	name := strings.TrimSpace(NormaliseLabels(in)[LabelStrategy])
	if name == "" {
		return strategy.Default
	}
	if _, ok := strategy.All[name]; !ok {
		b.warn(join(at+".labels", LabelStrategy), fmt.Sprintf("%s is not supported yet; %s is used", clip(name), strategy.Default))
		return strategy.Default
	}
	return name
}
