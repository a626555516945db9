package bucket

import (
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for text, want := range map[string]Address{
		"s3://images": {Bucket: "images", Region: "us-east-1"},
		"s3://images/deckhand/one/?region=eu-central-1":                              {Bucket: "images", Prefix: "deckhand/one", Region: "eu-central-1"},
		"s3://images?endpoint=https://s3.example.com:9000":                           {Bucket: "images", Region: "us-east-1", Endpoint: "https://s3.example.com:9000", PathStyle: true},
		"s3://images?endpoint=https://s3.example.com&path-style=false&region=garage": {Bucket: "images", Region: "garage", Endpoint: "https://s3.example.com"},
	} {
		if got, err := ParseAddress(text); err != nil || got != want {
			t.Errorf("%s: %+v %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"s3://key:hunter2@images":                     "AWS_SECRET_ACCESS_KEY",
		"s3://images?secret=hunter2":                  "known are region",
		"s3://images?endpoint=s3.example.com":         "https://s3.example.com",
		"s3://images?endpoint=https://a:hunter2@host": "endpoint",
		"s3://images?path-style=perhaps":              "true or false",
		"s3://images/../other":                        "prefix",
		"s3://Images":                                 Example,
		"https://images/hunter2":                      Example,
		"/srv/hunter2":                                Example,
		"s3://images:hunter2\x7f":                     Example,
	} {
		_, err := ParseAddress(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q and no secret", text, err, want)
		}
	}
}
