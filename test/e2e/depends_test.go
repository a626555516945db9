//go:build engine && linux

package e2e

import (
	"testing"
)

// after is the composition of a service that depends on others.
func after(conditions map[string]any, more map[string]any) map[string]any {
	out := map[string]any{"depends_on": conditions}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// wellWhenTold is a health check that succeeds once somebody makes a file.
func wellWhenTold() map[string]any {
	return map[string]any{"test": []string{"CMD", "test", "-e", "/tmp/well"}, "interval": "200ms", "retries": 1000}
}

// An update, like the first start, waits for a dependency to be healthy; the
// dependent's old container runs until then.
func TestUpdateWaitsForHealth(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	release := func(v string) map[string]any {
		return map[string]any{
			"db":  version(runsWith("hello:1", map[string]any{"healthcheck": wellWhenTold()}), v),
			"web": version(runsWith("hello:1", after(map[string]any{"db": map[string]any{"condition": "service_healthy"}}, nil)), v),
		}
	}
	tape := s.record()
	a := app("1", "a", release("1"))
	p.offer(a)
	p.device()
	for n, commit := range []string{a.commit, "b"} {
		db, web := label("db", n+1), label("web", n+1)
		if n > 0 {
			b := app("1", commit, release("2"))
			commit = b.commit
			p.offer(b)
		}
		tape.waitsFor("start " + db)
		s.waitsForStep("await app1/db healthy")
		tape.never("start " + web)
		s.exec(tape.container(db), "touch", "/tmp/well")
		s.settlesAt(commit)
		tape.order("start "+db, "healthy "+db, "start "+web)
	}
	s.runs("db", "web")
	tape.order("create web 2", "kill web 1", "die web 1", "start web 2")
	t.Logf("down: db %v, web %v", tape.downtime("db", 1, 2), tape.downtime("web", 1, 2))
}

// A migration that runs once to its end comes before the services that need it,
// in each release that changes it, and is left alone otherwise.
func TestMigrationRunsBeforeItsDependents(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	release := func(migration, web string) map[string]any {
		once := map[string]any{"restart": "no", "command": []string{"sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.05; done"}}
		return map[string]any{
			"migrate": version(runsWith("hello:1", once), migration),
			"web": version(runsWith("hello:1", after(map[string]any{
				"migrate": map[string]any{"condition": "service_completed_successfully"}}, nil)), web),
		}
	}
	tape := s.record()
	a := app("1", "a", release("1", "1"))
	p.offer(a)
	p.device()
	tape.waitsFor("start migrate 1")
	s.waitsForStep("await app1/migrate completed")
	tape.never("start web 1")
	s.exec(tape.container("migrate 1"), "touch", "/tmp/end")
	s.settlesAt(a.commit)
	tape.order("start migrate 1", "die migrate 1", "start web 1")

	b := app("1", "b", release("2", "2"))
	p.offer(b)
	tape.waitsFor("start migrate 2")
	s.waitsForStep("await app1/migrate completed")
	tape.never("start web 2")
	s.exec(tape.container("migrate 2"), "touch", "/tmp/end")
	s.settlesAt(b.commit)
	tape.order("die migrate 2", "start web 2")

	c := app("1", "c", release("2", "3"))
	p.offer(c)
	s.settlesAt(c.commit)
	tape.order("kill web 2", "start web 3")
	tape.never("create migrate 3", "destroy migrate 2")
}

// With restart: true a dependent restarts with what it depends on; without, it
// runs on. A dependency that is not required holds nobody up for good.
func TestDependentsThatRestart(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	release := func(v string) map[string]any {
		return map[string]any{
			"db":     version(runsImage("hello:1"), v),
			"bound":  runsWith("hello:1", after(map[string]any{"db": map[string]any{"condition": "service_started", "restart": true}}, nil)),
			"free":   runsWith("hello:1", after(map[string]any{"db": map[string]any{"condition": "service_started"}}, nil)),
			"broken": runsWith("hello:1", map[string]any{"restart": "no", "command": []string{"false"}}),
			"easy": runsWith("hello:1", after(map[string]any{
				"broken": map[string]any{"condition": "service_completed_successfully", "required": false}}, nil)),
		}
	}
	tape := s.record()
	a := app("1", "a", release("1"))
	p.offer(a)
	p.device()
	tape.waitsFor("start easy 1")
	tape.waitsFor("start bound 1")
	tape.waitsFor("start free 1")
	tape.order("die broken 1", "start easy 1")

	b := app("1", "b", release("2"))
	p.offer(b)
	s.appAt(b, b.commit, "")
	tape.order("kill bound 1", "start db 2")
	tape.order("kill db 1", "start db 2")
	if i, _ := tape.find("start db 2", 0); tape.times("start bound 1") != 2 {
		t.Error("the dependent was not started again, or too often")
	} else if _, ok := tape.find("start bound 1", i); !ok {
		t.Error("the dependent was started before its dependency")
	}
	tape.never("create bound 2", "kill free 1", "die free 1", "kill db 2")
}
