package localapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml "go.yaml.in/yaml/v4"
)

// contract is openapi.yaml.
type contract struct {
	doc     map[string]any
	schemas *jsonschema.Compiler
}

const contractURL = "https://device/openapi.json"

func readContract(t testing.TB) *contract {
	t.Helper()
	raw, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	// Once through JSON: the kinds of values are then those that schemas know.
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if doc, err = jsonschema.UnmarshalJSON(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	c := &contract{doc: doc.(map[string]any), schemas: jsonschema.NewCompiler()} //nolint:forcetypeassert // a test may panic
	if err := c.schemas.AddResource(contractURL, doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// at follows a path of keys, and references on the way; where is the place that
// it comes to, as a JSON pointer.
func (c *contract) at(keys ...string) (value map[string]any, where string, ok bool) {
	value = c.doc
	for _, k := range keys {
		next, is := value[k].(map[string]any)
		if !is {
			return nil, "", false
		}
		value, where = next, where+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
		if ref, is := value["$ref"].(string); is {
			if value, where, ok = c.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...); !ok {
				return nil, "", false
			}
		}
	}
	return value, where, true
}

// check says in what an answer is not as the contract has it.
func (c *contract) check(method, path string, status int, contentType, body string) error {
	operation := []string{"paths", path, strings.ToLower(method)}
	if _, _, ok := c.at(operation...); !ok {
		return fmt.Errorf("%s %s is not in the contract", method, path)
	}
	answer := append(operation, "responses", fmt.Sprint(status))
	described, _, ok := c.at(answer...)
	if !ok {
		return fmt.Errorf("status %d is not in the contract", status)
	}
	if described["content"] == nil {
		if body != "" {
			return fmt.Errorf("there is a body, and none in the contract: %s", body)
		}
		return nil
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	_, where, ok := c.at(append(answer, "content", kind, "schema")...)
	if !ok {
		return fmt.Errorf("type %s is not in the contract", kind)
	}
	var value any = body
	if kind == "application/json" {
		if value, err = jsonschema.UnmarshalJSON(strings.NewReader(body)); err != nil {
			return err
		}
	}
	schema, err := c.schemas.Compile(contractURL + "#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(where))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// Every route is described, and nothing else is.
func TestContractAndRoutesAgree(t *testing.T) {
	c := readContract(t)
	routes := map[string]bool{}
	for _, r := range new(api).routes() {
		routes[r.method+" "+r.path] = true
	}
	described := map[string]bool{}
	paths, _, _ := c.at("paths")
	for path, item := range paths {
		for method := range item.(map[string]any) { //nolint:forcetypeassert // a test may panic
			name := strings.ToUpper(method) + " " + strings.ToLower(path)
			if described[name] = true; !routes[name] {
				t.Errorf("%s is described, but no route", name)
			}
		}
	}
	for name := range routes {
		if !described[name] {
			t.Errorf("%s is a route, but not described in openapi.yaml", name)
		}
	}
}
