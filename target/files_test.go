package target

import (
	"strings"
	"testing"
)

// Secrets and configs stand beside the services of a release. Their content is
// in no message.
func TestFilesOfARelease(t *testing.T) {
	release := func(secrets string) string {
		return whole(`"a1":{"id":1,"name":"app","releases":{"c1":{"id":2,"services":{"web":{"id":3,"image_id":4,"image":"img",
			"environment":{"KEY":"deep"},"labels":{},"composition":{"secrets":["key","other"],"configs":[{"source":"conf","target":"/etc/conf"}]}}},
			"secrets":` + secrets + `,"configs":{"conf":{"content":"plain"}}}}}`)
	}
	got, problems := decode(t, release(`{"key":{"content":"hunter2"},"other":{"environment":"KEY"}}`))
	if said := lines(problems); said != "" {
		t.Error(said)
	}
	content := map[string]string{}
	for _, f := range got.Apps["a1"].Services["web"].Spec.Files {
		content[f.Target] = string(f.Content)
	}
	if content["/run/secrets/key"] != "hunter2" || content["/run/secrets/other"] != "deep" || content["/etc/conf"] != "plain" {
		t.Errorf("%q", content)
	}
	_, _, err := DecodeV3(t.Context(), []byte(release(`{"key":"hunter2"}`)), Options{Device: device})
	if err == nil || !strings.Contains(err.Error(), "secrets.key") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
