package database

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/cloud/model"
)

// firstVersion is the schema of one container, manyVersion that of many.
const firstVersion, manyVersion = 1, 3

// size is how much a generated database of one container holds.
type size struct{ applications, builds, devices int }

var small = size{applications: 20, builds: 400, devices: 1000}

// migrate is the child: it brings the schema up to date.
func migrate(cfg model.Config) error {
	m, err := model.OpenMigrator(context.Background(), cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	fmt.Println("begin")
	_, err = m.Up(context.Background())
	return err
}

// migrator opens the schema for as long as do takes.
func migrator(t *testing.T, cfg model.Config, do func(*model.Migrator)) {
	t.Helper()
	m, err := model.OpenMigrator(t.Context(), cfg)
	must(t, err)
	defer func() { must(t, m.Close()) }()
	do(m)
}

// generated is a database of one container: every third device stays on a build of
// its own, every fifth application has none yet.
func generated(t *testing.T, cfg model.Config, s size) *sql.DB {
	t.Helper()
	migrator(t, cfg, func(m *model.Migrator) {
		if _, err := m.UpTo(t.Context(), firstVersion); err != nil {
			t.Fatal(err)
		}
	})
	db := raw(t, cfg)
	g := &generator{t: t, db: db}
	users := max(s.applications/10, 1)
	g.rows("actor", "id, created_at", users+s.applications+s.devices, func(i int) string { return fmt.Sprintf("%d, 1", i) })
	g.rows(`"user"`, "id, created_at, actor, username, password, jwt_secret", users, func(i int) string { return fmt.Sprintf("%d, 1, %d, 'user%d', 'x', 'x'", i, i, i) })
	g.rows("cpu_architecture", "id, created_at, slug", 1, func(int) string { return "1, 1, 'amd64'" })
	g.rows("device_type", "id, created_at, slug, name, is_of__cpu_architecture", 1, func(int) string { return "1, 1, 'generic-amd64', 'Generic', 1" })
	builds := s.builds / s.applications
	g.rows("application", `id, created_at, actor, "user", app_name, device_type, "commit"`, s.applications, func(i int) string {
		commit := "NULL"
		if i%5 != 0 {
			commit = fmt.Sprintf("'%040x'", i*1000+builds-1)
		}
		return fmt.Sprintf("%d, 1, %d, %d, 'App-%d', 1, %s", i, users+i, 1+i%users, i, commit)
	})
	g.rows("build", `id, created_at, application, "commit", image, content_hash, status, log, start_timestamp, end_timestamp, push_timestamp`, builds*s.applications, func(i int) string {
		app, n := 1+(i-1)/builds, (i-1)%builds
		status := "success"
		if n == 1 {
			status = "failed"
		}
		return fmt.Sprintf("%d, %d, %d, '%040x', 'v2/%032x', 'sha256:%064x', '%s', 'log of build %d', %d, %d, %d", i, i, app, app*1000+n, i, i, status, i, i, i+1, i+1)
	})
	g.rows("device", `id, created_at, actor, uuid, device_name, device_type, application, build, "commit", is_online, last_seen, status`, s.devices, func(i int) string {
		app := 1 + i%s.applications
		commit := "NULL"
		if i%3 == 0 {
			commit = fmt.Sprintf("'%040x'", app*1000)
		}
		return fmt.Sprintf("%d, 1, %d, '%032x', 'device %d', 1, %d, %d, %s, TRUE, 5, 'Idle'", i, users+s.applications+i, i, i, app, (app-1)*builds+1, commit)
	})
	g.rows("environment_variable", "created_at, application, name, value", 2*s.applications, func(i int) string {
		return fmt.Sprintf("1, %d, '%s', 'of application %d'", 1+(i-1)/2, []string{"COLOUR", "RESIN_SUPERVISOR_POLL_INTERVAL"}[i%2], i)
	})
	g.rows("device_environment_variable", "created_at, device, name, value", s.devices, func(i int) string {
		return fmt.Sprintf("1, %d, '%s', 'of device %d'", i, []string{"COLOUR", "SIZE", "RESIN_OVERRIDE_LOCK"}[i%3], i)
	})
	g.rows("device_log", `device, created_at, "timestamp", is_system, message`, s.devices, func(i int) string { return fmt.Sprintf("%d, 7, 7, FALSE, 'line of %d'", i, i) })
	if cfg.Database != "" {
		for _, table := range []string{"actor", `"user"`, "cpu_architecture", "device_type", "application", "build", "device"} {
			g.exec(fmt.Sprintf(`SELECT setval(pg_get_serial_sequence('%s', 'id'), (SELECT max(id) FROM %s))`, table, table))
		}
	}
	return db
}

type generator struct {
	t  *testing.T
	db *sql.DB
}

func (g *generator) exec(statement string) {
	g.t.Helper()
	if _, err := g.db.ExecContext(g.t.Context(), statement); err != nil {
		g.t.Fatalf("%v\n%.300s", err, statement)
	}
}

// rows inserts n rows, numbered from 1.
func (g *generator) rows(table, columns string, n int, row func(int) string) {
	g.t.Helper()
	const atOnce = 1000
	for first := 1; first <= n; first += atOnce {
		var values []string
		for i := first; i <= min(n, first+atOnce-1); i++ {
			values = append(values, "("+row(i)+")")
		}
		g.exec("INSERT INTO " + table + " (" + columns + ") VALUES " + strings.Join(values, ", "))
	}
}

// state is what a device is told to do: all that the move must not change.
type state struct {
	Commit, Image string // of what it should run
	Running       string // the commit that it runs
	Pinned        bool
	Environment   map[string]string
	Config        map[string]string
}

// before reads the states of devices whose id is a multiple of every.
func before(t *testing.T, db *sql.DB, every int) map[string]state {
	t.Helper()
	states := map[string]state{}
	rows, err := db.QueryContext(t.Context(), fmt.Sprintf(`
		SELECT d.uuid, coalesce(b."commit", ''), coalesce(b.image || '@' || b.content_hash, ''), coalesce(r."commit", ''), d."commit" IS NOT NULL
		FROM device d JOIN application a ON a.id = d.application LEFT JOIN build r ON r.id = d.build
		LEFT JOIN build b ON b.application = a.id AND b."commit" = coalesce(d."commit", a."commit") WHERE d.id %% %d = 0`, every))
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		s := state{Environment: map[string]string{}, Config: map[string]string{}}
		var uuid string
		must(t, rows.Scan(&uuid, &s.Commit, &s.Image, &s.Running, &s.Pinned))
		states[uuid] = s
	}
	must(t, rows.Err())
	for _, query := range []string{
		`SELECT d.uuid, v.name, v.value FROM device d JOIN environment_variable v ON v.application = d.application WHERE d.id %% %d = 0`,
		`SELECT d.uuid, v.name, v.value FROM device d JOIN device_environment_variable v ON v.device = d.id WHERE d.id %% %d = 0`,
	} {
		variables(t, db, fmt.Sprintf(query, every), states)
	}
	return states
}

