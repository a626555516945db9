package reconcile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"deckhand/state"
)

// Plan is everything between what is and what is wanted.
type Plan struct {
	Nodes    []Node     // each behind all it waits for
	Declined []Declined // what is wanted and not done, with the reason
	Waiting  []Waiting  // what holds a step back, and until when
}

// Node is one step of a plan, or a gate that others wait at.
type Node struct {
	Step  Step   // nil for a gate
	Gate  string // what the gate stands for; empty for a step
	Key   Key
	Why   Reason
	After []Key // steps and gates that come first; empty: it can start
}

// Reason says why a step is planned.
type Reason struct {
	Cause   string         `json:"cause"`             // constant text, no values
	Changes []state.Change `json:"changes,omitempty"` // the fields that led to it
}

// String prints the cause and the first changes.
func (r Reason) String() string {
	if len(r.Changes) == 0 {
		return r.Cause
	}
	const shown = 3 // fields, more than that fills the line without saying more
	var parts []string
	for _, c := range r.Changes[:min(shown, len(r.Changes))] {
		parts = append(parts, c.String())
	}
	if n := len(r.Changes) - shown; n > 0 {
		parts = append(parts, fmt.Sprintf("%d more", n))
	}
	return r.Cause + " (" + strings.Join(parts, ", ") + ")"
}

// Declined is a change that will not be made, or a preference that was dropped.
type Declined struct {
	Subject string `json:"subject"`
	Why     string `json:"why"`
}

// Waiting is what holds a step back: a lock that somebody holds, or a pause
// after a failure.
type Waiting struct {
	Key    Key         `json:"key"`
	Title  string      `json:"title"`
	Class  state.Class `json:"class"` // what went wrong last time; locked: a lock
	Text   string      `json:"text"`
	Holder string      `json:"holder,omitempty"` // of the lock
	Since  time.Time   `json:"since,omitzero"`   // the lock is held
	Tries  int         `json:"tries,omitempty"`  // failures in a row
	Until  time.Time   `json:"until,omitzero"`   // the next try; zero: when the lock is given up
}

// String is the wait in one line.
func (w Waiting) String() string {
	if w.Holder != "" {
		return fmt.Sprintf("%s: %s by %s since %s", w.Title, w.Text, w.Holder, w.Since.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s until %s, after %d tries: %s: %s", w.Title, w.Until.UTC().Format(time.RFC3339), w.Tries, w.Class, w.Text)
}

// Ready lists the steps that wait for nothing.
func (p Plan) Ready() []Node {
	held := map[Key]bool{}
	for _, w := range p.Waiting {
		held[w.Key] = true
	}
	var out []Node
	for _, n := range p.Nodes {
		if n.Step != nil && len(n.After) == 0 && !held[n.Key] {
			out = append(out, n)
		}
	}
	return out
}

// Steps counts the steps, gates left out.
func (p Plan) Steps() int {
	n := 0
	for _, x := range p.Nodes {
		if x.Step != nil {
			n++
		}
	}
	return n
}

// String prints the plan, one line a step, with the numbers of the steps it
// comes after. What already follows from those is not repeated.
func (p Plan) String() string {
	after := p.reduced()
	width := 0
	for _, n := range p.Nodes {
		width = max(width, len(n.Title()))
	}
	width = min(width, 60)
	var b strings.Builder
	for i, n := range p.Nodes {
		fmt.Fprintf(&b, "%3d  %-*s  %s", i+1, width, n.Title(), n.Why)
		if len(after[i]) > 0 {
			fmt.Fprintf(&b, "  [after %s]", numbers(after[i]))
		}
		b.WriteByte('\n')
	}
	for _, w := range p.Waiting {
		fmt.Fprintf(&b, "waits: %s\n", w)
	}
	for _, d := range p.Declined {
		fmt.Fprintf(&b, "not done: %s: %s\n", d.Subject, d.Why)
	}
	return b.String()
}

// Title is what people read.
func (n Node) Title() string {
	if n.Step == nil {
		return "— " + n.Gate
	}
	return n.Step.Title()
}

// numbers prints positions as a list with runs: "1-4 7".
func numbers(at []int) string {
	var parts []string
	for i := 0; i < len(at); {
		j := i
		for j+1 < len(at) && at[j+1] == at[j]+1 {
			j++
		}
		switch {
		case j-i >= 2:
			parts = append(parts, fmt.Sprintf("%d-%d", at[i]+1, at[j]+1))
		case j > i:
			parts = append(parts, fmt.Sprint(at[i]+1), fmt.Sprint(at[j]+1))
		default:
			parts = append(parts, fmt.Sprint(at[i]+1))
		}
		i = j + 1
	}
	return strings.Join(parts, " ")
}

// reduced lists, for each node, the positions of the nodes it directly comes
// after and that no other of them already comes after.
func (p Plan) reduced() [][]int {
	at := make(map[Key]int, len(p.Nodes))
	for i, n := range p.Nodes {
		at[n.Key] = i
	}
	words := (len(p.Nodes) + 63) / 64
	past := make([][]uint64, len(p.Nodes)) // all that comes before a node, as bits
	out := make([][]int, len(p.Nodes))
	for i, n := range p.Nodes {
		past[i] = make([]uint64, words)
		implied := make([]uint64, words)
		var direct []int
		for _, k := range n.After {
			j := at[k]
			direct = append(direct, j)
			for w, bits := range past[j] {
				implied[w] |= bits
			}
		}
		for _, j := range direct {
			if implied[j/64]&(1<<(j%64)) == 0 {
				out[i] = append(out[i], j)
			}
		}
		copy(past[i], implied)
		for _, j := range direct {
			past[i][j/64] |= 1 << (j % 64)
		}
		slices.Sort(out[i])
	}
	return out
}

// DOT prints the plan for Graphviz.
func (p Plan) DOT() string {
	after := p.reduced()
	var b strings.Builder
	b.WriteString("digraph plan {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n")
	for i, n := range p.Nodes {
		shape := ""
		if n.Step == nil {
			shape = ", shape=diamond"
		}
		fmt.Fprintf(&b, "  n%d [label=%q, tooltip=%q%s];\n", i+1, n.Title(), n.Why.String(), shape)
		for _, j := range after[i] {
			fmt.Fprintf(&b, "  n%d -> n%d;\n", j+1, i+1)
		}
	}
	b.WriteString("}\n")
	return b.String()
}

type jsonNode struct {
	N     int    `json:"n"`
	Key   Key    `json:"key"`
	Title string `json:"title"`
	Gate  bool   `json:"gate,omitempty"`
	Why   Reason `json:"why"`
	After []int  `json:"after,omitempty"`
}

// MarshalJSON writes the plan without the bodies of its steps: those hold the
// environment of the services.
func (p Plan) MarshalJSON() ([]byte, error) {
	doc := struct {
		Steps    []jsonNode `json:"steps"`
		Waiting  []Waiting  `json:"waiting,omitempty"`
		Declined []Declined `json:"declined,omitempty"`
	}{Steps: []jsonNode{}, Waiting: p.Waiting, Declined: p.Declined}
	for i, at := range p.reduced() {
		n := p.Nodes[i]
		x := jsonNode{N: i + 1, Key: n.Key, Title: n.Title(), Gate: n.Step == nil, Why: n.Why}
		for _, j := range at {
			x.After = append(x.After, j+1)
		}
		doc.Steps = append(doc.Steps, x)
	}
	return json.Marshal(doc)
}
