//go:build engine && linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/google/go-cmp/cmp"

	"deckhand/client"
	"deckhand/state"
	"deckhand/supervisor"
	"deckhand/test/system"
)

// deadline is how long anything may take on a loaded machine. Nothing waits so
// long unless it is broken.
const deadline = 2 * time.Minute

// scene is one test's device and what surrounds it.
type scene struct {
	testing.TB
	stage
	dir  string
	unit *system.Device
	uuid string
}

// begin gives a scene with an empty engine.
func begin(t *testing.T) *scene {
	t.Helper()
	return beginOn(t, set)
}

// beside gives a scene with an empty engine of its own, which runs beside
// others: it must leave alone what they share, the cloud and its registry.
func beside(t *testing.T) *scene {
	t.Helper()
	t.Parallel()
	e, err := set.spare.take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, err := e.Client.ContainerList(context.Background(), container.ListOptions{All: true})
		if err != nil || len(list) > 0 { // an engine may be unable to remove one until it restarts
			t.Logf("the engine is not used again: %d containers are left (%v)", len(list), err)
			return
		}
		set.spare.give(e)
	})
	own := set
	own.engine = e
	return beginOn(t, own)
}

func beginOn(t *testing.T, on stage) *scene {
	t.Helper()
	dir, err := os.MkdirTemp("", "deck-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{TB: t, stage: on, dir: dir}
	t.Cleanup(func() { s.end() })
	return s
}

// end clears the engine for the next test and shows the logs of a failed one.
func (s *scene) end() {
	if s.Failed() && s.unit != nil {
		ctx, cancel := s.ctx()
		v, err := s.unit.Ask().Status(ctx)
		p, _ := s.unit.Ask().Plan(ctx, nil)
		cancel()
		s.Logf("the device is %s (%v), its plan:\n%s", system.Describe(v), err, p.Text)
	}
	if s.unit != nil {
		if err := s.unit.Stop(); err != nil {
			s.Error(err)
		}
	}
	if s.Failed() {
		s.evidence()
	}
	s.registry.Slow(0)
	if err := s.registry.Mend(); err != nil {
		s.Error(err)
	}
	s.clear()
	if err := os.RemoveAll(s.dir); err != nil {
		s.Error(err)
	}
}

// evidence keeps the logs where -artifacts wants them, and prints their ends.
func (s *scene) evidence() {
	logs := map[string]string{"cloud": s.cloudLog.String(), "engine": s.engine.Log()}
	if s.unit != nil {
		logs["device"] = s.unit.Log.String()
	}
	for _, name := range slices.Sorted(maps.Keys(logs)) {
		if t, ok := s.TB.(interface{ ArtifactDir() string }); ok {
			_ = os.WriteFile(filepath.Join(t.ArtifactDir(), name+".log"), []byte(logs[name]), 0o644) // the test has failed anyway
		}
		if name == "engine" {
			continue // long, and seldom the answer
		}
		s.Logf("end of the %s's log:\n%s", name, logs[name][max(0, len(logs[name])-9000):])
	}
}

func (s *scene) clear() {
	ctx, cancel := s.ctx()
	defer cancel()
	list, _ := s.engine.Client.ContainerList(ctx, container.ListOptions{All: true})
	for _, c := range list {
		_ = s.engine.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	}
	_, _ = s.engine.Client.NetworksPrune(ctx, filters.Args{})
	volumes, _ := s.engine.Client.VolumeList(ctx, volume.ListOptions{})
	for _, v := range volumes.Volumes {
		_ = s.engine.Client.VolumeRemove(ctx, v.Name, true)
	}
	images, _ := s.engine.Client.ImageList(ctx, image.ListOptions{})
	for _, i := range images {
		_, _ = s.engine.Client.ImageRemove(ctx, i.ID, image.RemoveOptions{Force: true, PruneChildren: true})
	}
}

// ctx also works in clean-ups, where the test's own has ended.
func (s *scene) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), deadline, fmt.Errorf("not within %v", deadline))
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// within waits for a condition.
func (s *scene) within(what string, condition func(ctx context.Context) error) {
	s.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	if err := system.Until(ctx, condition); err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

// The owner.

// fleet makes a fleet named after the test.
func (s *scene) fleet() client.Fleet {
	s.Helper()
	name := strings.ToLower(strings.Trim(strings.Map(func(r rune) rune {
		if r < '0' || r > 'z' {
			return '-'
		}
		return r
	}, strings.TrimPrefix(s.Name(), "Test")), "-"))
	f, err := s.cloud.Client.CreateFleet(s.Context(), name+"-"+client.NewUUID()[:6], "generic-amd64") // -count makes it again
	s.must(err)
	return f
}

// release is one that was pushed.
type release struct {
	id     int64
	commit string
}

// push pushes a compose file. The images of the services in marks are built,
// each around its mark: another mark makes another image.
func (s *scene) push(f client.Fleet, compose string, marks map[string]string) release {
	s.Helper()
	return s.pushProject(f, system.Project{Compose: compose, Services: marks})
}

func (s *scene) pushProject(f client.Fleet, p system.Project) release {
	s.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	p.Dir = filepath.Join(s.dir, "project")
	s.must(os.RemoveAll(p.Dir))
	s.must(p.Write())
	result, err := s.cloud.Push(ctx, f, p.Dir, nil)
	s.must(err)
	return release{result.ReleaseID, result.Commit}
}

// post adds a row to a resource of the cloud.
func (s *scene) post(resource string, row map[string]any) {
	s.Helper()
	token, err := s.cloud.Client.Login(s.Context(), s.cloud.User, s.cloud.Password)
	s.must(err)
	body, err := json.Marshal(row)
	s.must(err)
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, s.cloud.URL+"/v7/"+resource, bytes.NewReader(body))
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	s.must(err)
	defer resp.Body.Close()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode >= http.StatusBadRequest {
		s.Fatalf("add %s: %s %s", resource, resp.Status, answer)
	}
}

