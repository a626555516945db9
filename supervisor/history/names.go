package history

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"deckhand/state"
)

// FindApp finds an app by its name, UUID or number.
func FindApp(t state.Target, w state.World, name string) (uuid string, err error) {
	if name == "" {
		return "", errors.New("the request names no app")
	}
	all := map[string]bool{}
	for u := range t.Apps {
		all[u] = true
	}
	for u, a := range w.Apps {
		all[u] = all[u] || len(a.Containers)+len(a.Volumes) > 0
	}
	var found, known []string
	for _, u := range slices.Sorted(maps.Keys(all)) {
		if !all[u] {
			continue
		}
		known = append(known, cmp.Or(t.Apps[u].Name, u))
		id := cmp.Or(t.Apps[u].ID, w.Apps[u].ID)
		if u == name {
			return u, nil
		}
		if t.Apps[u].Name == name || id != 0 && fmt.Sprint(id) == name {
			found = append(found, u)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", fmt.Errorf("%d apps are called %s; name the UUID instead: %s", len(found), name, strings.Join(found, ", "))
	case len(known) == 0:
		return "", fmt.Errorf("there is no app %s; the device has none", name)
	}
	return "", fmt.Errorf("there is no app %s; the device has %s", name, strings.Join(known, ", "))
}

// ServicesOf lists the services that an app should have or has.
func ServicesOf(want state.App, now state.AppNow) []string {
	set := map[string]bool{}
	for s := range want.Services {
		set[s] = true
	}
	for _, c := range now.Containers {
		set[c.Service] = true
	}
	return slices.Sorted(maps.Keys(set))
}
