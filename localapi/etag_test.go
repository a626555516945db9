package localapi

import (
	"regexp"
	"strings"
	"testing"
)

// Who asks again with the ETag gets nothing as long as nothing changed.
func TestETags(t *testing.T) {
	d := &device{status: runs()}
	s := d.serve(t)
	for _, path := range []string{"/ping", "/v1/device", "/v2/state/status", "/v2/version", "/v1/apps/1"} {
		code, body, header := call(t, "GET", s.URL+path+"?apikey="+key, "")
		tag := header.Get("ETag")
		if code != 200 || body == "" || !regexp.MustCompile(`^W/"[0-9a-f]+-[\w-]+"$`).MatchString(tag) {
			t.Fatalf("%s: %d %q, ETag %s", path, code, body, tag)
		}
		code, again, header := call(t, "GET", s.URL+path+"?apikey="+key, "", "If-None-Match", tag)
		if code != 304 || again != "" || header.Get("ETag") != tag || header.Get("Content-Type") != "" {
			t.Errorf("%s again: %d %q %v", path, code, again, header)
		}
	}
	_, _, header := call(t, "GET", s.URL+"/v2/state/status?apikey="+key, "")
	old := header.Get("ETag")
	d.status.Applying = true
	if code, body, header := call(t, "GET", s.URL+"/v2/state/status?apikey="+key, "", "If-None-Match", old); code != 200 || !strings.Contains(body, "applying") || header.Get("ETag") == old {
		t.Errorf("after a change: %d %s %v", code, body, header)
	}
}

// Which answers may be left out, and what a client may write to say what it has.
func TestWhatIsLeftOut(t *testing.T) {
	d := &device{status: runs()}
	s := d.serve(t)
	_, _, header := call(t, "GET", s.URL+"/ping", "")
	tag := header.Get("ETag")
	for _, c := range []struct {
		name, method, path string
		header             []string
		want               int
	}{
		{"another one", "GET", "/ping", []string{"If-None-Match", `W/"2-other"`}, 200},
		{"one of several", "GET", "/ping", []string{"If-None-Match", `"x", ` + tag}, 304},
		{"in several lines", "GET", "/ping", []string{"If-None-Match", `"x"`, "If-None-Match", tag}, 304},
		{"written as a strong one", "GET", "/ping", []string{"If-None-Match", strings.TrimPrefix(tag, "W/")}, 304},
		{"any", "GET", "/ping", []string{"If-None-Match", "*"}, 304},
		{"HEAD", "HEAD", "/ping", []string{"If-None-Match", tag}, 304},
		{"who wants it whole", "GET", "/ping", []string{"If-None-Match", tag, "Cache-Control", "No-Cache"}, 200},
		{"an action", "POST", "/v1/blink?apikey=" + key, []string{"If-None-Match", "*"}, 200},
		{"no key", "GET", "/v2/version", []string{"If-None-Match", "*"}, 401},
		{"an error", "GET", "/v1/apps/x?apikey=" + key, []string{"If-None-Match", "*"}, 400},
		{"no such path", "GET", "/none?apikey=" + key, []string{"If-None-Match", "*"}, 404},
	} {
		if code, body, _ := call(t, c.method, s.URL+c.path, "", c.header...); code != c.want || code == 304 && body != "" {
			t.Errorf("%s: %d %q, want %d", c.name, code, body, c.want)
		}
	}
}