// cloudShows waits until the cloud shows the release running on the device, and
// every service of it.
func (s *scene) cloudShows(r release, services ...string) {
	s.Helper()
	s.within("the cloud shows release "+r.commit, func(ctx context.Context) error {
		d, err := s.cloud.Client.Device(ctx, s.uuid)
		if err != nil {
			return err
		}
		if d.Running != r.id {
			return fmt.Errorf("the cloud shows release %d as running, want %d", d.Running, r.id)
		}
		installs, err := s.cloud.Client.Installs(ctx, d)
		if err != nil {
			return err
		}
		shown := map[string]string{}
		for _, i := range installs {
			if i.Release == r.id {
				shown[i.Service] = strings.ToLower(i.Status)
			}
		}
		want := map[string]string{}
		for _, name := range services {
			want[name] = "running"
		}
		if diff := cmp.Diff(want, shown); diff != "" {
			return fmt.Errorf("the cloud shows other services (-want +got):\n%s", diff)
		}
		return nil
	})
}

// The device.

// device registers a device and starts its supervisor.
func (s *scene) device(f client.Fleet) {
	s.Helper()
	values, err := s.cloud.Registered(s.Context(), f)
	s.must(err)
	s.deviceWith(values)
	s.boot()
}

// deviceWith makes a device with a config.json and does not start it.
func (s *scene) deviceWith(values map[string]any) {
	s.Helper()
	s.uuid, _ = values["uuid"].(string)
	d, err := system.NewDevice(system.DeviceConfig{Program: s.programs.Deckhand, Dir: s.dir, Engine: s.engine.Host, Values: values})
	s.must(err)
	s.unit = d
}

// boot starts the supervisor and waits until it answers.
func (s *scene) boot() {
	s.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	s.must(s.unit.Start())
	s.must(s.unit.Answer(ctx))
}

// powerOff ends the supervisor without a warning.
func (s *scene) powerOff() { s.unit.Kill() }

// shutDown ends the supervisor with SIGTERM.
func (s *scene) shutDown() {
	s.Helper()
	s.must(s.unit.Stop())
}

// settles waits until the device runs the release as it was asked for.
func (s *scene) settles(r release) {
	s.Helper()
	s.settlesAt(r.commit)
}

