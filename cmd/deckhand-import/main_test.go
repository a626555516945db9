package main

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheCommand(t *testing.T) {
	dir := t.TempDir()
	database, config, data := filepath.Join(dir, "database.sqlite"), filepath.Join(dir, "config.json"), filepath.Join(dir, "data")
	must(t, os.WriteFile(config, []byte(`{"uuid":"0123456789abcdef0123456789abcdef"}`), 0o600))
	db, err := sql.Open("sqlite", database)
	must(t, err)
	for _, s := range []string{`CREATE TABLE config (key text, value text)`, `CREATE TABLE currentCommit (appId integer, "commit" text)`, `INSERT INTO currentCommit VALUES (7, 'beef')`} {
		_, err := db.ExecContext(t.Context(), s)
		must(t, err)
	}
	must(t, db.Close())
	for _, x := range []struct {
		args      []string
		code      int
		out, errs string
	}{
		{[]string{"--from", database + "x"}, 1, "", "Nothing was taken over"},
		{[]string{"--dry-run"}, 0, "Nothing was written.", ""},
		{nil, 0, "Taken over.", ""},
		{nil, 1, "", "--force"},
		{[]string{"--force", "--without", "tags,commits"}, 0, "commits: left out", ""},
		{[]string{"--no-such"}, 2, "", "no-such"},
		{[]string{"--help"}, 0, "", "--data-dir FOLDER"},
		{[]string{"--version"}, 0, "dev", ""},
		{[]string{"surplus"}, 2, "", "surplus"},
	} {
		var out, errs bytes.Buffer
		args := slices.Concat([]string{"--from", database, "--config", config, "--data-dir", data}, x.args)
		code := run(t.Context(), args, &out, &errs)
		if code != x.code || !strings.Contains(out.String(), x.out) || !strings.Contains(errs.String(), x.errs) || x.errs == "" && errs.Len() > 0 {
			t.Errorf("%v: %d\n%s\n%s", x.args, code, &out, &errs)
		}
	}
}
