package main

import (
	"bytes"
	"testing"
	"time"

	"deckhand/state"
	"deckhand/supervisor"
	"deckhand/supervisor/history"
	"deckhand/test/golden"
)

// What a tired person reads at three in the morning.
func TestPrintExplanation(t *testing.T) {
	t.Setenv("TZ", "UTC")
	old := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = old })
	now := time.Date(2026, 3, 1, 3, 7, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	three := 34
	for name, e := range map[string]history.Explanation{
		"explain-locked.txt": {
			App: "shop", Service: "web", Asked: now, Verdict: "an update lock is held by shop/web: updates.lock (uid 1000)",
			Runs:  &history.RunsNow{Status: "running", Health: "healthy", Release: "1a2b3c4d5e", Container: "0123456789abcdef", Created: ago(74 * time.Hour)},
			Wants: &history.WantsNow{Release: "5d6e7f8a9b", Running: true, Since: ago(12 * time.Minute)},
			Blockers: []history.Blocker{{
				Kind: history.BlockedLock, Text: "an update lock is held by shop/web: updates.lock (uid 1000)", Class: state.ClassLocked,
				Since: ago(2*time.Hour + 3*time.Minute), Advice: "wait until it is given up, or break it: deckhand override shop",
			}},
			Next: []history.NextStep{{Title: "stop shop/web 0123456789ab", Why: "settings changed"}, {Title: "fetch sha256:99 for shop/web", Why: "image is not on the device", Running: true, Percent: &three}},
			Restart: &history.Restart{
				At: ago(74 * time.Hour), Cause: "settings changed", Changes: []state.Change{{Field: "restart.name", Was: "no", Now: "always"}, {Field: "environment.LEVEL changed"}},
				Release: "1a2b3c4d5e", By: "new target for shop: release 0000000 → 1a2b3c4", Asked: ago(74*time.Hour + 40*time.Second), Down: state.Duration(412 * time.Millisecond),
			},
			Notes: []string{"the cloud is not reached, so a newer release is not known here: no such host"},
			Past: []history.Event{
				{At: ago(11 * time.Minute), Title: "take locks of shop waits", Class: state.ClassLocked, Text: "an update lock is held by shop/web"},
				{At: ago(12 * time.Minute), Title: "new target for shop", Outcome: "done", Why: "from https://api.example", Text: "release 1a2b3c4 → 5d6e7f8"},
				{At: ago(74 * time.Hour), Title: "start shop/web", Outcome: "done", Why: "settings changed", Took: state.Duration(210 * time.Millisecond)},
				{At: ago(74*time.Hour + 9*time.Second), Title: "fetch web for shop/web", Outcome: "failed", Took: state.Duration(3210 * time.Millisecond), Class: state.ClassNetwork, Text: "connection reset"},
			},
		},
		"explain-resting.txt": {
			App: "shop", Service: "web", Asked: now, Verdict: "fetch web for shop/web failed: no space left on device",
			Wants: &history.WantsNow{Release: "5d6e7f8a9b", Running: false},
			Blockers: []history.Blocker{{
				Kind: history.BlockedFailure, Text: "fetch web for shop/web failed: no space left on device", Class: state.ClassSpace, Tries: 4,
				Until: ago(time.Minute), Advice: "free disk space or use smaller images",
			}},
			Past: []history.Event{},
		},
	} {
		var out bytes.Buffer
		if err := printExplanation(&out, e); err != nil {
			t.Fatal(err)
		}
		golden.File(t, "testdata/"+name, out.String())
	}
}

// What stands in the way, what people asked for and what they allowed is all in
// one place.
func TestPrintStatus(t *testing.T) {
	old := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = old })
	now := time.Now().UTC()
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	var out bytes.Buffer
	err := printStatus(&out, supervisor.View{
		Name: "dev", Device: "abc", Engine: "Docker 29", State: supervisor.StateWaiting, Reboot: true,
		Apps: []supervisor.AppView{{Name: "shop", Release: "1a2b3c4d5e", Target: "5d6e7f8a9b", Services: []supervisor.ServiceView{
			{Name: "web", Status: "running", Health: "healthy", Release: "1a2b3c4d5e", Note: "it holds an update lock"},
			{Name: "db", Status: "exited", Release: "1a2b3c4d5e", Note: "stopped for the owner"},
		}}},
		Waiting:  []supervisor.WaitView{{Step: "take locks of shop", Class: state.ClassLocked, Text: "an update lock is held", Holder: "shop/web: uid 1000", Since: now.Add(-125 * time.Minute), Advice: "wait until the lock is given up, or override it"}},
		Requests: []supervisor.RequestView{{Kind: state.Stop, App: "shop", Services: []string{"db"}, By: "the owner", At: at}},
		Override: []supervisor.OverrideView{{App: "lab", By: "the owner", Until: at}, {By: "configuration variable BALENA_SUPERVISOR_OVERRIDE_LOCK"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/status.txt", out.String())
}
