// Package story reads the scenarios of package scenarios and plays them on the
// simulated device: what is on the device, what is asked for, and round by round
// what happens then.
package story

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
)

// Scenario is one file.
type Scenario struct {
	path    string
	archive *txtar.Archive

	old, half, new map[string][]byte // compose documents by app name
	options        options
	device         []string // lines

	Plan, Story string // the golden parts
}

// shop is the app of documents that name none.
const shop = "shop"

// Read reads a file.
func Read(path string) (*Scenario, error) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	s := &Scenario{path: path, archive: a, old: map[string][]byte{}, half: map[string][]byte{}, new: map[string][]byte{}}
	s.options = options{stopped: map[string]bool{}, heirs: map[string]string{}}
	if len(strings.TrimSpace(string(a.Comment))) == 0 {
		return nil, fmt.Errorf("%s: begin with a sentence that says what is shown", path)
	}
	for _, f := range a.Files {
		if err := s.section(f); err != nil {
			return nil, fmt.Errorf("%s: section %s: %w", path, f.Name, err)
		}
	}
	if (len(s.half) > 0) != (s.options.rounds > 0) {
		return nil, fmt.Errorf("%s: half.yml and the option \"interrupted after N rounds\" belong together", path)
	}
	return s, nil
}

func (s *Scenario) section(f txtar.File) error {
	switch f.Name {
	case "plan":
		s.Plan = string(f.Data)
		return nil
	case "story":
		s.Story = string(f.Data)
		return nil
	case "device":
		s.device = lines(f.Data)
		return nil
	case "options":
		for _, line := range lines(f.Data) {
			if err := s.options.set(line); err != nil {
				return err
			}
		}
		return nil
	}
	side, app, _ := strings.Cut(strings.TrimSuffix(f.Name, ".yml"), ".")
	if app == "" {
		app = shop
	}
	docs := map[string]map[string][]byte{"old": s.old, "half": s.half, "new": s.new}[side]
	if docs == nil || !strings.HasSuffix(f.Name, ".yml") {
		return fmt.Errorf("want old.yml, half.yml, new.yml, options, device, plan or story")
	}
	docs[app] = f.Data
	return nil
}

// Write puts the golden parts into the file and leaves the rest as it is.
func (s *Scenario) Write(got Outcome) error {
	for name, text := range map[string]string{"plan": got.Plan, "story": got.Story} {
		found := false
		for i, f := range s.archive.Files {
			if f.Name == name {
				s.archive.Files[i].Data = []byte(text)
				found = true
			}
		}
		if !found {
			return fmt.Errorf("%s: add an empty section \"-- %s --\" to be filled", s.path, name)
		}
	}
	return os.WriteFile(s.path, txtar.Format(s.archive), 0o644)
}

// lines drops empty lines.
func lines(b []byte) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// options are what a compose document cannot say.
type options struct {
	release   int               // of new.yml; 0: the next one
	rejected  string            // why the cloud's release of shop was refused
	rounds    int               // towards half.yml
	half      int               // release of half.yml; 0: the second
	stopped   map[string]bool   // "old web": the target keeps it stopped
	appID     int64             // of shop in new.yml; 0: as before
	heirs     map[string]string // apps that have the ID of another, by name
	mistake   string            // of the planner, known and not yet mended
	surprises bool              // the first plan cannot know all that is to be done
	later     []Later           // what happens in the middle
}

// Later is what happens to the device in the middle of a story.
type Later struct {
	After int    // rounds, or when nothing else goes on
	Line  string // of the device section
}

// settings are the lines an options section may have. Words in capitals stand
// for anything.
var settings = []struct {
	words string
	set   func(o *options, arg []string) error
}{
	{"same release", func(o *options, _ []string) error { o.release = 1; return nil }},
	{"half is release N", func(o *options, arg []string) error { return number(arg[0], &o.half) }},
	{"new is release N", func(o *options, arg []string) error { return number(arg[0], &o.release) }},
	{"interrupted after N rounds", func(o *options, arg []string) error { return number(arg[0], &o.rounds) }},
	{"SIDE stops SERVICE", func(o *options, arg []string) error { o.stopped[arg[0]+" "+arg[1]] = true; return nil }},
	{"APP has the number of OTHER", func(o *options, arg []string) error { o.heirs[arg[0]] = arg[1]; return nil }},
	{"known mistake: TEXT", func(o *options, arg []string) error { o.mistake = arg[0]; return nil }},
	{"new app id N", func(o *options, arg []string) error { return number(arg[0], &o.appID) }},
	{"the plan changes on the way", func(o *options, _ []string) error { o.surprises = true; return nil }},
	{"rejected: TEXT", func(o *options, arg []string) error { o.rejected = arg[0]; return nil }},
	{"after N rounds: TEXT", func(o *options, arg []string) error {
		l := Later{Line: arg[1]}
		o.later = append(o.later, l)
		if _, _, err := find(l.Line); err != nil {
			return err
		}
		return number(arg[0], &o.later[len(o.later)-1].After)
	}},
}

func (o *options) set(line string) error {
	for _, s := range settings {
		if arg, ok := match(s.words, line); ok {
			return s.set(o, arg)
		}
	}
	return fmt.Errorf("%q is not an option; README.md lists them", line)
}

// match compares a line with words, of which those in capitals stand for any
// one word, and TEXT at the end or STEP at the beginning for several.
func match(words, line string) (arg []string, ok bool) {
	want, have := strings.Fields(words), strings.Fields(line)
	extra := len(have) - len(want)
	if extra < 0 {
		return nil, false
	}
	switch {
	case want[0] == "STEP":
		have = append([]string{strings.Join(have[:extra+1], " ")}, have[extra+1:]...)
	case want[len(want)-1] == "TEXT":
		last := len(want) - 1
		have = append(slices.Clone(have[:last]), strings.Join(have[last:], " "))
	case extra > 0:
		return nil, false
	}
	for i, w := range want {
		switch {
		case w != "API" && w == strings.ToUpper(w):
			arg = append(arg, have[i])
		case w != have[i]:
			return nil, false
		}
	}
	return arg, true
}

func number[N int | int64](text string, n *N) error {
	if _, err := fmt.Sscan(text, n); err != nil {
		return fmt.Errorf("%q is not a number: %w", text, err)
	}
	return nil
}