func variables(t *testing.T, db *sql.DB, query string, states map[string]state) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var uuid, name, value string
		must(t, rows.Scan(&uuid, &name, &value))
		into := states[uuid].Environment
		if strings.HasPrefix(name, "RESIN_") {
			into = states[uuid].Config
		}
		into[name] = value
	}
	must(t, rows.Err())
}

// after reads the same as the cloud tells it to devices now.
func after(t *testing.T, cfg model.Config, uuids map[string]state) map[string]state {
	t.Helper()
	db, err := model.Open(t.Context(), cfg)
	must(t, err)
	defer db.Close()
	states := map[string]state{}
	for uuid := range maps.Keys(uuids) {
		states[uuid] = told(t, db, uuid)
	}
	return states
}

func told(t *testing.T, db *model.DB, uuid string) state {
	t.Helper()
	d, err := db.TargetDevice(t.Context(), uuid)
	must(t, err)
	fleet, err := db.TargetFleet(t.Context(), d.Fleet)
	must(t, err)
	s := state{Pinned: d.Pinned != 0, Environment: fleet.Environment, Config: fleet.Config}
	if d.Variables != nil {
		maps.Copy(s.Environment, d.Variables.Environment)
		maps.Copy(s.Config, d.Variables.Config)
	}
	row, err := db.DeviceByUUID(t.Context(), uuid)
	must(t, err)
	if row.RunningRelease != 0 {
		r, err := db.ReleaseByID(t.Context(), row.RunningRelease)
		must(t, err)
		s.Running = r.Commit
	}
	wanted := fleet.Release
	if s.Pinned {
		wanted = d.Pinned
	}
	if wanted == 0 {
		return s
	}
	r, err := db.TargetRelease(t.Context(), wanted)
	must(t, err)
	if len(r.Services) != 1 || r.Services[0].Name != "main" || !strings.Contains(string(r.Composition), `"main":`) {
		t.Fatalf("device %s: services %+v of %s", uuid, r.Services, r.Composition)
	}
	s.Commit = r.Commit
	_, s.Image, _ = strings.Cut(r.Services[0].Image, "/")
	return s
}

func count(t *testing.T, db *sql.DB, what string) int {
	t.Helper()
	var n int
	must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+what).Scan(&n))
	return n
}

func TestOneContainerBecomesMany(t *testing.T) {
	cfg := place(t)
	moved(t, cfg, small, 1)
	oneAgain(t, cfg, small)
}

