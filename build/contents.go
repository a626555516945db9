package build

import (
	"go.yaml.in/yaml/v4"
)

// secretContent is where a secret keeps its content while the loader reads the file.
const secretContent = "x-deckhand-content"

// hideContents lets secrets say their content, which configs may and secrets may not as far
// as the compose specification goes: the loader sees an extension, and a variable so that it
// is content. A file without such a secret stays as it is.
func hideContents(file []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return file, nil
	}
	changed := false
	for _, def := range values(value(doc.Content[0], "secrets")) {
		if content := value(def, "content"); content == nil || content.ShortTag() != "!!str" || value(def, "environment") != nil || value(def, "file") != nil {
			continue
		}
		for i := 0; i+1 < len(def.Content); i += 2 {
			if def.Content[i].Value == "content" {
				def.Content[i].Value = secretContent
			}
		}
		def.Content = append(def.Content,
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "environment"},
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: secretContent})
		changed = true
	}
	if !changed {
		return file, nil
	}
	return yaml.Marshal(&doc)
}

// value is the value of a key in a mapping; nil when there is none.
func value(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// values are the values of a mapping.
func values(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var all []*yaml.Node
	for i := 1; i < len(n.Content); i += 2 {
		all = append(all, n.Content[i])
	}
	return all
}
