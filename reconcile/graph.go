package reconcile

import (
	"cmp"
	"fmt"
	"slices"
)

// vertex is a step or a gate. A gate stands for "all of these are done"; it
// keeps a release of a thousand services from having a million edges.
type vertex struct {
	step   Step // nil for a gate
	gate   string
	key    Key
	rank   int
	why    Reason
	before []int32 // vertices that wait for this one
	after  []int32 // vertices this one waits for
}

// graph is kept acyclic at every moment: place holds an order in which each
// vertex stands behind everything it waits for, repaired locally when an edge
// contradicts it (Pearce and Kelly, "A dynamic topological sort algorithm for
// directed acyclic graphs", 2007). Vertices come first, by rank, so that nearly
// every edge agrees with the order and costs nothing.
type graph struct {
	vertices []*vertex
	index    map[Key]int
	place    []int    // vertex → position
	room     []vertex // where the next vertices go: one allocation for many
	ends     []int32  // where the first edges of the next vertices go
}

// newGraph makes room for about n steps.
func newGraph(n int) *graph {
	return &graph{vertices: make([]*vertex, 0, n), index: make(map[Key]int, n)}
}

func (g *graph) add(v vertex) Key {
	if _, ok := g.index[v.key]; ok {
		return v.key
	}
	if len(g.room) == cap(g.room) {
		g.room = make([]vertex, 0, 256)
	}
	v.before, v.after = g.few(), g.few()
	g.room = append(g.room, v)
	g.index[v.key] = len(g.vertices)
	g.vertices = append(g.vertices, &g.room[len(g.room)-1])
	return v.key
}

// few makes room for the edges that most vertices have.
func (g *graph) few() []int32 {
	const most = 3
	if len(g.ends) < most {
		g.ends = make([]int32, 256*most)
	}
	s := g.ends[:0:most]
	g.ends = g.ends[most:]
	return s
}

// settle ends the adding of vertices and gives each its first position.
func (g *graph) settle() {
	slices.SortFunc(g.vertices, func(a, b *vertex) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.key, b.key))
	})
	g.place = make([]int, len(g.vertices))
	for i, v := range g.vertices {
		g.index[v.key] = i
		g.place[i] = i
	}
}

// edge records that first comes before then. It reports false, and changes
// nothing, when the opposite already holds. Edges with unknown ends are vacuous.
func (g *graph) edge(first, then Key) bool {
	a, okA := g.index[first]
	b, okB := g.index[then]
	if !okA || !okB || a == b {
		return true
	}
	if g.has(a, b) {
		return true
	}
	if g.place[a] > g.place[b] && !g.reorder(a, b) {
		return false
	}
	g.vertices[a].before = append(g.vertices[a].before, int32(b))
	g.vertices[b].after = append(g.vertices[b].after, int32(a))
	return true
}

// afterOf lists what a vertex waits for.
func (g *graph) afterOf(k Key) []Key {
	var out []Key
	for _, i := range g.vertices[g.index[k]].after {
		out = append(out, g.vertices[i].key)
	}
	return out
}

// has reports whether an edge is known. Of its two ends one has few neighbours
// as a rule: only gates and ends of releases have many.
func (g *graph) has(a, b int) bool {
	before, after := g.vertices[a].before, g.vertices[b].after
	if len(before) < len(after) {
		return slices.Contains(before, int32(b))
	}
	return slices.Contains(after, int32(a))
}

// reorder moves what b leads to behind what leads to a, within the positions
// between the two; false means that b already leads to a.
func (g *graph) reorder(a, b int) bool {
	high, low := g.place[a], g.place[b]
	forward, ok := g.reach(b, func(v *vertex) []int32 { return v.before }, func(i int) bool { return g.place[i] <= high }, a)
	if !ok {
		return false
	}
	backward, _ := g.reach(a, func(v *vertex) []int32 { return v.after }, func(i int) bool { return g.place[i] >= low }, -1)
	byPlace := func(x, y int) int { return cmp.Compare(g.place[x], g.place[y]) }
	slices.SortFunc(forward, byPlace)
	slices.SortFunc(backward, byPlace)
	moved := slices.Concat(backward, forward)
	spots := make([]int, 0, len(moved))
	for _, i := range moved {
		spots = append(spots, g.place[i])
	}
	slices.Sort(spots)
	for n, i := range moved {
		g.place[i] = spots[n]
	}
	return true
}

// reach lists what can be reached from one vertex; ok is false if that is never.
func (g *graph) reach(from int, next func(*vertex) []int32, within func(int) bool, never int) (seen []int, ok bool) {
	mark := map[int]bool{from: true}
	stack := []int{from}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if i == never {
			return nil, false
		}
		seen = append(seen, i)
		for _, k := range next(g.vertices[i]) {
			if j := int(k); !mark[j] && within(j) {
				mark[j] = true
				stack = append(stack, j)
			}
		}
	}
	return seen, true
}

// fact is edge for what the engine demands; a contradiction is our own mistake.
func (g *graph) fact(first, then Key) error {
	if !g.edge(first, then) {
		return fmt.Errorf("plan: %q and %q wait for each other", first, then)
	}
	return nil
}

// nodes lists the graph in the order in which it would run with unlimited
// hands, then by rank and key.
func (g *graph) nodes() []Node {
	order := make([]int, len(g.vertices))
	for i, p := range g.place {
		order[p] = i
	}
	level := make([]int, len(g.vertices))
	for _, i := range order {
		for _, a := range g.vertices[i].after {
			level[i] = max(level[i], level[a]+1)
		}
	}
	slices.SortFunc(order, func(x, y int) int {
		return cmp.Or(cmp.Compare(level[x], level[y]), cmp.Compare(x, y)) // index order is rank, then key
	})
	edges := 0
	for _, v := range g.vertices {
		edges += len(v.after)
	}
	keys := make([]Key, 0, edges)
	out := make([]Node, 0, len(order))
	for _, i := range order {
		v := g.vertices[i]
		n := Node{Step: v.step, Gate: v.gate, Key: v.key, Why: v.why}
		slices.Sort(v.after)
		from := len(keys)
		for _, a := range v.after {
			keys = append(keys, g.vertices[a].key)
		}
		if len(v.after) > 0 {
			n.After = slices.Clip(keys[from:])
		}
		out = append(out, n)
	}
	return out
}
