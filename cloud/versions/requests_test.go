package versions_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/cloud/odata"
)

const composition = `{"version":"2.1","services":{"main":{"image":"main"}}}`

// TestRequestsOfEachTime sends what clients of each version send, to the whole of
// the API.
func TestRequestsOfEachTime(t *testing.T) {
	w := cloudtest.New(t, nil)
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	fleet := w.Fleet(w.Admin, "myfleet")
	first, _ := w.Release(fleet, "aaaa", composition)
	w.Release(fleet, "bbbb", composition)
	d1, key1 := w.Device(fleet, "1")
	_, key2 := w.Device(fleet, "2")
	if err := w.DB.EditDevice(t.Context(), d1.ID, model.DeviceEdit{Pin: &first.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.DB.AddVariable(t.Context(), model.FleetEnvironment, fleet.ID, "A", "fleet"); err != nil {
		t.Fatal(err)
	}
	callers := map[string]string{"admin": w.AdminSession, "bob": w.BobSession, "device1": key1, "device2": key2, "guest": ""}
	for _, e := range exchanges(t) {
		caller, rest, _ := strings.Cut(e.request, " ")
		method, path, _ := strings.Cut(rest, " ")
		got := w.Do(method, encoded(path), callers[caller], e.body)
		if problem := differs(e.answer, got); problem != "" {
			t.Errorf("line %d: %s\n%d %s\n%s", e.line, e.request, got.Status, got.Body, problem)
		}
	}
}

// exchange is a request and its answer.
type exchange struct {
	line                  int
	request, body, answer string
}

func exchanges(t *testing.T) (all []exchange) {
	t.Helper()
	f, err := os.Open("testdata/requests.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for n := 1; scanner.Scan(); n++ {
		line := strings.NewReplacer("<1>", strings.Repeat("1", 32), "<2>", strings.Repeat("2", 32)).Replace(scanner.Text())
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "> "):
			all[len(all)-1].body = line[2:]
		case strings.HasPrefix(line, "< "):
			all[len(all)-1].answer = strings.TrimSpace(line[2:])
		default:
			all = append(all, exchange{line: n, request: line})
		}
	}
	return all
}

// encoded is a path as clients send it.
func encoded(path string) string {
	path, query, _ := strings.Cut(path, "?")
	if query != "" {
		query = "?" + strings.NewReplacer("%3D", "=", "%26", "&", "%24", "$", "%28", "(", "%29", ")", "%2C", ",", "%3B", ";", "+", "%20").Replace(url.QueryEscape(query))
	}
	return path + query
}

func differs(want string, got cloudtest.Answer) string {
	status, body, _ := strings.Cut(want, " ")
	if n, err := strconv.Atoi(status); err != nil || n != got.Status {
		return "want " + want
	}
	if body == "" {
		if got.Body != "" {
			return "want no body"
		}
		return ""
	}
	body = strings.NewReplacer("<any>", `"<any>"`, "<number>", `"<number>"`).Replace(body)
	var wanted, answered any
	if err := json.Unmarshal([]byte(body), &wanted); err != nil {
		return "the test is wrong: " + err.Error()
	}
	if err := json.Unmarshal([]byte(got.Body), &answered); err != nil {
		return "want JSON"
	}
	return contains(wanted, answered, "")
}

// contains says where an answer lacks something; "": nowhere.
func contains(want, got any, at string) string {
	switch want := want.(type) {
	case map[string]any:
		has, _ := got.(map[string]any)
		for name, v := range want {
			g, ok := has[name]
			if !ok {
				return at + "/" + name + " is missing"
			}
			if problem := contains(v, g, at+"/"+name); problem != "" {
				return problem
			}
		}
		return ""
	case []any:
		has, _ := got.([]any)
		if len(has) != len(want) {
			return fmt.Sprintf("%s has %d entries, want %d", at, len(has), len(want))
		}
		for i, v := range want {
			if problem := contains(v, has[i], fmt.Sprintf("%s/%d", at, i)); problem != "" {
				return problem
			}
		}
		return ""
	case string:
		return containsText(want, got, at)
	}
	if want != got {
		return fmt.Sprintf("%s is %v, want %v", at, got, want)
	}
	return ""
}

func containsText(want string, got any, at string) string {
	_, isNumber := got.(float64)
	_, isText := got.(string)
	switch {
	case want == "<any>", want == "<number>" && isNumber, want == "…" && isText, want == got:
		return ""
	}
	return fmt.Sprintf("%s is %v, want %v", at, got, want)
}
