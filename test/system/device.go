//go:build linux

package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"deckhand/supervisor"
)

// DeviceConfig says what a device is made of.
type DeviceConfig struct {
	Program string         // deckhand
	Dir     string         // of its data, run folder and config.json; short, for it holds a socket
	Engine  string         // host of its container engine
	Values  map[string]any // of config.json; nil: there is no such file
	Log     *Log           // nil: a new one
	Args    []string       // more flags of "deckhand run"
}

// Device is a device: folders that last, and the supervisor that runs on them
// now and then.
type Device struct {
	DataDir, RunDir, ConfigFile string
	Listen                      string // of its local API
	Log                         *Log
	cfg                         DeviceConfig
	process                     *Process
}

// NewDevice makes the folders and config.json; nothing runs yet.
func NewDevice(cfg DeviceConfig) (*Device, error) {
	listen, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	d := &Device{
		DataDir: filepath.Join(cfg.Dir, "data"), RunDir: filepath.Join(cfg.Dir, "run"),
		ConfigFile: filepath.Join(cfg.Dir, "config.json"), Listen: listen, Log: cfg.Log, cfg: cfg,
	}
	if d.Log == nil {
		d.Log = NewLog(nil)
	}
	for _, dir := range []string{d.DataDir, d.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make device: %w", err)
		}
	}
	if cfg.Values == nil {
		return d, nil
	}
	return d, d.WriteConfig(cfg.Values)
}

// WriteConfig replaces config.json.
func (d *Device) WriteConfig(values map[string]any) error {
	b, err := json.MarshalIndent(values, "", "  ")
	if err != nil {
		return fmt.Errorf("write config.json: %w", err)
	}
	return os.WriteFile(d.ConfigFile, b, 0o600)
}

// Args are the arguments of "deckhand run" on this device.
func (d *Device) Args() []string {
	return append([]string{"run", "--config", d.ConfigFile, "--engine", d.cfg.Engine, "--data-dir", d.DataDir,
		"--run-dir", d.RunDir, "--listen", d.Listen}, d.cfg.Args...)
}

// Start starts the supervisor; it does not wait until it answers, see Answer.
func (d *Device) Start() error {
	if d.process != nil && d.process.Running() {
		return errors.New("start device: it runs already")
	}
	p, err := Run(d.Log, nil, d.cfg.Program, d.Args()...)
	if err != nil {
		return err
	}
	d.process = p
	return nil
}

// Process is the supervisor that was started last.
func (d *Device) Process() *Process { return d.process }

// Kill ends the supervisor as a power cut would.
func (d *Device) Kill() {
	if d.process != nil {
		d.process.Kill()
	}
}

// Stop ends the supervisor with SIGTERM; without one it does nothing.
func (d *Device) Stop() error {
	if d.process == nil || !d.process.Running() {
		return nil
	}
	return d.process.Stop()
}

// Restart stops the supervisor and starts it again.
func (d *Device) Restart() error {
	if err := d.Stop(); err != nil {
		return err
	}
	return d.Start()
}

// Ask asks the running supervisor.
func (d *Device) Ask() supervisor.Ask { return supervisor.Ask{DataDir: d.DataDir} }

// Until waits until what the supervisor says of the device gives nil. It ends
// early when the supervisor itself has ended.
func (d *Device) Until(ctx context.Context, condition func(supervisor.View) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if p := d.process; p != nil {
		go func() {
			select {
			case <-p.Done():
				cancel(fmt.Errorf("the supervisor ended with code %d", p.ExitCode()))
			case <-ctx.Done():
			}
		}()
	}
	return Until(ctx, func(ctx context.Context) error {
		v, err := d.Ask().Status(ctx)
		if err != nil {
			return err
		}
		return condition(v)
	})
}

// Answer waits until the supervisor answers.
func (d *Device) Answer(ctx context.Context) error {
	return d.Until(ctx, func(supervisor.View) error { return nil })
}

// Settled waits until the device runs a release as it was asked for; an empty
// commit means any.
func (d *Device) Settled(ctx context.Context, commit string) error {
	return d.Until(ctx, func(v supervisor.View) error {
		if v.State != supervisor.StateSettled {
			return fmt.Errorf("the device is %s", Describe(v))
		}
		for _, a := range v.Apps {
			if a.Release != a.Target || commit != "" && a.Release != commit {
				return fmt.Errorf("the device is %s", Describe(v))
			}
		}
		if commit != "" && len(v.Apps) == 0 {
			return fmt.Errorf("the device is %s and has no app", Describe(v))
		}
		return nil
	})
}

// Describe writes a status in one line.
func Describe(v supervisor.View) string {
	text := v.State
	if v.Reason != "" {
		text += " (" + v.Reason + ")"
	}
	for _, a := range v.Apps {
		text += fmt.Sprintf("; %s at %.7s, wants %.7s:", a.Name, a.Release, a.Target)
		for _, s := range a.Services {
			text += " " + s.Name + " " + s.Status
			if s.Next != "" {
				text += " (" + s.Next + ")"
			}
		}
	}
	for _, w := range v.Waiting {
		text += fmt.Sprintf("; %s waits after %d tries: %s: %s", w.Step, w.Tries, w.Class, w.Text)
	}
	if v.Cloud != nil && v.Cloud.Problem != "" {
		text += "; cloud: " + v.Cloud.Problem
	}
	return text
}

// Registered are the values of config.json for a device that its cloud knows.
func Registered(api, uuid, key string, id, fleet int64) map[string]any {
	return map[string]any{
		"apiEndpoint": api, "uuid": uuid, "deviceApiKey": key, "deviceId": id, "applicationId": fleet,
		"registered_at": time.Now().UnixMilli(), "deviceType": "generic-amd64", "appUpdatePollInterval": 60_000,
	}
}

// Unregistered are the values for a device that has a provisioning key only.
func Unregistered(api, key string, fleet int64) map[string]any {
	return map[string]any{
		"apiEndpoint": api, "apiKey": key, "applicationId": fleet, "deviceType": "generic-amd64", "appUpdatePollInterval": 60_000,
	}
}

// FreeAddr is an address on loopback where nothing listens.
func FreeAddr() (string, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Port is the port of an address.
func Port(addr string) int {
	_, text, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(text)
	return n
}
