package localapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"deckhand/test/golden"
)

// docs/api.md is written from openapi.yaml: go test ./localapi -update
func TestDocsAreCurrent(t *testing.T) {
	golden.File(t, "../docs/api.md", readContract(t).markdown())
}

// markdown writes the contract for people.
func (c *contract) markdown() string {
	var b strings.Builder
	info := object(c.Doc["info"])
	fmt.Fprintf(&b, "# %s\n\nWritten by `go test ./localapi -update` from localapi/openapi.yaml; do not edit.\n\n%s", info["title"], info["description"])
	paths := object(c.Doc["paths"])
	for _, tag := range list(c.Doc["tags"]) {
		name := fmt.Sprint(object(tag)["name"])
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", name, strings.TrimSpace(fmt.Sprint(object(tag)["description"])))
		for _, path := range slices.Sorted(maps.Keys(paths)) {
			for _, method := range slices.Sorted(maps.Keys(object(paths[path]))) {
				o := object(object(paths[path])[method])
				if fmt.Sprint(list(o["tags"])[0]) == name {
					c.operation(&b, strings.ToUpper(method), path, o)
				}
			}
		}
	}
	return b.String()
}

func (c *contract) operation(b *strings.Builder, method, path string, o map[string]any) {
	fmt.Fprintf(b, "\n### %s %s\n\n%s\n", method, path, sentence(o["summary"]))
	if text, ok := o["description"].(string); ok {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(text))
	}
	c.parameters(b, o)
	fmt.Fprint(b, "\n| answer | | body |\n| --- | --- | --- |\n")
	answers := object(o["responses"])
	for _, status := range slices.Sorted(maps.Keys(answers)) {
		answer := c.resolve(answers[status])
		fmt.Fprintf(b, "| %s | %s | %s |\n", status, sentence(answer["description"]), c.bodies(object(answer["content"])))
	}
}

// parameters are those of path, query and body in one table.
func (c *contract) parameters(b *strings.Builder, o map[string]any) {
	var rows []string
	for _, p := range list(o["parameters"]) {
		x := c.resolve(p)
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", x["name"], x["in"], sentence(x["description"])))
	}
	body := c.resolve(o["requestBody"])
	schema := c.resolve(object(object(body["content"])["application/json"])["schema"])
	fields := object(schema["properties"])
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		text := sentence(object(fields[name])["description"])
		if text == "" {
			text = sentence(c.resolve(fields[name])["description"])
		}
		rows = append(rows, fmt.Sprintf("| `%s` | body%s | %s |", name, needed(schema, name), text))
	}
	if len(rows) > 0 {
		fmt.Fprintf(b, "\n| parameter | in | |\n| --- | --- | --- |\n%s\n", strings.Join(rows, "\n"))
	}
	if text, ok := body["description"].(string); ok {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(text))
	}
}

func needed(schema map[string]any, name string) string {
	if slices.Contains(list(schema["required"]), any(name)) {
		return ", required"
	}
	return ""
}

// bodies describes what an answer may carry.
func (c *contract) bodies(content map[string]any) string {
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(content)) {
		x := object(content[kind])
		if example, ok := x["example"]; ok {
			if text, isText := example.(string); isText {
				out = append(out, "`"+text+"`")
				continue
			}
			raw, _ := json.Marshal(example)
			out = append(out, "`"+string(raw)+"`")
			continue
		}
		if kind == "application/json" {
			out = append(out, "`"+c.shape(x["schema"])+"`"+c.legend(x["schema"]))
			continue
		}
		out = append(out, cmp.Or(strings.Join(texts(c.resolve(x["schema"])["enum"]), ", "), "text"))
	}
	return strings.Join(out, "<br>or ")
}

// shape writes a schema as the document that it describes.
func (c *contract) shape(schema any) string {
	s := c.resolve(schema)
	if values := texts(s["enum"]); len(values) == 1 {
		return values[0]
	}
	fields := object(s["properties"])
	switch {
	case len(fields) > 0:
		var out []string
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			mark := ""
			if needed(s, name) == "" {
				mark = "?"
			}
			out = append(out, name+mark+": "+c.shape(fields[name]))
		}
		return "{" + strings.Join(out, ", ") + "}"
	case s["items"] != nil:
		return "[" + c.shape(s["items"]) + ", …]"
	case object(s["additionalProperties"]) != nil:
		return "{…: " + c.shape(s["additionalProperties"]) + "}"
	}
	kinds := list(s["type"])
	if kinds == nil {
		kinds = []any{cmp.Or(fmt.Sprint(s["type"]), "any")}
	}
	return strings.ReplaceAll(strings.Join(texts(kinds), " or "), "<nil>", "any")
}

// legend explains the fields of a schema that are described.
func (c *contract) legend(schema any) string {
	var b strings.Builder
	fields := object(c.resolve(schema)["properties"])
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if text, ok := object(fields[name])["description"].(string); ok {
			fmt.Fprintf(&b, "<br>`%s`: %s", name, sentence(text))
		}
	}
	return b.String()
}

// resolve follows a reference.
func (c *contract) resolve(x any) map[string]any {
	o := object(x)
	if ref, ok := o["$ref"].(string); ok {
		o, _, _ = c.At(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return o
}

// sentence is a description as one line that ends.
func sentence(x any) string {
	text, _ := x.(string)
	text = strings.Join(strings.Fields(text), " ")
	if text == "" || strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}

func object(x any) map[string]any { o, _ := x.(map[string]any); return o }
func list(x any) []any            { l, _ := x.([]any); return l }

func texts(x any) []string {
	var out []string
	for _, v := range list(x) {
		out = append(out, fmt.Sprint(v))
	}
	return out
}
