//go:build linux

package system

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"deckhand/build/event"
	"deckhand/client"
)

// CloudConfig says what a cloud is made of.
type CloudConfig struct {
	Program string // deckhand-cloud
	Dir     string // its data
	Engine  string // host of the engine that builds
	Listen  string // of the API; empty: a free port on loopback
	// RegistryListen is where the registry listens, and RegistryHost how
	// engines reach it, when something stands between. Empty: a free port.
	RegistryListen, RegistryHost string

	Log  *Log     // nil: a new one
	Args []string // more flags of "deckhand-cloud serve"
}

// Cloud is a running cloud and its owner's session.
type Cloud struct {
	URL    string
	Client *client.Client // logged in as the owner
	User   string
	Log    *Log
	// Password is that of the one-time login.
	Password string

	cfg     CloudConfig
	process *Process
}

// StartCloud starts a new cloud and logs in.
func StartCloud(ctx context.Context, cfg CloudConfig) (*Cloud, error) {
	for _, addr := range []*string{&cfg.Listen, &cfg.RegistryListen} {
		if *addr != "" {
			continue
		}
		free, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		*addr = free
	}
	if cfg.RegistryHost == "" {
		cfg.RegistryHost = cfg.RegistryListen
	}
	c := &Cloud{URL: "http://" + cfg.Listen, Log: cfg.Log, cfg: cfg}
	if c.Log == nil {
		c.Log = NewLog(nil)
	}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	if err := c.login(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Start starts the cloud again on its data and waits until it answers.
func (c *Cloud) Start(ctx context.Context) error {
	args := append([]string{"serve", "--data-dir", filepath.Join(c.cfg.Dir, "cloud"), "--listen", c.cfg.Listen,
		"--registry-listen", c.cfg.RegistryListen, "--registry-host", c.cfg.RegistryHost, "--engine", c.cfg.Engine}, c.cfg.Args...)
	p, err := Run(c.Log, nil, c.cfg.Program, args...)
	if err != nil {
		return err
	}
	c.process = p
	err = Until(ctx, func(ctx context.Context) error {
		if !p.Running() {
			return nil
		}
		return c.answers(ctx)
	})
	if err == nil && !p.Running() {
		err = fmt.Errorf("it ended with code %d:\n%s", p.ExitCode(), c.Log)
	}
	if err != nil {
		p.Kill()
		return fmt.Errorf("start cloud: %w", err)
	}
	return nil
}

func (c *Cloud) answers(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/ping", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Stop stops the cloud with SIGTERM; Start brings it back.
func (c *Cloud) Stop() error {
	if c.process == nil || !c.process.Running() {
		return nil
	}
	return c.process.Stop()
}

// Process is the cloud that was started last.
func (c *Cloud) Process() *Process { return c.process }

// Push builds a project as a release of a fleet and gives its commit. A build
// that fails is an error with the log of what failed; one that was cut off, with what
// was told last.
func (c *Cloud) Push(ctx context.Context, fleet client.Fleet, dir string, each func(event.Event)) (event.Event, error) {
	var tail, told []string
	result, err := c.Client.Build(ctx, client.BuildRequest{Slug: fleet.Slug, Source: dir}, func(e event.Event) {
		if e.Type == event.Error {
			tail = append(append(tail, e.Service+": "+e.Message), e.Tail...)
		}
		told = append(told, fmt.Sprintf("%s %s %s %s %s %d%%", e.T.Format(time.TimeOnly), e.Type, e.Service, e.State, e.Text, e.Percent))
		if each != nil {
			each(e)
		}
	})
	if err == nil && result.Status != event.StatusSuccess {
		err = fmt.Errorf("push to %s: %s\n%s", fleet.Slug, result.Status, strings.Join(tail, "\n"))
	}
	if err != nil && len(tail) == 0 {
		err = fmt.Errorf("push to %s: %w; told last:\n%s", fleet.Slug, err, strings.Join(told[max(0, len(told)-20):], "\n"))
	}
	return result, err
}

// Registered registers a device and gives the values of its config.json.
func (c *Cloud) Registered(ctx context.Context, fleet client.Fleet) (map[string]any, error) {
	r, err := c.Client.RegisterDevice(ctx, fleet, "")
	if err != nil {
		return nil, err
	}
	return Registered(c.URL, r.UUID, r.Key, r.ID, fleet.ID), nil
}

// Unregistered gives the values of config.json for a device that is to
// register by itself.
func (c *Cloud) Unregistered(ctx context.Context, fleet client.Fleet) (map[string]any, error) {
	key, err := c.Client.ProvisioningKey(ctx, fleet.ID, time.Hour)
	if err != nil {
		return nil, err
	}
	return Unregistered(c.URL, key, fleet.ID), nil
}

var oneTimeLogin = regexp.MustCompile(`\buser +(\S+)\s+password +(\S+)`)

func (c *Cloud) login(ctx context.Context) error {
	anybody, err := client.New(client.Config{URL: c.URL})
	if err != nil {
		return err
	}
	var m []string
	err = Until(ctx, func(context.Context) error { // what it printed comes through a pipe
		if m = oneTimeLogin.FindStringSubmatch(c.Log.String()); m == nil {
			return fmt.Errorf("its log shows no one-time login:\n%s", c.Log)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("log in to the cloud: %w", err)
	}
	c.User, c.Password = m[1], m[2]
	token, err := anybody.Login(ctx, c.User, c.Password)
	if err != nil {
		return err
	}
	c.Client = anybody.As(token)
	return nil
}
