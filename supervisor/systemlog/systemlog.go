// Package systemlog says in the log of a device, which its owner reads in the cloud, what the
// supervisor does and what containers do by themselves.
package systemlog

import (
	"context"
	"maps"
	"slices"
	"sync"

	"deckhand/logs"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/supervisor/history"
)

// Programs and people of balena's look for these texts. They stand before the name
// of what they are about, and an error follows them.
const (
	sayStarting  = "Supervisor starting"
	sayRebooting = "Rebooting"
	sayExited    = "Service exited"
	sayRestarts  = "Restarting service"
	sayEnded     = "Service is already stopped, removing container"
	sayGone      = "Service is already stopped and the container removed"
)

// saying is what is said about a kind of step; empty: nothing.
type saying struct {
	begins, done, failed string
}

// sayings is the table of steps. A step that is not in it is nothing that people
// of balena's know.
func sayings(step reconcile.Step) saying {
	switch step.(type) {
	case reconcile.Fetch:
		return saying{"Downloading image", "Downloaded image", "Failed to download image"}
	case reconcile.RemoveImage:
		return saying{"Deleting image", "Deleted image", "Failed to delete image"}
	case reconcile.Create:
		return saying{"Installing service", "Installed service", "Failed to install service"}
	case reconcile.Start:
		return saying{"Starting service", "Started service", "Failed to start service"}
	case reconcile.Stop:
		return saying{"Killing service", "Killed service", "Failed to kill service"}
	case reconcile.Remove:
		return saying{sayEnded, sayGone, "Failed to kill service"}
	case reconcile.CreateVolume:
		return saying{"Creating volume", "", "Error creating volume"}
	case reconcile.RemoveVolume:
		return saying{"Removing volume", "", "Error removing volume"}
	case reconcile.CreateNetwork:
		return saying{"Creating network", "", "Error creating network"}
	case reconcile.RemoveNetwork:
		return saying{"Removing network", "", "Error removing network"}
	case reconcile.TakeLocks:
		return saying{"Taking update locks", "", ""}
	case reconcile.ReleaseLocks:
		return saying{"Releasing update locks", "", ""}
	case reconcile.Reboot:
		return saying{sayRebooting, "", ""}
	case reconcile.Rename:
		return saying{"Updating config for service", "Updated config for service", "Failed to update config for service"}
	case reconcile.CreateAPINetwork, reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.Await, reconcile.Handover,
		reconcile.Commit, reconcile.Fulfil, reconcile.RequireReboot:
	}
	return saying{}
}

// Log says in the log of the device what the supervisor does.
type Log struct {
	journal *logs.Journal

	mu      sync.Mutex
	world   state.World
	stopped map[string]bool        // containers that we stop or have stopped
	phases  map[string]state.Phase // containers, as they were last seen
	locked  map[string]bool        // locks that are waited for

	rejected map[string]string // apps of the target, with release and reason
}

// New makes a log that writes to a journal.
func New(j *logs.Journal) *Log {
	return &Log{journal: j, stopped: map[string]bool{}, phases: map[string]state.Phase{}}
}

// Run carries lines to where they are read, until ctx ends.
func (l *Log) Run(ctx context.Context) { l.journal.Run(ctx) }

// Starting is the first line of a process.
func (l *Log) Starting() { l.Say(sayStarting) }

// Say writes a line.
func (l *Log) Say(text string) { l.journal.Say(logs.Line{Message: text}) }

// Refused says that a target cannot be used at all.
func (l *Log) Refused(err error) {
	l.journal.Say(logs.Line{Message: "Could not move to new release: " + cause(err), Stderr: true})
}

// Accepted says which apps of a new target are rejected, once.
func (l *Log) Accepted(t state.Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rejected := map[string]string{}
	for _, uuid := range slices.Sorted(maps.Keys(t.Apps)) {
		a := t.Apps[uuid]
		if a.Rejected == "" {
			continue
		}
		rejected[uuid] = a.Commit + a.Rejected
		if l.rejected[uuid] != rejected[uuid] {
			l.journal.Say(logs.Line{Message: "Could not move to new release: " + a.Name + ": " + a.Rejected, Stderr: true, AppUUID: uuid, AppID: a.ID})
		}
	}
	l.rejected = rejected
}

func cause(err error) string {
	if err == nil || err.Error() == "" {
		return "Unknown cause"
	}
	return history.PlainText(err)
}