func (s *scene) settlesAt(commit string) {
	s.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	if err := s.unit.Settled(ctx, commit); err != nil {
		s.Fatalf("settle at release %q: %v", commit, err)
	}
}

// status waits until what the supervisor says of itself fits.
func (s *scene) status(what string, condition func(supervisor.View) error) {
	s.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	if err := s.unit.Until(ctx, condition); err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

// waits waits until a step rests after a failure of one of the classes.
func (s *scene) waits(step string, classes ...state.Class) supervisor.WaitView {
	s.Helper()
	var found supervisor.WaitView
	s.status(fmt.Sprintf("%s waits because of %v", step, classes), func(v supervisor.View) error {
		for _, w := range v.Waiting {
			if strings.Contains(w.Step, step) && (len(classes) == 0 || slices.Contains(classes, w.Class)) {
				found = w
				return nil
			}
		}
		return fmt.Errorf("the device is %s", system.Describe(v))
	})
	return found
}

// logged waits until the supervisor has said something since a mark.
func (s *scene) logged(mark int, parts ...string) {
	s.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	_, err := s.unit.Log.Wait(ctx, mark, fmt.Sprintf("%q", parts), func(l system.Line) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l.Text, p) })
	})
	s.must(err)
}

// steps are the titles of the steps that were started since a mark.
func (s *scene) steps(mark int) []string {
	var out []string
	for _, l := range s.unit.Log.Since(mark) {
		if l.Message == "start" && l.Step != "" {
			out = append(out, l.Step)
		}
	}
	return out
}

// deckhand runs the device's program as a person would, and gives what it
// prints to standard output.
func (s *scene) deckhand(args ...string) (stdout string, err error) {
	s.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	cmd := exec.CommandContext(ctx, s.programs.Deckhand, args...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("deckhand %s: %w\n%s", strings.Join(args, " "), err, problem.String())
	}
	return out.String(), nil
}

// exitCode is the code a program ended with.
func exitCode(err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	return 0
}

// The engine.

// service is a service's only container.
func (s *scene) service(name string) container.InspectResponse {
	s.Helper()
	found := s.all(name)
	if len(found) != 1 {
		var names []string
		for _, c := range found {
			names = append(names, strings.Join(c.Names, " ")+" "+c.State)
		}
		s.Fatalf("service %s has %d containers: %v", name, len(found), names)
	}
	c, err := s.engine.Client.ContainerInspect(s.Context(), found[0].ID)
	s.must(err)
	return c
}

// all are the containers of a service, or of every service for "".
func (s *scene) all(service string) []container.Summary {
	s.Helper()
	f := filters.NewArgs(filters.Arg("label", state.LabelSupervised))
	if service != "" {
		f = filters.NewArgs(filters.Arg("label", state.LabelServiceName+"="+service))
	}
	list, err := s.engine.Client.ContainerList(s.Context(), container.ListOptions{All: true, Filters: f})
	s.must(err)
	return list
}

// services are the containers by service; two of one service fail the test.
func (s *scene) services() map[string]container.InspectResponse {
	s.Helper()
	out := map[string]container.InspectResponse{}
	for _, c := range s.all("") {
		name := c.Labels[state.LabelServiceName]
		out[name] = s.service(name)
	}
	return out
}

// runs checks that exactly these services run, one container each.
func (s *scene) runs(names ...string) {
	s.Helper()
	now := s.services()
	slices.Sort(names)
	if diff := cmp.Diff(names, slices.Sorted(maps.Keys(now))); diff != "" {
		s.Fatalf("other services than wanted (-want +got):\n%s", diff)
	}
	for _, n := range names {
		if !now[n].State.Running {
			s.Fatalf("service %s is %s", n, now[n].State.Status)
		}
	}
}

// same checks that nobody touched a container.
func (s *scene) same(before, now container.InspectResponse) {
	s.Helper()
	if before.ID != now.ID {
		s.Fatalf("container %s was replaced by %s", before.Name, now.Name)
	}
	if before.State.StartedAt != now.State.StartedAt || before.RestartCount != now.RestartCount {
		s.Fatalf("container %s was restarted at %s", before.Name, now.State.StartedAt)
	}
}

