package supervisor

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deckhand/reconcile"
	"deckhand/state"
)

// app runs one service whose variable holds a secret.
func app(secret string) (state.World, state.Target) {
	spec := func(value string) state.Spec {
		return state.Spec{Environment: map[string]string{"TOKEN": value, "SAME": "same-" + secret}, Restart: state.RestartPolicy{Name: "always"}}
	}
	was, want := spec("old-"+secret), spec("new-"+secret)
	s := state.Service{Name: "web", ID: 1, ImageID: 1, Image: "web:1", Running: true, Spec: want, Hash: want.Hash()}
	now := state.World{
		Apps: map[string]state.AppNow{"a": {UUID: "a", ID: 1, Commit: "c1", Containers: []state.Container{{
			ID: "c1", Name: state.ContainerName("web", 1, 1, "c1"), Service: "web", ImageID: 1, ReleaseID: 1, Commit: "c1",
			Image: "i1", Hash: was.Hash(), Spec: &was, Phase: state.Running,
		}}}},
		Images: map[string]state.Image{"i1": {ID: "i1", Refs: []string{"web:1"}}},
	}
	return now, state.Target{Config: map[string]string{"BALENA_X": secret}, Apps: map[string]state.App{"a": {
		UUID: "a", ID: 1, Name: "shop", Commit: "c1", ReleaseID: 1, Services: map[string]state.Service{"web": s},
	}}}
}

// A snapshot plans elsewhere exactly what the device plans, and tells nobody
// what is in its variables.
func TestSnapshotPlansTheSameAndKeepsSecrets(t *testing.T) {
	const secret = "hunter2"
	now, want := app(secret)
	taken := time.Now().UTC()
	failures := map[reconcile.Key]state.Failure{"create a/web " + reconcile.Key(want.Apps["a"].Services["web"].Hash) + " web:1": {
		Class: state.ClassSpace, Text: "no space left", Attempt: 2, Next: taken.Add(time.Minute),
	}}
	plan, err := reconcile.Make(now, want, reconcile.Facts{Now: taken, Failures: failures})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(takeSnapshot(now, want, failures, taken))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), secret) {
		t.Errorf("the snapshot holds the secret:\n%s", b)
	}
	path := filepath.Join(t.TempDir(), "snapshot.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := ReadSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := read.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if again.String() != plan.String() {
		t.Errorf("on the device:\n%s\nfrom the snapshot:\n%s", plan, again)
	}
	for _, w := range []string{"environment.TOKEN changed", "no space left", "after 2 tries"} {
		if !strings.Contains(again.String(), w) {
			t.Errorf("nothing about %q in\n%s", w, again)
		}
	}
	if strings.Contains(again.String(), "SAME") {
		t.Errorf("an equal variable shows as changed:\n%s", again)
	}
}

func TestReadSnapshotRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"empty": "", "text": "hello", "other": `{"apps":{}}`, "types": `{"taken":5}`} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSnapshot(path); state.ClassOf(err) != state.ClassInvalid || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error of class invalid that names the file", name, err)
		}
	}
	if _, err := ReadSnapshot(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// The contents of files are hidden like variables, and the plan about them stays
// the same: what is on the device is still found, what rests still rests.
func TestSnapshotHidesFiles(t *testing.T) {
	const secret = "hunter2"
	now, want := app(secret)
	with := func(content string) []state.File {
		return []state.File{{Target: "/run/secrets/token", Content: []byte(content)}}
	}
	a := now.Apps["a"]
	was := *a.Containers[0].Spec
	was.Files = with("old-" + secret)
	a.Containers[0].Spec, a.Containers[0].Hash = &was, was.Hash()
	a.Files = []state.FilesNow{{Service: "web", Hash: state.FilesHash(was.Files)}, {Service: "web", Hash: "v1:" + "0123456789abcdef"}}
	now.Apps["a"] = a
	s := want.Apps["a"].Services["web"]
	s.Spec.Files = with("new-" + secret)
	s.Hash = s.Spec.Hash()
	want.Apps["a"].Services["web"] = s
	now.Intents = []state.Intent{{ID: "i1", Kind: state.Restart, App: "a", By: "me", Left: []string{"c1"}}}
	now.NoLocks = true
	taken := time.Now().UTC()
	hash := state.FilesHash(s.Spec.Files)
	failures := map[reconcile.Key]state.Failure{reconcile.WriteFiles{App: reconcile.App{UUID: "a"}, Service: "web", Hash: hash}.Key(): {
		Class: state.ClassSpace, Text: "no space left", Attempt: 2, Next: taken.Add(time.Minute),
	}}
	plan, err := reconcile.Make(now, want, reconcile.Facts{Now: taken, Failures: failures})
	if err != nil {
		t.Fatal(err)
	}
	shot := takeSnapshot(now, want, failures, taken)
	b, err := json.Marshal(shot)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{secret, base64.StdEncoding.EncodeToString([]byte("new-" + secret)), hash} {
		if strings.Contains(string(b), bad) {
			t.Errorf("the snapshot holds %q", bad)
		}
	}
	if string(want.Apps["a"].Services["web"].Spec.Files[0].Content) != "new-"+secret {
		t.Error("taking a snapshot changed the target itself")
	}
	again, err := shot.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if again.String() != plan.String() {
		t.Errorf("on the device:\n%s\nfrom the snapshot:\n%s", plan, again)
	}
	for _, w := range []string{"files changed", "write files", "remove files", "no space left"} {
		if !strings.Contains(again.String(), w) {
			t.Errorf("nothing about %q in\n%s", w, again)
		}
	}
}

// Whatever a file holds, reading it and planning from it ends in an answer or an
// error.
func FuzzSnapshot(f *testing.F) {
	now, want := app("hunter2")
	now.Intents = []state.Intent{{ID: "i1", Kind: state.Restart, App: "a", Left: []string{"c1"}}}
	b, err := json.Marshal(takeSnapshot(now, want, nil, time.Unix(1, 0)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"taken":"2030-01-01T00:00:00Z","world":{"apps":{"a":{"containers":[{"service":"x","phase":"running"}],"networks":[{"name":"n"},{"name":"n"}]}}},"target":{"apps":{"a":{"services":{"x":{"name":"x","running":true,"dependsOn":[{"service":"x"}]},"y":{"spec":{"network_mode":"service:y"}}}}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSnapshot(b)
		if err != nil {
			return
		}
		p, err := s.Plan()
		if err == nil {
			_, _ = p.String(), p.DOT()
		}
	})
}
