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
		say("  %s", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("deckctl %s: %w", args[0], err)
	}
	return nil
}

func (s *stage) owner(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bin/deckctl", args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+s.path("owner"), "NO_COLOR=1")
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
	if err := s.deckctl(ctx, "", "device", "config", "--fleet", "hello", "-o", s.path("config.json")); err != nil {
		return err
	}
	say("$ deckhand run      # registers itself with that config.json")
	var err error
	s.supervisor, err = s.supervise()
	return err
}

func firstRelease(ctx context.Context, s *stage) error {
	title("The device installs the release")
	say("(update locks are not honoured yet: containers are stopped when the release is ready)")
	if err := s.supervisor.until(ctx, s, "commit"); err != nil {
		return err
	}
	if err := s.showStatus(ctx); err != nil {
		return err
	}
	return s.greeting(ctx)
}

// preview plans a change without making it.
func preview(ctx context.Context, s *stage) error {
	title("What would happen if GREETING changed? A plan changes nothing")
	target, err := s.targetWithGreeting(ctx, "Good morning")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("preview.json"), target, 0o600); err != nil {
		return err
	}
	say("$ deckhand plan --target preview.json")
	out, err := exec.CommandContext(ctx, "bin/deckhand", "plan", "--data-dir", s.path("device"), "--target", s.path("preview.json")).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		say("  %s", strings.TrimRight(line, "\n"))
	}
	return err
}

func secondRelease(ctx context.Context, s *stage) error {
	title("The owner pushes a second release: another GREETING for web, another image for worker")
	out, err := exec.CommandContext(ctx, "examples/hello/build.sh", "2", s.path("hello-2")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the second release: %w\n%s", err, out)
	}
	downtime, err := s.watchDowntime()
	if err != nil {
		return err
	}
	if err := s.deckctl(ctx, "", "push", "hello", s.path("hello-2")); err != nil {
		return err
	}
	title("The device updates, step by step")
	if err := s.supervisor.until(ctx, s, "commit"); err != nil {
		return err
	}
	downtime.print()
	return s.greeting(ctx)
}

func lookBack(ctx context.Context, s *stage) error {
	title("What the owner sees")
	say("(the device reports at most every ten seconds)")
	if err := s.reported(ctx); err != nil {
		return err
	}
	if err := s.showStatus(ctx); err != nil {
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

func (s *stage) showStatus(ctx context.Context) error {
	fmt.Println()
	say("$ deckhand status")
	out, err := exec.CommandContext(ctx, "bin/deckhand", "status", "--data-dir", s.path("device")).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		say("  %s", strings.TrimRight(line, "\n"))
	}
	return err
}

// greeting asks the example itself.
func (s *stage) greeting(ctx context.Context) error {
	const url = "http://127.0.0.1:8090/"
	var last error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			fmt.Println()
			say("$ curl %s", url)
			say("  %s", strings.TrimSpace(string(b)))
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

// targetWithGreeting is the device's target with one variable changed.
func (s *stage) targetWithGreeting(ctx context.Context, greeting string) ([]byte, error) {
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
	return bytes.ReplaceAll(doc, []byte(`"GREETING":"Hello"`), []byte(`"GREETING":"`+greeting+`"`)), nil
}

func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
