package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v4"
)

// mostNodes bounds a YAML document after its aliases are written out.
const mostNodes = 200_000

// checkYAML refuses documents that the loader would not survive: an alias inside of what it
// stands for makes it recurse until the process dies, and a few nested aliases can stand for
// billions of values.
func checkYAML(name string, data []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		w := &yamlWalk{inside: map[*yaml.Node]bool{}, left: mostNodes}
		if err := w.visit(&doc); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
}

type yamlWalk struct {
	inside map[*yaml.Node]bool // what the walk is in the middle of
	left   int
}

func (w *yamlWalk) visit(n *yaml.Node) error {
	if n == nil {
		return nil
	}
	if w.left--; w.left < 0 {
		return fmt.Errorf("line %d: the document has more than %d values, aliases written out", n.Line, mostNodes)
	}
	if w.inside[n] {
		return fmt.Errorf("line %d: the anchor %s contains itself", n.Line, n.Anchor)
	}
	w.inside[n] = true
	defer delete(w.inside, n)
	for _, c := range n.Content {
		if err := w.visit(c); err != nil {
			return err
		}
	}
	return w.visit(n.Alias)
}
