// Package openapi tells tests in what an answer is not as an OpenAPI document has it.
package openapi

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

// Contract is a document of OpenAPI 3.1.
type Contract struct {
	// Doc is all of it, as JSON has it.
	Doc     map[string]any
	schemas *jsonschema.Compiler
}

const address = "https://device/openapi.json" // of the document, for references

// Read reads a file in YAML.
func Read(t testing.TB, file string) *Contract {
	t.Helper()
	raw, err := os.ReadFile(file)
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
	c := &Contract{Doc: doc.(map[string]any), schemas: jsonschema.NewCompiler()} //nolint:forcetypeassert // a test may panic
	if err := c.schemas.AddResource(address, doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// At follows a path of keys, and references on the way; where is the place that
// it comes to, as a JSON pointer.
func (c *Contract) At(keys ...string) (value map[string]any, where string, ok bool) {
	value = c.Doc
	for _, k := range keys {
		next, is := value[k].(map[string]any)
		if !is {
			return nil, "", false
		}
		value, where = next, where+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
		if ref, is := value["$ref"].(string); is {
			if value, where, ok = c.At(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...); !ok {
				return nil, "", false
			}
		}
	}
	return value, where, true
}

// Check says in what an answer is not as the contract has it. OpenAPI has no words
// for a body that is there or not: ours are x-may-be-empty beside the content.
func (c *Contract) Check(method, path string, status int, contentType, body string) error {
	operation := []string{"paths", path, strings.ToLower(method)}
	if _, _, ok := c.At(operation...); !ok {
		return fmt.Errorf("%s %s is not in the contract", method, path)
	}
	answer := append(operation, "responses", fmt.Sprint(status))
	described, _, ok := c.At(answer...)
	if !ok {
		return fmt.Errorf("status %d is not in the contract", status)
	}
	if described["content"] == nil {
		if body != "" {
			return fmt.Errorf("there is a body, and none in the contract: %s", body)
		}
		return nil
	}
	if described["x-may-be-empty"] == true && contentType == "" && body == "" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	_, where, ok := c.At(append(answer, "content", kind, "schema")...)
	if !ok {
		return fmt.Errorf("type %s is not in the contract", kind)
	}
	var value any = body
	if kind == "application/json" {
		if value, err = jsonschema.UnmarshalJSON(strings.NewReader(body)); err != nil {
			return err
		}
	}
	schema, err := c.schemas.Compile(address + "#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(where))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}