// moved generates a database, moves it, killed as often as it takes to see that it
// goes on, and compares each every-th device.
func moved(t *testing.T, cfg model.Config, s size, every int) {
	t.Helper()
	old := generated(t, cfg, s)
	was := before(t, old, every)
	variablesWere := count(t, old, "environment_variable") + count(t, old, "device_environment_variable")
	pinnedWere := count(t, old, `device WHERE "commit" IS NOT NULL`)
	must(t, old.Close())
	killed := killedWhileMoving(t, cfg)
	started := time.Now()
	migrator(t, cfg, func(m *model.Migrator) {
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	took := time.Since(started)
	t.Logf("%s: killed %d times, then moved in %v; at most %d MiB in this process", kind(cfg), killed, took.Round(time.Millisecond), memory())
	db := raw(t, cfg)
	for what, want := range map[string]int{
		"application": s.applications, "service": s.applications, "release": s.builds, "image": s.builds, "image__is_part_of__release": s.builds,
		"device": s.devices, "image_install": s.devices, "service_install": s.devices, "device_log": s.devices,
		"device WHERE is_pinned_on__release IS NOT NULL": pinnedWere, `release WHERE build_log LIKE 'log of build %'`: s.builds,
	} {
		if got := count(t, db, what); got != want {
			t.Errorf("%s: %d rows, want %d", what, got, want)
		}
	}
	variablesAre := 0
	for _, kind := range []string{"application_environment", "application_config", "device_environment", "device_config"} {
		variablesAre += count(t, db, kind+"_variable")
	}
	if variablesAre != variablesWere {
		t.Errorf("%d variables, were %d", variablesAre, variablesWere)
	}
	if diff := cmp.Diff(was, after(t, cfg, was)); diff != "" {
		t.Errorf("what devices are told (-before +after):\n%.4000s", diff)
	}
	t.Logf("%d applications, %d builds, %d devices (%d pinned), %d variables: counts, pins and the targets of %d devices are the same",
		s.applications, s.builds, s.devices, pinnedWere, variablesWere, len(was))
}

// killedWhileMoving starts the move in a process of its own and kills it, later
// each time.
func killedWhileMoving(t *testing.T, cfg model.Config) (killed int) {
	t.Helper()
	for _, wait := range []time.Duration{5 * time.Millisecond, 30 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		cmd, lines := child(t, "migrate", cfg)
		if !lines.Scan() {
			t.Fatalf("the child says nothing: %v", cmd.Wait())
		}
		timer := time.AfterFunc(wait, func() { _ = cmd.Process.Kill() }) // it may have ended
		err := cmd.Wait()
		timer.Stop()
		if err == nil {
			t.Logf("it came to its end by itself before %v", wait)
			break
		}
		killed++
	}
	if killed == 0 {
		t.Error("it was never killed in the middle")
	}
	return killed
}

// oneAgain goes back as far as there is one container, and forward again.
func oneAgain(t *testing.T, cfg model.Config, s size) {
	t.Helper()
	migrator(t, cfg, func(m *model.Migrator) {
		for {
			step, err := m.Down(t.Context())
			must(t, err)
			if step.Version == manyVersion {
				break
			}
		}
	})
	db := raw(t, cfg)
	for what, want := range map[string]int{"application": s.applications, "build": s.builds, "device": s.devices} {
		if got := count(t, db, what); got != want {
			t.Errorf("back: %s: %d rows, want %d", what, got, want)
		}
	}
	was := before(t, db, 1)
	if diff := cmp.Diff(was, after(t, cfg, was)); diff != "" {
		t.Errorf("what devices are told after back and forth (-before +after):\n%.4000s", diff)
	}
}

func TestWhatWouldBeLostIsRefused(t *testing.T) {
	cfg := place(t)
	db, err := model.Open(t.Context(), cfg)
	must(t, err)
	u, err := db.CreateUser(t.Context(), "owner", "x")
	must(t, err)
	fleet, err := db.CreateFleet(t.Context(), model.NewFleet{Name: "fleet", DeviceType: "generic-amd64", User: u.ID})
	must(t, err)
	r, err := db.CreateRelease(t.Context(), model.NewRelease{Fleet: fleet.ID, Commit: "abc", Source: "local", Final: true, Composition: []byte(`{"services":{}}`)})
	must(t, err)
	for _, service := range []string{"one", "two"} {
		_, err := db.AddImage(t.Context(), model.NewImage{Release: r.ID, Service: service})
		must(t, err)
	}
	must(t, db.Close())
	migrator(t, cfg, func(m *model.Migrator) {
		for {
			step, err := m.Down(t.Context())
			if err == nil && step.Version > manyVersion {
				continue
			}
			if err == nil || !strings.Contains(err.Error(), "no place for fleets with other services than one (1)") {
				t.Errorf("got %v", err)
			}
			return
		}
	})
	opened(t, cfg) // and forward again
}
