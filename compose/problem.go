package compose

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"deckhand/state"
)

// Kind says what a Problem means for the document.
type Kind string

// The kinds.
const (
	Rejected Kind = "rejected" // the app cannot run as asked; it is refused
	Ignored  Kind = "ignored"  // this attribute is not applied, the rest is
	Warned   Kind = "warned"   // applied, yet perhaps not as meant
)

// Problem is one thing about a document that its owner should know.
type Problem struct {
	Path string `json:"path"` // for example services.web.mem_limit
	Text string `json:"text"`
	Kind Kind   `json:"kind"`
}

// String prints the problem: "services.web.build: ignored: images are built …".
func (p Problem) String() string { return p.Path + ": " + string(p.Kind) + ": " + p.Text }

// Refusal joins the rejected problems into one error of class invalid; nil when
// there are none.
func Refusal(problems []Problem) error {
	var lines []string
	for _, p := range problems {
		if p.Kind == Rejected {
			lines = append(lines, p.Path+": "+p.Text)
		}
	}
	if lines == nil {
		return nil
	}
	return state.Classify(state.ClassInvalid, errors.New(strings.Join(lines, "\n")))
}

// tidy sorts problems by path, kind and text, without repetitions.
func tidy(problems []Problem) []Problem {
	slices.SortFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(problems)
}

// notes collects problems.
type notes struct {
	list     []Problem
	rejected bool
}

func (n *notes) reject(path, text string) { n.add(path, text, Rejected) }
func (n *notes) ignore(path, text string) { n.add(path, text, Ignored) }
func (n *notes) warn(path, text string)   { n.add(path, text, Warned) }

// maxNotes bounds what a hostile document can make us remember.
const maxNotes = 1000

func (n *notes) add(path, text string, kind Kind) {
	if len(n.list) < maxNotes || kind == Rejected && !n.rejected {
		n.list = append(n.list, Problem{Path: clip(path), Text: text, Kind: kind})
	}
	n.rejected = n.rejected || kind == Rejected
}

// clip shortens text that came out of a document to what a person would read.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
