package target

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"

	"deckhand/compose"
	"deckhand/state"
)

// FromCompose makes the target of one compose project, without any cloud. All
// identity is derived: the app's from the name, the commit from the content, so
// that the same file applied twice changes nothing. An empty name is the
// project's own.
func FromCompose(project compose.Project, name string) state.Target {
	if name == "" {
		name = project.Name
	}
	identity := sha256.Sum256([]byte("deckhand-project:" + name))
	content, err := json.Marshal(project) // maps are written in key order
	if err != nil {
		panic("target: " + err.Error()) // plain data always encodes
	}
	commit := sha256.Sum256(append(content, name...)) // two projects never give a container one name
	app := state.App{
		UUID:      hex.EncodeToString(identity[:16]),
		ID:        int64(binary.BigEndian.Uint32(identity[16:])&(1<<31-1) | 1),
		Name:      name,
		Class:     "app",
		Commit:    hex.EncodeToString(commit[:16]),
		ReleaseID: 1,
		Services:  make(map[string]state.Service, len(project.Services)),
		Networks:  maps.Clone(project.Networks),
		Volumes:   maps.Clone(project.Volumes),
	}
	for i, service := range slices.Sorted(maps.Keys(project.Services)) {
		s := project.Services[service]
		s.ID, s.ImageID = int64(i+1), int64(i+1)
		app.Services[service] = s
	}
	return state.Target{Apps: map[string]state.App{app.UUID: app}}
}
