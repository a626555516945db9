package build

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLinesAreWhole(t *testing.T) {
	for what, c := range map[string]struct {
		fragments []string
		want      []string
	}{
		"a line in pieces":          {[]string{"Step 1/2 : FROM x", "\n", "he", "llo\n"}, []string{"Step 1/2 : FROM x", "hello"}},
		"many lines in one":         {[]string{"a\nb\nc\n"}, []string{"a", "b", "c"}},
		"no break before an engine": {[]string{"tail", "Removing intermediate container 1\n"}, []string{"tail", "Removing intermediate container 1"}},
		"no break at the end":       {[]string{"last"}, []string{"last"}},
		"overwritten":               {[]string{"10%\r", "50%\r", "100%\r\n"}, []string{"100%"}},
		"stderr":                    {[]string{"out", "\x1b[91merr\n\x1b[0m", "more\n"}, []string{"out", "!err", "more"}},
		"colours":                   {[]string{"\x1b[1;31mred\x1b[0m\n"}, []string{"red"}},
	} {
		var a assembler
		var got []string
		collect := func(lines []line) {
			for _, l := range lines {
				if l.stderr {
					l.text = "!" + l.text
				}
				got = append(got, l.text)
			}
		}
		for _, f := range c.fragments {
			collect(a.add(f))
		}
		collect(a.flush())
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

func TestALongLogKeepsBothEnds(t *testing.T) {
	var l Log
	l.add("the beginning")
	for range 40_000 {
		l.add(strings.Repeat("x", 60))
	}
	l.add("the error")
	text := l.String()
	if len(text) > 1_500_000 || !strings.HasPrefix(text, "the beginning\n") || !strings.HasSuffix(text, "\nthe error") || !strings.Contains(text, "left out") {
		t.Errorf("%d bytes, from %.20q to %q", len(text), text, text[len(text)-20:])
	}
	if diff := cmp.Diff([]string{"the error"}, l.last(1)); diff != "" {
		t.Error(diff)
	}
}
