package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"deckhand/client"
	"deckhand/state"
	"deckhand/version"
)

// settings are what deckctl remembers between calls.
type settings struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// settingsFile is where they are kept.
func (s *session) settingsFile() (string, error) {
	dir := s.env("XDG_CONFIG_HOME")
	if dir == "" {
		home := s.env("HOME")
		if home == "" {
			return "", errors.New("neither XDG_CONFIG_HOME nor HOME is set; there is no place for the settings")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "deckctl", "settings.json"), nil
}

// settings reads the file; what it does not say comes from the variables that other
// tools for such clouds use.
func (s *session) settings() (settings, error) {
	var found settings
	file, err := s.settingsFile()
	if err != nil {
		return found, err
	}
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return found, fmt.Errorf("read settings: %w", err)
	default:
		if err := json.Unmarshal(data, &found); err != nil {
			return found, fmt.Errorf("read settings: %s is damaged (%w); remove it and log in again", file, err)
		}
	}
	if found.URL == "" {
		found.URL = s.env("BALENARC_API_URL")
	}
	if dir := s.env("BALENARC_DATA_DIRECTORY"); found.Token == "" && dir != "" {
		if token, err := os.ReadFile(filepath.Join(dir, "token")); err == nil {
			found.Token = strings.TrimSpace(string(token))
		}
	}
	if s.url != "" {
		found.URL = address(s.url)
	}
	return found, nil
}

// save keeps the settings for this user's eyes only.
func (s *session) save(v settings) error {
	file, err := s.settingsFile()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), ".settings-") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	_, err = temporary.Write(append(data, '\n'))
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write settings: %w", err), os.Remove(temporary.Name()))
	}
	return nil
}

// address completes what people type: clouds on this machine speak http, all others https.
func address(text string) string {
	if strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse("//" + text)
	if err != nil {
		return text
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return "http://" + text
	}
	return "https://" + text
}

// cloud is the client of the cloud that is logged in to.
func (s *session) cloud() (*client.Client, error) {
	known, err := s.settings()
	if err != nil {
		return nil, err
	}
	if known.URL == "" || known.Token == "" {
		return nil, &exitError{exitAuth, errors.New("not logged in; use deckctl login URL")}
	}
	return client.New(client.Config{
		URL: known.URL, Builder: s.env("BALENARC_BUILDER_URL"), Token: known.Token, Agent: "deckctl/" + version.Version,
	})
}

type loginCmd struct {
	URL   string `arg:"" optional:"" help:"Address of the cloud's API."`
	Token string `xor:"how" help:"Session token or API key; - reads it from standard input."`
	User  string `xor:"how" help:"User name; the password is asked for, or read from standard input."`
}

// Run checks the login and remembers it.
func (c *loginCmd) Run(ctx context.Context, s *session) error {
	known, err := s.settings()
	if err != nil {
		return err
	}
	if c.URL != "" {
		known.URL = address(c.URL)
	}
	if known.URL == "" {
		return &exitError{exitUsage, errors.New("to which cloud? use deckctl login URL --user NAME")}
	}
	if c.User == "" && c.Token == "" {
		return &exitError{exitUsage, errors.New("as whom? give --user NAME or --token TOKEN")}
	}
	cloud, err := client.New(client.Config{URL: known.URL, Agent: "deckctl/" + version.Version})
	if err != nil {
		return err
	}
	if known.Token, err = c.credential(ctx, s, cloud); err != nil {
		return err
	}
	who, err := cloud.As(known.Token).Whoami(ctx)
	if err != nil {
		return fmt.Errorf("log in to %s: %w", known.URL, err)
	}
	if err := s.save(known); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "Logged in to %s as %s.\n", known.URL, nameOf(who))
	return err
}

func (c *loginCmd) credential(ctx context.Context, s *session, cloud *client.Client) (string, error) {
	if c.Token == "-" {
		return s.secret("Token: ")
	}
	if c.Token != "" {
		return c.Token, nil
	}
	password, err := s.secret("Password: ")
	if err != nil {
		return "", err
	}
	token, err := cloud.Login(ctx, c.User, password)
	if refused, ok := errors.AsType[*client.StatusError](err); ok && refused.Code == 401 {
		return "", &exitError{exitAuth, fmt.Errorf("the cloud does not accept this password for %s", c.User)}
	}
	return token, err
}

// secret reads one line without showing it.
func (s *session) secret(prompt string) (string, error) {
	if f, ok := s.stdin.(*os.File); ok && terminal(f) {
		fmt.Fprint(s.stderr, prompt)
		data, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.stderr)
		return string(data), err
	}
	line, err := bufio.NewReader(io.LimitReader(s.stdin, 8<<10)).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", &exitError{exitUsage, errors.New("standard input is empty; it should hold the password or token")}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return line, err
}

func nameOf(a client.Actor) string {
	switch a.Kind {
	case "device":
		return "device " + a.UUID
	case "application":
		return "fleet " + a.Slug
	}
	return a.Username
}

type logoutCmd struct{}

// Run forgets the token and keeps the address.
func (logoutCmd) Run(s *session) error {
	known, err := s.settings()
	if err != nil {
		return err
	}
	known.Token = ""
	if err := s.save(known); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.stdout, "Logged out.")
	return err
}

type whoamiCmd struct{}

// Run asks the cloud.
func (whoamiCmd) Run(ctx context.Context, s *session) error {
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	who, err := cloud.Whoami(ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.object(struct {
			URL   string       `json:"url"`
			Actor client.Actor `json:"actor"`
		}{cloud.URL(), who})
	}
	_, err = fmt.Fprintf(s.stdout, "%s at %s\n", nameOf(who), cloud.URL())
	return err
}

// object writes v as JSON.
func (s *session) object(v any) error {
	enc := json.NewEncoder(s.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func withoutClass(text string, c state.Class) string {
	return strings.Replace(text, string(c)+": ", "", 1)
}