// Event says that a step begins or has ended.
func (l *Log) Event(e run.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	words, step := sayings(e.Node.Step), e.Node.Step
	text := words.begins
	switch {
	case e.Ended && e.Err != nil:
		text = words.failed
	case e.Ended:
		text = words.done
	}
	if s, ok := step.(reconcile.Stop); ok {
		l.stopped[s.Container] = true
	}
	if s, ok := step.(reconcile.Remove); ok && e.Err == nil {
		if l.stopped[s.Container] {
			text = "" // that it was killed is said
		}
		if e.Ended {
			delete(l.stopped, s.Container)
		}
	}
	class := state.ClassOf(e.Err)
	if text == "" || e.Err != nil && class == state.ClassCancelled {
		return
	}
	about := history.SubjectOf(step)
	line := logs.Line{Message: quoted(text, l.object(step)), AppUUID: about.App, AppID: l.world.Apps[about.App].ID}
	if e.Err != nil {
		line.Message, line.Stderr = line.Message+" due to '"+cause(e.Err)+"'", true
	}
	l.journal.Say(line)
}

func quoted(text, object string) string {
	if object == "" {
		return text
	}
	return text + " '" + object + "'"
}

// object is what a step is about, as balena's supervisor names it; the lock is
// held.
func (l *Log) object(step reconcile.Step) string {
	switch s := step.(type) {
	case reconcile.Fetch:
		return s.Image
	case reconcile.RemoveImage:
		if len(s.Refs) > 0 {
			return s.Refs[0]
		}
		return s.ID
	case reconcile.Create:
		return s.Service.Name + " " + l.image(s.Service.Image)
	case reconcile.Start:
		return s.Service + " " + l.image(s.Image)
	case reconcile.Stop:
		return s.Service + " " + l.imageOf(s.Container)
	case reconcile.Remove:
		return s.Service + " " + l.imageOf(s.Container)
	case reconcile.Rename:
		return s.Service + " " + l.imageOf(s.Container)
	case reconcile.CreateVolume:
		return s.Volume.Name
	case reconcile.RemoveVolume:
		return s.Name
	case reconcile.CreateNetwork:
		return s.Network.Name
	case reconcile.RemoveNetwork:
		return s.Name
	case reconcile.TakeLocks, reconcile.ReleaseLocks, reconcile.Reboot, reconcile.CreateAPINetwork, reconcile.WriteFiles,
		reconcile.RemoveFiles, reconcile.Await, reconcile.Handover, reconcile.Commit, reconcile.Fulfil, reconcile.RequireReboot:
	}
	return ""
}

// image is the engine's ID of an image, or its reference while it is not there.
func (l *Log) image(ref string) string {
	ref = state.Reference(ref)
	for id, im := range l.world.Images {
		if slices.Contains(im.Refs, ref) {
			return id
		}
	}
	return ref
}

// imageOf is the image that a container was made from.
func (l *Log) imageOf(container string) string {
	for _, a := range l.world.Apps {
		for _, c := range a.Containers {
			if c.ID == container {
				return c.Image
			}
		}
	}
	return "(unknown image)"
}

// Status takes a new look at the device, and says what containers did by themselves,
// and that an update has begun to wait for a lock.
func (l *Log) Status(s run.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.world = s.World
	phases := map[string]state.Phase{}
	for _, uuid := range slices.Sorted(maps.Keys(s.World.Apps)) {
		a := s.World.Apps[uuid]
		for _, c := range a.Containers {
			phases[c.ID] = c.Phase
			if text := l.byItself(c); text != "" {
				l.journal.Say(logs.Line{Message: quoted(text, c.Service+" "+c.Image), AppUUID: uuid, AppID: a.ID})
			}
		}
	}
	l.phases = phases
	maps.DeleteFunc(l.stopped, func(id string, _ bool) bool { return phases[id] == "" })
	locked := map[string]bool{}
	for _, w := range s.Plan.Waiting {
		if w.Class != state.ClassLocked {
			continue
		}
		text := w.Text + " by " + w.Holder
		if locked[text] = true; !l.locked[text] {
			// The update goes on as soon as the lock is given up.
			l.journal.Say(logs.Line{Message: "Updates are locked, retrying in 1s. Reason: " + text, Stderr: true})
		}
	}
	l.locked = locked
}

// byItself is what a container has done without a step of ours.
func (l *Log) byItself(c state.Container) string {
	was := l.phases[c.ID]
	if c.Phase == state.Running {
		if was != state.Running {
			delete(l.stopped, c.ID)
		}
		return ""
	}
	up := was == state.Running || was == state.Paused
	switch {
	case l.stopped[c.ID] || c.Halted:
	case c.Phase == state.Exited && (up || was == state.Restarting):
		return sayExited
	case c.Phase == state.Restarting && up:
		return sayRestarts
	}
	return ""
}
