package supervisor

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/version"
)

// Snapshot is everything a plan is made from. The values of environment
// variables and the contents of files are replaced by digests that are equal
// exactly where the values are, under a key nobody keeps: the plan stays the
// same, no secret leaves.
type Snapshot struct {
	Deckhand string                          `json:"deckhand"` // version that took it
	Taken    time.Time                       `json:"taken"`
	World    state.World                     `json:"world"`
	Target   state.Target                    `json:"target"`
	Failures map[reconcile.Key]state.Failure `json:"failures,omitempty"`
}

// Plan makes the plan of the moment the snapshot was taken.
func (s Snapshot) Plan() (reconcile.Plan, error) {
	return reconcile.Make(s.World, s.Target, reconcile.Facts{Now: s.Taken, Failures: s.Failures})
}

// ReadSnapshot reads a file that "deckhand snapshot" wrote.
func ReadSnapshot(path string) (Snapshot, error) {
	var s Snapshot
	b, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("read snapshot: %w", err)
	}
	if s, err = decodeSnapshot(b); err != nil {
		return s, fmt.Errorf("read snapshot %s: %w", path, state.Classify(state.ClassInvalid, err))
	}
	return s, nil
}

func decodeSnapshot(b []byte) (Snapshot, error) {
	var s Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return s, err
	}
	if s.Taken.IsZero() {
		return s, errors.New("taken: missing; this is no snapshot")
	}
	return s, nil
}

func takeSnapshot(w state.World, t state.Target, failures map[reconcile.Key]state.Failure, now time.Time) Snapshot {
	v := veil{key: make([]byte, 32), files: map[string]string{}}
	_, _ = rand.Read(v.key) // never fails, see crypto/rand
	t = v.target(t)
	w = v.world(w)
	return Snapshot{Deckhand: version.Version, Taken: now, World: w, Target: t, Failures: v.failures(failures)}
}

// veil hides values.
type veil struct {
	key   []byte
	files map[string]string // hash of files → hash of the hidden ones
}

func (v veil) hide(value string) string {
	m := hmac.New(sha256.New, v.key)
	m.Write([]byte(value))
	return "hidden:" + hex.EncodeToString(m.Sum(nil)[:8])
}

func (v veil) spec(s state.Spec) state.Spec {
	env := make(map[string]string, len(s.Environment))
	for k, value := range s.Environment {
		env[k] = v.hide(value)
	}
	if s.Environment != nil {
		s.Environment = env
	}
	if len(s.Files) > 0 {
		was := state.FilesHash(s.Files)
		s.Files = slices.Clone(s.Files)
		for i, f := range s.Files {
			s.Files[i].Content = []byte(v.hide(string(f.Content)))
		}
		v.files[was] = state.FilesHash(s.Files)
	}
	return s
}

// filesHash is what stands for the hash of files: short contents could be
// guessed from theirs.
func (v veil) filesHash(hash string) string {
	if hidden, ok := v.files[hash]; ok {
		return hidden
	}
	return v.hide(hash)
}

func (v veil) target(t state.Target) state.Target {
	apps := make(map[string]state.App, len(t.Apps))
	for uuid, a := range t.Apps {
		a.Services = maps.Clone(a.Services)
		for name, s := range a.Services {
			s.Spec = v.spec(s.Spec)
			a.Services[name] = s
		}
		apps[uuid] = a
	}
	t.Apps = apps
	t.Config = nil // not part of any plan, and may hold secrets
	return t
}

func (v veil) world(w state.World) state.World {
	apps := make(map[string]state.AppNow, len(w.Apps))
	for uuid, a := range w.Apps {
		a.Containers = slices.Clone(a.Containers)
		for i, c := range a.Containers {
			if c.Spec != nil {
				s := v.spec(*c.Spec)
				a.Containers[i].Spec = &s
			}
		}
		apps[uuid] = a
	}
	for uuid, a := range apps { // now that every spec was seen
		a.Files = slices.Clone(a.Files)
		for i, f := range a.Files {
			a.Files[i].Hash = v.filesHash(f.Hash)
		}
		apps[uuid] = a
	}
	w.Apps = apps
	return w
}

// failures writes the hidden hashes into the keys of steps about files.
func (v veil) failures(all map[reconcile.Key]state.Failure) map[reconcile.Key]state.Failure {
	out := make(map[reconcile.Key]state.Failure, len(all))
	for k, f := range all {
		for was, hidden := range v.files {
			if rest, ok := strings.CutSuffix(string(k), " "+was); ok {
				k = reconcile.Key(rest + " " + hidden)
				break
			}
		}
		out[k] = f
	}
	if all == nil {
		return nil
	}
	return out
}
