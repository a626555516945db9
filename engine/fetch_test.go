package engine

import (
	"strings"
	"testing"

	"deckhand/state"
)

func TestReadPull(t *testing.T) {
	const answer = `{"status":"Pulling from web","id":"1"}
{"status":"Pulling fs layer","progressDetail":{},"id":"a"}
{"status":"Downloading","progressDetail":{"current":10,"total":100},"progress":"[>  ]","id":"a"}
{"status":"Downloading","progressDetail":{"current":20,"total":50},"id":"b"}
{"status":"Downloading","progressDetail":{"current":60,"total":100},"id":"a"}
{"status":"Retrying in 5 seconds","progressDetail":{},"id":"a"}
{"status":"Downloading","progressDetail":{"current":5,"total":100},"id":"a"}
{"status":"Download complete","progressDetail":{},"id":"b"}
{"status":"Extracting","progressDetail":{"current":1,"total":50},"id":"b"}
{"status":"Already exists","progressDetail":{},"id":"c"}
{"status":"Download complete","progressDetail":{},"id":"a"}
{"status":"Status: Downloaded newer image"}
`
	var lastDone, lastTotal int64
	err := readPull(strings.NewReader(answer), func(done, total int64) {
		if done < lastDone || total < lastTotal || done > total {
			t.Errorf("progress went from %d of %d to %d of %d", lastDone, lastTotal, done, total)
		}
		lastDone, lastTotal = done, total
	})
	if err != nil || lastDone != 150 || lastTotal != 150 {
		t.Errorf("ended at %d of %d: %v", lastDone, lastTotal, err)
	}
}

func TestReadPullErrors(t *testing.T) {
	for answer, want := range map[string]string{
		`{"status":"Pulling"}` + "\n" + `{"errorDetail":{"message":"write /x: no space left on device"},"error":"write /x"}`: "no space left on device",
		`{"error":"toomanyrequests: slow down"}`: "slow down",
		`{"errorDetail":{}}`:                     "no reason",
		`{"status":"Pulling"}` + "\n" + `{"sta`:  "unexpected EOF",
		`<html>`:                                 "invalid character",
	} {
		if err := readPull(strings.NewReader(answer), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v does not say %q", answer, err, want)
		}
	}
	if c := state.ClassOf(classifyPull(readPull(strings.NewReader(`{"sta`), nil))); c != state.ClassNetwork {
		t.Errorf("an answer cut off is %s", c)
	}
}

func FuzzReadPull(f *testing.F) {
	f.Add(`{"status":"Downloading","progressDetail":{"current":-1,"total":9223372036854775807},"id":"a"}`)
	f.Fuzz(func(t *testing.T, answer string) {
		_ = readPull(strings.NewReader(answer), func(done, total int64) {
			if done < 0 || total < 0 {
				t.Errorf("%d of %d", done, total)
			}
		})
	})
}
