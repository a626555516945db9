package supervisor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

// shop runs release r1.
func shop(t *testing.T) *modelled {
	m := newModelled(t)
	t.Cleanup(func() { m.close(t) })
	want := release(1, "r1")
	m.accept(t, want)
	m.reach(t, want, nil)
	return m
}

func (m *modelled) wish(t *testing.T, kind state.IntentKind, services ...string) (granted, error) {
	t.Helper()
	x, err := newWish(m.target(), m.look(t), kind, Request{App: "shop", Services: services})
	if err != nil {
		return granted{}, err
	}
	x.at = time.Unix(1, 0)
	return m.ask(x)
}

// kinds lists the stored intents as text.
func (m *modelled) kinds(t *testing.T) []string {
	t.Helper()
	all, err := m.Store.Intents.All()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, i := range all {
		out = append(out, strings.TrimSpace(string(i.Kind)+" "+strings.Join(i.Services, ",")+strings.Repeat("*", len(i.Left))))
	}
	return out
}

// Who asks twice gets it once, and who changes their mind gets the last word.
func TestWishesJoinAndContradict(t *testing.T) {
	for _, c := range []struct {
		name   string
		wishes []string // kind service…
		joined bool     // the last of them
		want   []string // what is stored; one * for each object left
	}{
		{"restart of all", []string{"restart"}, false, []string{"restart ***"}},
		{"twice", []string{"restart", "restart"}, true, []string{"restart ***"}},
		{"one of all", []string{"restart", "restart web"}, true, []string{"restart ***"}},
		{"one, then all", []string{"restart web", "restart"}, false, []string{"restart *", "restart **"}},
		{"stop", []string{"stop web"}, false, []string{"stop web"}},
		{"stop twice", []string{"stop web", "stop web"}, true, []string{"stop web"}},
		{"stop one, then all", []string{"stop web", "stop"}, false, []string{"stop db,job", "stop web"}},
		{"stop takes a restart back", []string{"restart", "stop web"}, false, []string{"restart **", "stop web"}},
		{"start takes a stop back", []string{"stop web", "start web"}, false, []string{}},
		{"start takes a part of it back", []string{"stop", "start web"}, false, []string{"stop db,job"}},
		{"start of what runs", []string{"start web"}, true, []string{}},
		{"restart takes a stop back", []string{"stop web", "restart web"}, false, []string{"restart *"}},
		{"purge", []string{"purge", "purge"}, true, []string{"purge *"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := shop(t)
			var last granted
			for _, w := range c.wishes {
				f := strings.Fields(w)
				g, err := m.wish(t, state.IntentKind(f[0]), f[1:]...)
				if err != nil {
					t.Fatalf("%s: %v", w, err)
				}
				last = g
			}
			got := m.kinds(t)
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if last.joined != c.joined || last.text == "" {
				t.Errorf("joined %t, want %t: %q", last.joined, c.joined, last.text)
			}
		})
	}
}

// A stop lasts over a restart of everything, and a start ends it.
func TestAStopLasts(t *testing.T) {
	m := shop(t)
	phase := func() state.Phase {
		for _, c := range m.look(t).Apps["aaaa"].Containers {
			if c.Service == "web" {
				return c.Phase
			}
		}
		return "none"
	}
	if _, err := m.wish(t, state.Stop, "web"); err != nil {
		t.Fatal(err)
	}
	m.close(t)
	m.open(t)
	m.use(release(1, "r1"))
	m.reach(t, m.target(), nil)
	if p := phase(); p != state.Exited {
		t.Errorf("web is %s", p)
	}
	if _, err := m.wish(t, state.Start, "web"); err != nil {
		t.Fatal(err)
	}
	m.reach(t, m.target(), nil)
	if p := phase(); p != state.Running || len(m.kinds(t)) != 0 {
		t.Errorf("web is %s, left to do: %v", p, m.kinds(t))
	}
}

// What a request names must exist; the answer says what does.
func TestWishesAreChecked(t *testing.T) {
	m := shop(t)
	w := m.look(t)
	twins := m.target()
	twins.Apps = map[string]state.App{"aaaa": twins.Apps["aaaa"], "bbbb": {UUID: "bbbb", ID: 2, Name: "shop"}}
	for _, c := range []struct {
		target state.Target
		kind   state.IntentKind
		r      Request
		want   string
	}{
		{m.target(), state.Restart, Request{App: "ship"}, "there is no app ship; the device has shop"},
		{m.target(), state.Restart, Request{}, "names no app"},
		{m.target(), state.Restart, Request{App: "shop", Services: []string{"wob"}}, "shop has no service wob; it has db, job, web"},
		{twins, state.Restart, Request{App: "shop"}, "name the UUID instead: aaaa, bbbb"},
		{twins, state.Restart, Request{App: "2"}, "no container that could be restarted"},
		{twins, state.Purge, Request{App: "bbbb"}, "has no volumes"},
		{twins, state.Stop, Request{App: "bbbb"}, "no release of shop is wanted"},
		{m.target(), "dance", Request{App: "1"}, `no request of the kind "dance"`},
	} {
		x, err := newWish(c.target, w, c.kind, c.r)
		if err == nil {
			_, err = m.ask(x)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %+v: %v, want %q", c.kind, c.r, err, c.want)
		}
	}
	if got := m.kinds(t); len(got) != 0 {
		t.Errorf("refused requests were written down: %v", got)
	}
}