// untouched checks that nobody touched any of the containers; others may have
// been made beside them.
func (s *scene) untouched(before map[string]container.InspectResponse) {
	s.Helper()
	for _, name := range slices.Sorted(maps.Keys(before)) {
		now, err := s.engine.Client.ContainerInspect(s.Context(), before[name].ID)
		s.must(err)
		s.same(before[name], now)
	}
}

// replaced checks that a service has another container, which runs.
func (s *scene) replaced(before, now container.InspectResponse) {
	s.Helper()
	if before.ID == now.ID {
		s.Fatalf("container %s was not replaced", before.Name)
	}
	if !now.State.Running {
		s.Fatalf("container %s is %s", now.Name, now.State.Status)
	}
}

// mark is the mark in the image that a container was made from.
func (s *scene) mark(c container.InspectResponse) string {
	s.Helper()
	return strings.TrimSpace(s.exec(c.ID, "cat", "/mark"))
}

// exec runs a command in a container and gives what it printed.
func (s *scene) exec(id string, command ...string) string {
	s.Helper()
	e, err := s.engine.Client.ContainerExecCreate(s.Context(), id, container.ExecOptions{Cmd: command, AttachStdout: true, AttachStderr: true, Tty: true})
	s.must(err)
	a, err := s.engine.Client.ContainerExecAttach(s.Context(), e.ID, container.ExecAttachOptions{Tty: true})
	s.must(err)
	defer a.Close()
	out, err := io.ReadAll(a.Reader)
	s.must(err)
	done, err := s.engine.Client.ContainerExecInspect(s.Context(), e.ID)
	s.must(err)
	if done.ExitCode != 0 {
		s.Fatalf("%v ended with %d: %s", command, done.ExitCode, out)
	}
	return string(out)
}

// networks are the short names of the app networks on the engine.
func (s *scene) networks() []string {
	s.Helper()
	list, err := s.engine.Client.NetworkList(s.Context(), network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", state.LabelSupervised))})
	s.must(err)
	var out []string
	for _, n := range list {
		_, short, _ := strings.Cut(n.Name, "_")
		out = append(out, short)
	}
	slices.Sort(out)
	return out
}

// volumes are the short names of the named volumes on the engine.
func (s *scene) volumes() []string {
	s.Helper()
	list, err := s.engine.Client.VolumeList(s.Context(), volume.ListOptions{})
	s.must(err)
	var out []string
	for _, v := range list.Volumes {
		if _, short, named := strings.Cut(v.Name, "_"); named {
			out = append(out, short)
		}
	}
	slices.Sort(out)
	return out
}

// images are the names, or for want of one the IDs, of the images on the device.
func (s *scene) images() []string {
	s.Helper()
	list, err := s.engine.Client.ImageList(s.Context(), image.ListOptions{})
	s.must(err)
	var out []string
	for _, i := range list {
		out = append(out, strings.Join(append(append([]string{}, i.RepoTags...), i.ID[:19]), " "))
	}
	slices.Sort(out)
	return out
}

// remove removes a container by hand.
func (s *scene) remove(c container.InspectResponse) {
	s.Helper()
	s.must(s.engine.Client.ContainerRemove(s.Context(), c.ID, container.RemoveOptions{Force: true}))
}

// env is the value of a container's variable; "" when it has none.
func env(c container.InspectResponse, name string) string {
	for _, e := range c.Config.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// everythingDone holds when the device has what it was asked for.
func everythingDone(v supervisor.View) error {
	if v.State != supervisor.StateSettled || len(v.Apps) == 0 {
		return fmt.Errorf("the device is %s", system.Describe(v))
	}
	for _, a := range v.Apps {
		if a.Target == "" || a.Release != a.Target {
			return fmt.Errorf("the device is %s", system.Describe(v))
		}
	}
	return nil
}

// waitsForStep waits until the device works at a step.
func (s *scene) waitsForStep(title string) {
	s.Helper()
	s.status("it is at "+title, func(v supervisor.View) error {
		for _, a := range v.Apps {
			for _, x := range a.Services {
				if x.Next == title {
					return nil
				}
			}
		}
		return fmt.Errorf("the device is %s", system.Describe(v))
	})
}
