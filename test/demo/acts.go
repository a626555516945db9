package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// startCloud starts the companion cloud and logs its owner in.
func startCloud(ctx context.Context, s *stage) error {
	title("The cloud: API, registry, builder and page in one process")
	var err error
	if s.api, err = freeAddress(); err != nil {
		return err
	}
	if s.registry, err = freeAddress(); err != nil {
		return err
	}
	cmd := exec.Command("bin/deckhand-cloud", "serve", "--data-dir", s.path("cloud"), "--listen", s.api, "--registry-listen", s.registry, "--engine", s.engineHost)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	log, err := os.Create(s.path("cloud.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := s.spawn(cmd); err != nil {
		return err
	}
	s.api = "http://" + s.api
	if err := s.readLogin(out); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(s.path("cloud.log")))
	}
	say("listening on %s, registry on %s", s.api, s.registry)
	say("first start: owner %q with a one-time password", s.user)
	return s.deckctl(ctx, s.password, "login", s.api, "--user", s.user)
}

var loginLine = regexp.MustCompile(`(?i)^\s*(user|password):?\s+(\S+)\s*$`)

// readLogin finds the one-time login in what the cloud prints, and goes on
// reading so that the cloud never blocks.
func (s *stage) readLogin(out io.Reader) error {
	found := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			for _, m := range loginLine.FindAllStringSubmatch(lines.Text(), -1) {
				if strings.EqualFold(m[1], "user") {
					s.user = m[2]
				} else {
					s.password = m[2]
				}
			}
			if s.user != "" && s.password != "" {
				break
			}
		}
		if s.user == "" || s.password == "" {
			found <- errors.New("the cloud printed no login")
			return
		}
		found <- nil
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case err := <-found:
		return err
	case <-time.After(30 * time.Second):
		return errors.New("the cloud did not start within 30 s")
	}
}

// deckctl runs the owner's command line and shows it.
func (s *stage) deckctl(ctx context.Context, stdin string, args ...string) error {
	say("$ deckctl %s", strings.Join(args, " "))
	cmd := s.owner(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin + "\n")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start deckctl: %w; build it with make build", err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !strings.Contains(lines.Text(), "| step ") { // each line of each Dockerfile
			say("  %s", lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("deckctl %s: %w", args[0], err)
	}
	return nil
}

func (s *stage) owner(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bin/deckctl", args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+s.path("owner"), "XDG_STATE_HOME="+s.path("owner"), "NO_COLOR=1")
	return cmd
}

func firstPush(ctx context.Context, s *stage) error {
	title("The owner makes a fleet and pushes examples/hello")
	if err := s.deckctl(ctx, "", "fleet", "create", "hello", "--device-type", "generic-amd64"); err != nil {
		return err
	}
	return s.deckctl(ctx, "", "push", "hello", "examples/hello")
}

func startDevice(ctx context.Context, s *stage) error {
	title("A device joins the fleet")
	if err := s.deckctl(ctx, "", "device", "config", "--fleet", "hello", "-o", ".run/demo/config.json"); err != nil {
		return err
	}
	say("$ deckhand run      # registers itself with that config.json")
	var err error
	s.supervisor, err = s.supervise()
	return err
}

func firstRelease(ctx context.Context, s *stage) error {
	title("The device installs the release")
	if err := s.supervisor.until(ctx, s, "commit"); err != nil {
		return err
	}
	fmt.Println()
	if err := s.deckhand(ctx, all, "status"); err != nil {
		return err
	}
	fmt.Println()
	return s.curl(ctx, http.MethodGet, "/")
}

// preview plans a change without making it.
func preview(ctx context.Context, s *stage) error {
	title("What would happen if GREETING changed? A plan changes nothing")
	target, err := s.target(ctx)
	if err != nil {
		return err
	}
	target = bytes.ReplaceAll(target, []byte(`"GREETING":"Hello"`), []byte(`"GREETING":"Good morning"`))
	if err := os.WriteFile(s.path("preview.json"), target, 0o600); err != nil {
		return err
	}
	return s.deckhand(ctx, all, "plan", "--target", "preview.json")
}

func lookBack(ctx context.Context, s *stage) error {
	title("What the owner sees")
	say("(the device reports at most every ten seconds)")
	if err := s.reported(ctx); err != nil {
		return err
	}
	if err := s.deckctl(ctx, "", "release", "list", "hello"); err != nil {
		return err
	}
	return s.deckctl(ctx, "", "device", "list")
}

// reported waits until the cloud has heard which release the device runs.
func (s *stage) reported(ctx context.Context) error {
	var last []byte
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); {
		devices, err := s.owner(ctx, "device", "list", "--json").Output()
		if err != nil {
			return fmt.Errorf("deckctl device list: %w", err)
		}
		releases, err := s.owner(ctx, "release", "list", "hello", "--json").Output()
		if err != nil {
			return fmt.Errorf("deckctl release list: %w", err)
		}
		var made []struct {
			ID int64 `json:"id"`
		}
		var known []struct {
			Running int64 `json:"runningRelease"`
		}
		if err := errors.Join(json.Unmarshal(releases, &made), json.Unmarshal(devices, &known)); err != nil {
			return fmt.Errorf("read the lists of deckctl: %w", err)
		}
		if last = devices; len(made) > 0 && len(known) > 0 && known[0].Running == made[0].ID {
			return nil
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("the cloud does not hear of the new release:\n%s", last)
}

const all = 1000 // lines

// deckhand runs a question to the supervisor and shows the first lines of its
// answer.
func (s *stage) deckhand(ctx context.Context, lines int, args ...string) error {
	say("$ deckhand %s", strings.Join(args, " "))
	program, err := filepath.Abs("bin/deckhand")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "DECKHAND_DATA_DIR="+s.path("device"))
	out, err := cmd.CombinedOutput()
	n := 0
	for line := range strings.Lines(strings.TrimRight(string(out), "\n")) {
		if n++; n > lines {
			say("  …")
			break
		}
		say("  %s", strings.TrimSuffix(line, "\n"))
	}
	if err != nil {
		return fmt.Errorf("deckhand %s: %w", args[0], err)
	}
	return nil
}

// curl asks the example itself.
func (s *stage) curl(ctx context.Context, method, path string) error {
	if method == http.MethodGet {
		say("$ curl %s%s", front, path)
	} else {
		say("$ curl -X %s '%s%s'", method, front, path)
	}
	var last error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		text, err := fetch(ctx, http.DefaultClient, method, front+path)
		if err == nil {
			say("  %s", text)
			return nil
		}
		last = err
		select {
		case <-time.After(100 * time.Millisecond): // the service is just starting
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("the example does not answer: %w", last)
}

// target is what the cloud wants of the device.
func (s *stage) target(ctx context.Context) ([]byte, error) {
	var config struct {
		UUID string `json:"uuid"`
		Key  string `json:"deviceApiKey"`
	}
	b, err := os.ReadFile(s.path("config.json"))
	if err == nil {
		err = json.Unmarshal(b, &config)
	}
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.api+"/device/v3/"+config.UUID+"/state", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+config.Key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	doc, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for the target: %s %w", res.Status, err)
	}
	return doc, nil
}

func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
