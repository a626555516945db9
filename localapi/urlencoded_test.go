package localapi

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestNestedForms(t *testing.T) {
	for body, want := range map[string]string{
		"":                                   `{}`,
		"a=b&c":                              `{"a":"b","c":""}`,
		"a[b]=c":                             `{"a":{"b":"c"}}`,
		"a%5Bb%5D=c&a%5Bd%5D=e":              `{"a":{"b":"c","d":"e"}}`,
		"a[b][c][d]=1&a[b][e]=x+y":           `{"a":{"b":{"c":{"d":"1"},"e":"x y"}}}`,
		"a[]=1":                              `{"a":["1"]}`,
		"a[]=1&a[]=2":                        `{"a":["1","2"]}`,
		"a=1&a=2":                            `{"a":["1","2"]}`,
		"a[1]=y&a[0]=x&a[7]=z":               `{"a":["x","y","z"]}`,
		"a[101]=x":                           `{"a":{"101":"x"}}`,
		"a[01]=x":                            `{"a":{"01":"x"}}`,
		"a[-1]=x":                            `{"a":{"-1":"x"}}`,
		"a[][b]=c":                           `{"a":[{"b":"c"}]}`,
		"a[b][]=1&a[b][]=2":                  `{"a":{"b":["1","2"]}}`,
		"a=x&a[b]=y":                         `{"a":["x",{"b":"y"}]}`,
		"a[b=c":                              `{"a[b":"c"}`,
		"[a]=b":                              `{"[a]":"b"}`,
		"a]=b":                               `{"a]":"b"}`,
		"=b":                                 `{}`,
		"%zz=1&a[b]=c":                       `{"a":{"b":"c"}}`,
		"a[__proto__]=x":                     `{"a":{"__proto__":"x"}}`,
		"a" + strings.Repeat("[]", 3) + "=x": `{"a":[[["x"]]]}`,
	} {
		got, err := parseQuery(body)
		if b, _ := json.Marshal(got); string(b) != want || err != nil {
			t.Errorf("%s: %s, want %s (%v)", body, b, want, err)
		}
	}
}

func TestFormsThatAreTooMuch(t *testing.T) {
	most := "a" + strings.Repeat("[b]", formDepth) + "=1" + strings.Repeat("&c[]=x", formFields-1)
	if f, err := parseQuery(most); err != nil || strings.Count(string(f["c"]), "x") != formFields-1 {
		t.Errorf("%s, %v", f["c"], err)
	}
	if _, err := parseQuery(most + "&d=1"); !errors.Is(err, errTooManyFields) {
		t.Errorf("fields: %v", err)
	}
	if _, err := parseQuery("a" + strings.Repeat("[b]", formDepth+1) + "=1"); !errors.Is(err, errTooDeep) {
		t.Errorf("depth: %v", err)
	}
	d := &device{}
	code, body, _ := call(t, "POST", d.serve(t).URL+"/v1/update?apikey="+key, strings.Repeat("a=1&", formFields), "Content-Type", "application/x-www-form-urlencoded")
	if code != 503 || !strings.Contains(body, `"too many parameters"`) {
		t.Errorf("%d %s", code, body)
	}
}

// The routes whose bodies have an inside take it from a form as well.
func TestNestedFormsInRoutes(t *testing.T) {
	d := &device{}
	s := d.serve(t)
	form := []string{"Content-Type", "application/x-www-form-urlencoded", "Authorization", "Bearer " + key}
	code, body, _ := call(t, "PATCH", s.URL+"/v1/device/host-config", "network[hostname]=pi&network[proxy][ip]=10.0.0.1&network[proxy][port]=1080&network[proxy][noProxy][]=10.0.0.0/8", form...)
	if code != 200 || d.story[0] != "host true" {
		t.Errorf("%d %s, %v", code, body, d.story)
	}
	if code, body, _ := call(t, "PATCH", s.URL+"/v1/device/host-config", "network[proxy][noProxy]=10.0.0.0/8", form...); code != 400 || !strings.Contains(body, "noProxy") {
		t.Errorf("a text for a list: %d %s", code, body)
	}
	if code, body, _ := call(t, "POST", s.URL+"/v1/update", "force[x]=true", form...); code != 204 || d.story[len(d.story)-2] != "update false false" {
		t.Errorf("%d %s, %v", code, body, d.story)
	}
}

func FuzzForms(f *testing.F) {
	for _, seed := range []string{"a[b]=c", "a[]=1&a[]=2", "a[0][x]=1&a[1]=2", "a%5b=1", "[=&]=&[]=", "a=1&a[b]=2&a[]=3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		fields, err := parseQuery(body)
		if err != nil {
			return
		}
		for name, raw := range fields {
			if !json.Valid(raw) {
				t.Errorf("%q: %s", name, raw)
			}
		}
	})
}
