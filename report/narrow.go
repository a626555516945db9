package report

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// maxReport is how large a report may be, in bytes. Clouds refuse more than 512 kB.
const maxReport = 500 << 10

// piece is a part of a report that a cloud may refuse: a release of an app, or
// with no commit the app.
type piece struct{ app, commit string }

// limits is what the cloud does not take, as far as we know, from a device with a
// certain target.
type limits struct {
	target  string
	refused map[piece]bool
	size    int    // bytes; 0: maxReport
	cut     string // what was left out for its size, and said
	denied  bool   // it is the device that is refused, not a part of its report
}

// renew forgets what was refused when the target is another one.
func (l *limits) renew(target string) {
	if l.refused == nil || l.target != target {
		*l = limits{target: target, refused: map[piece]bool{}, denied: l.denied}
	}
}

// apply leaves out what is refused.
func (l *limits) apply(now Report) Report {
	if len(l.refused) == 0 || now.Device.Apps == nil {
		return now
	}
	apps := map[string]App{}
	for uuid, a := range now.Device.Apps {
		if l.refused[piece{uuid, ""}] {
			continue
		}
		a.Releases = maps.Clone(a.Releases)
		maps.DeleteFunc(a.Releases, func(commit string, _ Release) bool { return l.refused[piece{uuid, commit}] })
		if l.refused[piece{uuid, a.ReleaseUUID}] {
			a.ReleaseUUID = ""
		}
		apps[uuid] = a
	}
	now.Device.Apps = apps
	return now
}

// fit cuts a report down to the size that the cloud takes: first what only people
// read, then releases that are not wanted any more, then whole apps. left says what
// is missing; empty: nothing.
func (l *limits) fit(now Report) (fitting Report, left string) {
	most := l.size
	if most == 0 {
		most = maxReport
	}
	for _, cut := range []struct {
		left string
		do   func(App) App
	}{
		{"", func(a App) App { return a }},
		{"what updates wait for", func(a App) App { a.Waiting = nil; return a }},
		{"old releases", onlyTarget},
	} {
		now.Device.Apps = each(now.Device.Apps, cut.do)
		if sizeOf(now) <= most {
			return now, cut.left
		}
	}
	all := slices.Sorted(maps.Keys(now.Device.Apps))
	for n := len(all) - 1; n >= 0 && sizeOf(now) > most; n-- {
		delete(now.Device.Apps, all[n])
		left = fmt.Sprintf("%d of %d apps", len(all)-n, len(all))
	}
	return now, left
}

func sizeOf(r Report) int {
	b, err := json.Marshal(r)
	if err != nil {
		return 0 // the sender sees the error
	}
	return len(b)
}

func each(apps map[string]App, do func(App) App) map[string]App {
	if apps == nil {
		return nil
	}
	out := map[string]App{}
	for uuid, a := range apps {
		out[uuid] = do(a)
	}
	return out
}

// onlyTarget leaves out all releases but the wanted one.
func onlyTarget(a App) App {
	releases := map[string]Release{}
	if r, ok := a.Releases[a.target]; ok {
		releases[a.target] = r
	}
	a.Releases = releases
	if a.ReleaseUUID != a.target {
		a.ReleaseUUID = ""
	}
	return a
}

// others are the releases beside the wanted one that an app speaks of.
func others(a App) []string {
	all := map[string]bool{}
	for commit := range a.Releases {
		all[commit] = true
	}
	if a.ReleaseUUID != "" {
		all[a.ReleaseUUID] = true
	}
	delete(all, a.target)
	return slices.Sorted(maps.Keys(all))
}

// with puts one release of now back into a report.
func (r Report) with(now Report, p piece) Report {
	from := now.Device.Apps[p.app]
	r.Device.Apps = maps.Clone(r.Device.Apps)
	a := r.Device.Apps[p.app]
	a.Releases = maps.Clone(a.Releases)
	if release, ok := from.Releases[p.commit]; ok {
		a.Releases[p.commit] = release
	}
	if from.ReleaseUUID == p.commit {
		a.ReleaseUUID = p.commit
	}
	r.Device.Apps[p.app] = a
	return r
}

