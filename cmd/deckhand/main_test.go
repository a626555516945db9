package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a person who mistypes sees, and what a script branches on.
func TestWrongCalls(t *testing.T) {
	dir := t.TempDir()
	compose := filepath.Join(dir, "docker-compose.yml")
	if err := os.WriteFile(compose, []byte("services:\n  web:\n    image: web:1\n    mem_limit: plenty\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want []string // in what is printed
	}{
		{"", exitUsage, []string{"deckhand run", "deckhand apply COMPOSE_FILE"}},
		{"--help", exitOK, []string{"deckhand run"}},
		{"fly", exitUsage, []string{`no command "fly"`}},
		{"apply", exitUsage, []string{"usage: deckhand apply"}},
		{"run now", exitUsage, []string{"usage: deckhand run"}},
		{"run --log-level loud", exitUsage, []string{"loud", "debug, info"}},
		{"plan -o yaml", exitUsage, []string{"yaml", "text, json or dot"}},
		{"status -o yaml", exitUsage, []string{"yaml", "text or json"}},
		{"status --data-dir " + dir, exitFailed, []string{"no supervisor is running here", "deckhand run"}},
		{"explain", exitUsage, []string{"usage: deckhand explain", "APP/SERVICE"}},
		{"explain -o yaml web", exitUsage, []string{"yaml", "text or json"}},
		{"explain --data-dir " + dir + " web", exitFailed, []string{"no supervisor is running here"}},
		{"restart", exitUsage, []string{"usage: deckhand restart"}},
		{"stop --data-dir " + dir + " shop/web", exitFailed, []string{"no supervisor is running here"}},
		{"purge shop", exitUsage, []string{"--yes"}},
		{"purge --yes --data-dir " + dir + " shop", exitFailed, []string{"no supervisor is running here"}},
		{"override shop/web", exitUsage, []string{"whole app"}},
		{"override --for -1m", exitUsage, []string{"longer than nothing"}},
		{"override --data-dir " + dir, exitFailed, []string{"no supervisor is running here"}},
		{"override one two", exitUsage, []string{"usage: deckhand override"}},
		{"retry now", exitUsage, []string{"usage: deckhand retry"}},
		{"health --data-dir " + dir, exitFailed, []string{"no supervisor is running here"}},
		{"plan --snapshot " + compose, exitFailed, []string{"read snapshot", compose}},
		{"apply --data-dir " + dir + " " + filepath.Join(dir, "none.yml"), exitFailed, []string{"none.yml", "no such file"}},
		{"apply --data-dir " + dir + " " + compose, exitFailed, []string{"docker-compose.yml cannot be applied", "services.web.mem_limit", "plenty"}},
		{"apply --project UPPER --data-dir " + dir + " " + compose, exitFailed, []string{"cannot be applied"}},
	} {
		var out bytes.Buffer
		code := dispatch(t.Context(), strings.Fields(c.args), &out)
		if code != c.code {
			t.Errorf("deckhand %s: exit %d, want %d\n%s", c.args, code, c.code, out.String())
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("deckhand %s: nothing about %q in\n%s", c.args, w, out.String())
			}
		}
		if strings.Contains(out.String(), "invalid: ") {
			t.Errorf("deckhand %s: a class for programs is shown to people:\n%s", c.args, out.String())
		}
	}
}

func TestVariablesStandForFlags(t *testing.T) {
	t.Setenv("DECKHAND_DATA_DIR", t.TempDir())
	t.Setenv("DECKHAND_O", "yaml")
	var out bytes.Buffer
	if code := dispatch(t.Context(), []string{"status"}, &out); code != exitUsage || !strings.Contains(out.String(), "yaml") {
		t.Errorf("exit %d: %s", code, out.String())
	}
	out.Reset()
	if code := dispatch(t.Context(), []string{"status", "-o", "json"}, &out); code != exitFailed || !strings.Contains(out.String(), os.Getenv("DECKHAND_DATA_DIR")) {
		t.Errorf("exit %d: %s", code, out.String())
	}
}
