package localapi

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (d *device) HostConfig() (HostConfig, error) {
	return HostConfig{Hostname: "pi", Proxy: &Proxy{
		Options: []ProxyOption{{"type", "socks5"}, {"ip", "10.0.0.1"}, {"port", "1080"}, {"password", "a=b"}}, DNS: "8.8.8.8:53", NoProxy: []string{"10.0.0.0/8"},
	}}, d.down
}

func (d *device) SetHostConfig(_ context.Context, c HostChange, force bool) error {
	if d.down != nil {
		return d.down
	}
	for app, service := range d.locked {
		if !force {
			return lockfile(app, service)
		}
	}
	d.tell("host %v", c.Hostname != nil)
	return nil
}

func hostInputs() []input {
	return []input{
		{body: `{"network":{"hostname":"pi"}}`}, {body: `{"network":{"proxy":{}}}`}, {body: `{"network":{}}`},
		{body: `{"network":{"hostname":""},"force":"on"}`, force: true}, {body: `{"network":{"hostname":"pi","force":true}}`},
		{body: ``, bad: 400}, {body: `{}`, bad: 400}, {body: `[]`, bad: 400}, {body: `{"network":null}`, bad: 400}, {body: `{"network":7}`, bad: 400},
		{body: `{"network":{"hostname":null}}`, bad: 400}, {body: `{"network":{"hostname":7}}`, bad: 400},
		{body: `{"network":{"proxy":null}}`, bad: 400}, {body: `{"network":{"proxy":[]}}`, bad: 400}, {body: `{"network":{"proxy":{"ip":{}}}}`, bad: 400},
		{body: `{"network":{"proxy":{"ip":null}}}`, bad: 400}, {body: `{"network":{"proxy":{"noProxy":"10.0.0.1"}}}`, bad: 400},
		{body: `{"network":{"proxy":{"noProxy":[7]}}}`, bad: 400}, {body: `{"network":{"proxy":{"dns":7}}}`, bad: 400}, {body: `{"network":`, bad: 503},
	}
}

func TestHostConfigIsShown(t *testing.T) {
	s := (&device{}).serve(t)
	code, body, _ := call(t, "GET", s.URL+"/v1/device/host-config?apikey="+key, "")
	want := `{"network":{"hostname":"pi","proxy":{"dns":"8.8.8.8:53","ip":"10.0.0.1","noProxy":["10.0.0.0/8"],"password":"a=b","port":1080,"type":"socks5"}}}`
	if code != 200 || strings.TrimSpace(body) != want {
		t.Errorf("%d %s", code, body)
	}
	if b, err := json.Marshal(Proxy{Options: []ProxyOption{{"port", "08"}}}.document()); string(b) != `{"port":"08"}` || err != nil {
		t.Errorf("%s, %v", b, err)
	}
}

func TestHostChanges(t *testing.T) {
	text := func(s string) *string { return &s }
	list := func(s ...string) *[]string { return &s }
	for body, want := range map[string]HostChange{
		`{"hostname":""}`:                    {Hostname: text("")},
		`{"unknown":1}`:                      {},
		`{"proxy":{}}`:                       {Proxy: &ProxyChange{Remove: true}},
		`{"proxy":{"noProxy":[]}}`:           {Proxy: &ProxyChange{NoProxy: list([]string{}...)}},
		`{"proxy":{"noProxy":["a","b"]}}`:    {Proxy: &ProxyChange{NoProxy: list("a", "b")}},
		`{"proxy":{"port":"1080","ip":"a"}}`: {Proxy: &ProxyChange{Options: []ProxyOption{{"port", "1080"}, {"ip", "a"}}}},
		`{"proxy":{"port":1080,"x":true}}`:   {Proxy: &ProxyChange{Options: []ProxyOption{{"port", "1080"}, {"x", "true"}}}},
		`{"proxy":{"dns":true}}`:             {Proxy: &ProxyChange{DNS: text("8.8.8.8:53")}},
		`{"proxy":{"dns":false}}`:            {Proxy: &ProxyChange{DNS: text("")}},
		`{"proxy":{"dns":"[::1]:53"}}`:       {Proxy: &ProxyChange{DNS: text("[::1]:53")}},
	} {
		got, err := readHostChange(json.RawMessage(body))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s (-want +got):\n%s%v", body, diff, err)
		}
	}
	for _, body := range []string{`{"proxy":{"dns":""}}`, `{"proxy":{"dns":null}}`, `{"proxy":{"a":[]}}`} {
		if _, err := readHostChange(json.RawMessage(body)); err == nil || strings.Contains(err.Error(), "[]") {
			t.Errorf("%s: %v", body, err)
		}
	}
}