// refusal reports whether a status may be about a part of the report only.
func refusal(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

func denial(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// narrow finds out which part of a refused report the cloud does not take, and
// sends the rest: one app that was deleted there must not silence the device. An
// error means that it is not a part.
func (r *runner) narrow(ctx context.Context, now Report, because error) error {
	rest, err := r.news(now)
	if err != nil {
		return err
	}
	_, apps := rest["apps"]
	delete(rest, "apps")
	switch {
	case !apps && denial(r.status(because)):
		r.limits.denied = true
		return because
	case !apps:
		return r.fieldByField(ctx, now, rest)
	case len(rest) > 0:
		err = r.sendFields(ctx, now, rest)
	case denial(r.status(because)):
		err = r.probe(ctx, now.UUID)
	}
	switch status := r.status(err); {
	case err == nil:
	case denial(status):
		r.limits.denied = true
		return because
	case refusal(status):
		if err := r.fieldByField(ctx, now, rest); err != nil {
			return err
		}
		if because = r.send(ctx, now); because == nil || !refusal(r.status(because)) {
			return because // apps were not what was wrong
		}
	default:
		return err
	}
	if r.status(because) == http.StatusRequestEntityTooLarge {
		return r.smaller(ctx, now, because)
	}
	return r.piecemeal(ctx, now, because)
}

// probe is a report that changes nothing: it shows whether the device may report.
func (r *runner) probe(ctx context.Context, uuid string) error {
	b, err := json.Marshal(map[string]map[string]string{uuid: {"status": idle}})
	if err != nil {
		return err
	}
	return r.Cloud.Report(ctx, b)
}

// fieldByField sends one field of the device after the other. What is refused is
// not sent again until it has another value.
func (r *runner) fieldByField(ctx context.Context, now Report, rest map[string]json.RawMessage) error {
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		patch, err := encode(now.UUID, map[string]json.RawMessage{name: rest[name]})
		if err == nil {
			err = r.Cloud.Report(ctx, patch)
		}
		if err == nil {
			continue
		}
		if status := r.status(err); !refusal(status) || denial(status) {
			return err
		}
		r.tell(fmt.Errorf("the cloud refuses the field %s of the report; it goes without: %w", name, err), 0)
	}
	r.acknowledged(now, rest)
	return nil
}

// smaller halves the report until the cloud takes it.
func (r *runner) smaller(ctx context.Context, now Report, err error) error {
	const least = 256
	size := sizeOf(now)
	for r.status(err) == http.StatusRequestEntityTooLarge && size > least {
		size /= 2
		r.limits.size = size
		err = r.send(ctx, r.fitting(now))
	}
	return err
}

// fitting is the report in the size that the cloud takes.
func (r *runner) fitting(now Report) Report {
	fitting, left := r.limits.fit(now)
	if left != "" && left != r.limits.cut {
		r.tell(fmt.Errorf("the report is too large for the cloud; it goes without %s", left), 0)
	}
	r.limits.cut = left
	return fitting
}

// piecemeal adds app by app, release by release, and notes what is refused.
func (r *runner) piecemeal(ctx context.Context, now Report, because error) error {
	refused := func(err error) bool { return refusal(r.status(err)) }
	try := func(what Report) error {
		if _, same, err := Diff(now, what); err == nil && same {
			return because // that was refused just now
		}
		return r.send(ctx, what)
	}
	base := now
	base.Device.Apps = each(now.Device.Apps, onlyTarget)
	if err := try(base); err != nil {
		if !refused(err) {
			return err
		}
		wanted := base.Device.Apps
		base.Device.Apps = map[string]App{}
		for _, uuid := range slices.Sorted(maps.Keys(wanted)) {
			more := base
			more.Device.Apps = maps.Clone(base.Device.Apps)
			more.Device.Apps[uuid] = wanted[uuid]
			switch err := try(more); {
			case err == nil:
				base = more
			case refused(err):
				r.refuse(piece{uuid, ""}, err)
			default:
				return err
			}
		}
	}
	for _, uuid := range slices.Sorted(maps.Keys(base.Device.Apps)) {
		for _, commit := range others(now.Device.Apps[uuid]) {
			p := piece{uuid, commit}
			more := base.with(now, p)
			switch err := try(more); {
			case err == nil:
				base = more
			case refused(err):
				r.refuse(p, err)
			default:
				return err
			}
		}
	}
	return nil
}

func (r *runner) refuse(p piece, err error) {
	r.limits.refused[p] = true
	what := "app " + p.app
	if p.commit != "" {
		what = "release " + p.commit + " of app " + p.app
	}
	r.tell(fmt.Errorf("the cloud refuses %s; it is not reported until the target changes: %w", what, err), 0)
}
