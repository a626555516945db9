//go:build engine && interop && linux

package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Files of releases: those of up to 5 MiB go in one request, larger ones in parts.
func assets(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("papers")
	commit := o.deploy(fleet, "one", map[string]string{"web": "one"})
	large := strings.Repeat("0123456789abcdef", 12<<20/16) + "end"
	notes, firmware := o.file("notes.txt", "read me"), o.file("firmware.bin", large)

	o.says("release-asset upload "+commit+" "+notes+" --key notes", "notes")
	o.refuses("release-asset upload "+commit+" "+notes+" --key notes", "already")
	o.same(commit, "notes", "read me")
	o.file("notes.txt", "read me again")
	o.says("release-asset upload " + commit + " " + notes + " --key notes --overwrite")
	o.same(commit, "notes", "read me again")

	o.says("release-asset upload "+commit+" "+firmware+" --key firmware", "firmware")
	o.same(commit, "firmware", large)
	o.says("release-asset upload " + commit + " " + firmware + " --key firmware --overwrite --chunk-size 6291456 --parallel-chunks 2")
	o.same(commit, "firmware", large)
	o.says("release-asset list "+commit, "notes", "firmware", "firmware.bin")

	o.says("release-asset delete " + commit + " --key notes --yes")
	o.refuses("release-asset download "+commit+" --key notes --output "+filepath.Join(o.dir, "none"), "not found")
	said := o.script("testdata/asset.js", commit, firmware)
	want := "uploaded small.txt 5\nuploaded firmware.bin " + fmt.Sprint(len(large)) + "\ndownloaded hello\ndownloaded " + fmt.Sprint(len(large)) + "\nkeys firmware,large,small\nkeys firmware,large\n"
	if said != want {
		t.Errorf("the SDK says\n%s\nwant\n%s", said, want)
	}
}

// same downloads an asset and compares it.
func (o *owner) same(commit, key, want string) {
	o.Helper()
	path := filepath.Join(o.TempDir(), key)
	o.says("release-asset download " + commit + " --key " + key + " --output " + path)
	got, err := os.ReadFile(path)
	o.must(err)
	if string(got) != want {
		o.Errorf("%s has %d bytes, want the %d that were uploaded", key, len(got), len(want))
	}
}

// script runs a program that uses the SDK, and gives what it prints.
func (o *owner) script(path string, args ...string) string {
	o.Helper()
	modules, err := filepath.Abs(peers)
	o.must(err)
	ctx, cancel := context.WithTimeout(o.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(modules, ".bin", "node"), append([]string{path, o.seen.URL + "/", set.token}, args...)...)
	cmd.Env = append(cmd.Environ(), "NODE_PATH="+modules, "HOME="+o.dir)
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		o.Errorf("%s: %v\n%s", path, err, stderr.String())
	}
	return string(out)
}
