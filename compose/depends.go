package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"deckhand/state"
)

// dependencies fills DependsOn of every service and refuses what can never be
// fulfilled.
func (b *builder) dependencies(names []string, services types.Services) {
	for _, name := range names {
		s := b.project.Services[name]
		declared := b.withOwner(name, services[name].DependsOn)
		for _, other := range slices.Sorted(maps.Keys(declared)) {
			if d, ok := b.dependency(name, other, declared[other]); ok {
				s.DependsOn = append(s.DependsOn, d)
			}
		}
		b.project.Services[name] = s
	}
	if ring := b.cycle(names); ring != nil {
		b.reject("services."+ring[0]+".depends_on", "the services wait for each other: "+strings.Join(ring, " → "))
	}
}

// withOwner adds the service whose network this one uses to what it waits for.
func (b *builder) withOwner(name string, declared types.DependsOnConfig) types.DependsOnConfig {
	owner := b.project.Services[name].Spec.NetworkOwner()
	if _, exists := b.project.Services[owner]; !exists || owner == name {
		return declared
	}
	at := "services." + name + ".depends_on." + owner
	d, ok := declared[owner]
	switch {
	case !ok:
	case state.Condition(d.Condition) == state.Completed:
		b.reject(at+".condition", "the network of "+owner+" is used, which must go on running")
	case !d.Required:
		b.ignore(at+".required", "the network of "+owner+" is used")
	}
	d.Required = true
	all := maps.Clone(declared)
	if all == nil {
		all = types.DependsOnConfig{}
	}
	all[owner] = d
	return all
}

func (b *builder) dependency(name, other string, c types.ServiceDependency) (state.Dependency, bool) {
	at := "services." + name + ".depends_on." + other
	d := state.Dependency{Service: other, Condition: state.Condition(orElse(c.Condition, string(state.Started)))}
	switch d.Condition {
	case state.Started, state.Healthy, state.Completed:
	default:
		b.reject(at+".condition", fmt.Sprintf("want %s, %s or %s, got %s", state.Started, state.Healthy, state.Completed, strconv.Quote(clip(c.Condition))))
		return d, false
	}
	needed, ok := b.project.Services[other]
	switch {
	case !ok && c.Required:
		b.reject(at, "there is no service "+other)
		return d, false
	case !ok:
		b.warn(at, "there is no service "+other+"; it is not required and not waited for")
		return d, false
	}
	d.Optional, d.Restart = !c.Required, c.Restart
	switch h := needed.Spec.Healthcheck; {
	case d.Condition == state.Healthy && !d.Optional && h != nil && len(h.Test) == 1 && h.Test[0] == "NONE":
		b.reject(at, other+" has its health check switched off and can never become healthy")
	case d.Condition == state.Completed && (needed.Spec.Restart.Name == "always" || needed.Spec.Restart.Name == "unless-stopped"):
		b.warn(at, other+" is restarted whenever it ends; set restart: no or on-failure there")
	}
	return d, true
}

// cycle finds services that wait for each other, as a → b → a; the same one
// whatever the order of the document. Nil when there is none.
func (b *builder) cycle(names []string) []string {
	const walking, done = 1, 2
	seen := map[string]int{}
	var trail []string
	var walk func(name string) []string
	walk = func(name string) []string {
		seen[name] = walking
		trail = append(trail, name)
		for _, d := range b.project.Services[name].DependsOn {
			switch seen[d.Service] {
			case walking:
				return append(slices.Clone(trail[slices.Index(trail, d.Service):]), d.Service)
			case done:
				continue
			}
			if ring := walk(d.Service); ring != nil {
				return ring
			}
		}
		seen[name] = done
		trail = trail[:len(trail)-1]
		return nil
	}
	for _, name := range names {
		if seen[name] == 0 {
			if ring := walk(name); ring != nil {
				return ring
			}
		}
	}
	return nil
}
