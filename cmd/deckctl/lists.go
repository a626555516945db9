package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"deckhand/client"
)

// table writes rows in columns, the first row as the heading; or values as JSON.
func (s *session) table(values any, rows [][]string) error {
	if s.json {
		return s.object(values)
	}
	w := tabwriter.NewWriter(s.stdout, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return w.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func short(id string) string { return id[:min(len(id), 7)] }

type fleetCmd struct {
	Create fleetCreateCmd `cmd:"" help:"Make a fleet."`
	List   fleetListCmd   `cmd:"" help:"List your fleets."`
}

type fleetCreateCmd struct {
	Name       string `arg:"" help:"Name of the fleet."`
	DeviceType string `required:"" short:"t" help:"Type of its devices, like raspberrypi4-64 or generic-amd64." placeholder:"TYPE"`
}

// Run makes the fleet.
func (c *fleetCreateCmd) Run(ctx context.Context, s *session) error {
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	f, err := cloud.CreateFleet(ctx, c.Name, c.DeviceType)
	if conflict(err) {
		return &exitError{exitFailed, fmt.Errorf("there is a fleet %s already", taken(ctx, cloud, c.Name))}
	}
	if err != nil {
		return err
	}
	if s.json {
		return s.object(f)
	}
	_, err = fmt.Fprintf(s.stdout, "Fleet %s (id %d) is ready for devices of type %s.\n", f.Slug, f.ID, f.DeviceType)
	return err
}

// taken is the slug of the fleet that has a name, or as much of it as can be found out.
func taken(ctx context.Context, cloud *client.Client, name string) string {
	fleets, err := cloud.Fleets(ctx)
	if err != nil {
		return name
	}
	for _, f := range fleets {
		if strings.EqualFold(f.Name, name) {
			return f.Slug
		}
	}
	return name
}

type fleetListCmd struct{}

// Run lists the fleets.
func (fleetListCmd) Run(ctx context.Context, s *session) error {
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	fleets, err := cloud.Fleets(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"ID", "FLEET", "DEVICE TYPE", "TARGET"}}
	for _, f := range fleets {
		target := "-"
		if f.Target != 0 {
			target = "release " + strconv.FormatInt(f.Target, 10)
		}
		rows = append(rows, []string{strconv.FormatInt(f.ID, 10), f.Slug, f.DeviceType, target})
	}
	return s.table(fleets, rows)
}

type deviceCmd struct {
	Register deviceRegisterCmd `cmd:"" help:"Add a device to a fleet."`
	List     deviceListCmd     `cmd:"" help:"List devices."`
	Show     deviceShowCmd     `cmd:"" help:"Show one device and its services."`
	Config   deviceConfigCmd   `cmd:"" help:"Write a config.json for a device, or for new devices of a fleet."`
}

type deviceRegisterCmd struct {
	Fleet string `arg:"" help:"Fleet the device joins."`
	UUID  string `help:"Identity of the device, 32 hex digits; a new one when absent."`
}

// Run registers the device.
func (c *deviceRegisterCmd) Run(ctx context.Context, s *session) error {
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	fleet, err := cloud.Fleet(ctx, c.Fleet)
	if err != nil {
		return err
	}
	r, err := cloud.RegisterDevice(ctx, fleet, c.UUID)
	if err != nil {
		return err
	}
	if s.json {
		return s.object(r)
	}
	_, err = fmt.Fprintf(s.stdout, "Device %s (id %d) belongs to %s now.\nIts configuration: deckctl device config %s -o config.json\n",
		r.UUID, r.ID, fleet.Slug, short(r.UUID))
	return err
}

type deviceListCmd struct {
	Fleet string `short:"f" help:"Only devices of this fleet."`
}

// Run lists devices.
func (c *deviceListCmd) Run(ctx context.Context, s *session) error {
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	var id int64
	if c.Fleet != "" {
		fleet, err := cloud.Fleet(ctx, c.Fleet)
		if err != nil {
			return err
		}
		id = fleet.ID
	}
	devices, err := cloud.Devices(ctx, id)
	if err != nil {
		return err
	}
	rows := [][]string{{"UUID", "NAME", "FLEET", "TYPE", "ONLINE", "STATUS", "RELEASE"}}
	for _, d := range devices {
		rows = append(rows, []string{short(d.UUID), orDash(d.Name), orDash(d.FleetSlug), d.DeviceType, yesNo(d.Online), orDash(d.Status), orDash(short(d.RunningCommit))})
	}
	return s.table(devices, rows)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type deviceShowCmd struct {
	UUID string `arg:"" help:"The device, by the beginning of its UUID."`
}

// Run shows the device.
func (c *deviceShowCmd) Run(ctx context.Context, s *session) error {
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	d, err := cloud.Device(ctx, c.UUID)
	if err != nil {
		return err
	}
	installs, err := cloud.Installs(ctx, d)
	if err != nil {
		return err
	}
	if s.json {
		return s.object(struct {
			client.Device
			Services []client.Install `json:"services"`
		}{d, installs})
	}
	seen := "never"
	if !d.LastSeen.IsZero() {
		seen = d.LastSeen.Local().Format(time.DateTime)
	}
	rows := [][]string{
		{"UUID", d.UUID}, {"Name", orDash(d.Name)}, {"Fleet", orDash(d.FleetSlug)}, {"Type", d.DeviceType},
		{"Online", yesNo(d.Online)}, {"Seen", seen}, {"Status", orDash(d.Status)}, {"Release", orDash(short(d.RunningCommit))},
		{"OS", orDash(d.OSVersion)}, {"Supervisor", orDash(d.SupervisorVersion)}, {"Address", orDash(d.IPAddress)},
	}
	if len(installs) > 0 {
		rows = append(rows, []string{}, []string{"SERVICE", "STATUS", "PROGRESS", "RELEASE"})
	}
	for _, i := range installs {
		progress := "-"
		if i.Progress > 0 {
			progress = strconv.Itoa(i.Progress) + " %"
		}
		rows = append(rows, []string{i.Service, i.Status, progress, strconv.FormatInt(i.Release, 10)})
	}
	return s.table(nil, rows)
}

type deviceConfigCmd struct {
	UUID   string        `arg:"" optional:"" help:"A registered device, by the beginning of its UUID."`
	Fleet  string        `short:"f" help:"A fleet that devices with this configuration join by themselves."`
	Output string        `short:"o" help:"File to write; standard output when absent." placeholder:"FILE"`
	Force  bool          `help:"Overwrite the file."`
	Poll   time.Duration `default:"15m" help:"How often the device asks for news."`
}

// deviceConfig is the config.json of a device. The registry is not in it: no call tells
// where it is, and images are named in full.
type deviceConfig struct {
	APIEndpoint     string `json:"apiEndpoint"`
	UUID            string `json:"uuid,omitempty"`
	ApplicationID   int64  `json:"applicationId"`
	ApplicationName string `json:"applicationName,omitempty"`
	DeviceType      string `json:"deviceType"`
	DeviceID        int64  `json:"deviceId,omitempty"`
	RegisteredAt    int64  `json:"registered_at,omitempty"` // milliseconds since 1970
	DeviceAPIKey    string `json:"deviceApiKey,omitempty"`
	APIKey          string `json:"apiKey,omitempty"` // lets the device register itself
	ListenPort      int    `json:"listenPort"`
	PollInterval    int64  `json:"appUpdatePollInterval"` // milliseconds
}

const supervisorPort = 48484

// Run writes the configuration. The device gets a key of its own: the file is a secret.
func (c *deviceConfigCmd) Run(ctx context.Context, s *session) error {
	if (c.UUID == "") == (c.Fleet == "") {
		return &exitError{exitUsage, errors.New("give the UUID of a registered device, or --fleet for new ones")}
	}
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	if err := c.mayWrite(); err != nil {
		return err
	}
	doc := deviceConfig{APIEndpoint: cloud.URL(), ListenPort: supervisorPort, PollInterval: c.Poll.Milliseconds()}
	if c.UUID != "" {
		err = c.registered(ctx, cloud, &doc)
	} else {
		err = c.unregistered(ctx, cloud, &doc)
	}
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if c.Output == "" {
		_, err = s.stdout.Write(data)
		return err
	}
	if err := os.WriteFile(c.Output, data, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	_, err = fmt.Fprintf(s.stderr, "Wrote %s.\n", c.Output)
	return err
}

// mayWrite looks before a key is made that nobody would get.
func (c *deviceConfigCmd) mayWrite() error {
	if c.Output == "" || c.Force {
		return nil
	}
	if _, err := os.Lstat(c.Output); !errors.Is(err, fs.ErrNotExist) {
		return &exitError{exitUsage, fmt.Errorf("%s exists and may hold a device's keys; choose another file or use --force", c.Output)}
	}
	return nil
}

func (c *deviceConfigCmd) registered(ctx context.Context, cloud *client.Client, doc *deviceConfig) error {
	d, err := cloud.Device(ctx, c.UUID)
	if err != nil {
		return err
	}
	doc.UUID, doc.DeviceID, doc.DeviceType, doc.ApplicationID = d.UUID, d.ID, d.DeviceType, d.Fleet
	doc.RegisteredAt = time.Now().UnixMilli()
	doc.DeviceAPIKey, err = cloud.DeviceKey(ctx, d.ID)
	return err
}

func (c *deviceConfigCmd) unregistered(ctx context.Context, cloud *client.Client, doc *deviceConfig) error {
	f, err := cloud.Fleet(ctx, c.Fleet)
	if err != nil {
		return err
	}
	doc.ApplicationID, doc.ApplicationName, doc.DeviceType = f.ID, f.Name, f.DeviceType
	doc.APIKey, err = cloud.ProvisioningKey(ctx, f.ID, 0)
	return err
}

type releaseCmd struct {
	List releaseListCmd `cmd:"" help:"List the releases of a fleet, the newest first."`
}

type releaseListCmd struct {
	Fleet string `arg:"" help:"The fleet."`
}

// Run lists releases.
func (c *releaseListCmd) Run(ctx context.Context, s *session) error {
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	fleet, err := cloud.Fleet(ctx, c.Fleet)
	if err != nil {
		return err
	}
	releases, err := cloud.Releases(ctx, fleet.ID)
	if err != nil {
		return err
	}
	rows := [][]string{{"ID", "COMMIT", "VERSION", "STATUS", "FINAL", "CREATED", ""}}
	for _, r := range releases {
		mark := ""
		if r.ID == fleet.Target {
			mark = "target"
		}
		rows = append(rows, []string{strconv.FormatInt(r.ID, 10), short(r.Commit), r.Version, r.Status, yesNo(r.Final), r.Created.Local().Format(time.DateTime), mark})
	}
	return s.table(releases, rows)
}

type logsCmd struct {
	UUID   string `arg:"" help:"The device, by the beginning of its UUID; or in local mode by its address or .local name."`
	Follow bool   `short:"f" help:"Go on with new lines until Ctrl-C."`
	Lines  int    `short:"n" default:"100" help:"How many of the lines there are."`
}

// Run shows the log.
func (c *logsCmd) Run(ctx context.Context, s *session) error {
	if client.IsDevice(c.UUID) { // which keeps no lines: there are only those to come
		device, err := client.DialDevice(ctx, c.UUID)
		if err != nil {
			return err
		}
		return followDevice(ctx, s, device)
	}
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	d, err := cloud.Device(ctx, c.UUID)
	if err != nil {
		return err
	}
	names, err := cloud.ServiceNames(ctx, d.Fleet)
	if err != nil {
		return err
	}
	show := func(l client.LogLine) error { return s.logLine(l, names) }
	if c.Follow {
		return cloud.FollowLogs(ctx, d.UUID, c.Lines, show)
	}
	lines, err := cloud.Logs(ctx, d.UUID, c.Lines)
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		_, err = fmt.Fprintf(s.stderr, "Device %s has not logged anything yet; with --follow you see its lines as they come.\n", short(d.UUID))
		return err
	}
	for _, l := range lines {
		if err := show(l); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) logLine(l client.LogLine, names map[int64]string) error {
	if s.json {
		return json.NewEncoder(s.stdout).Encode(l)
	}
	from := names[l.ServiceID]
	if from == "" { // a line of the system may be about a service: some of its lines are missing
		from = "system"
	}
	_, err := fmt.Fprintf(s.stdout, "%s [%s] %s\n",
		time.UnixMilli(l.Timestamp).Local().Format("2006-01-02 15:04:05.000"), from, strings.TrimRight(l.Message, "\r\n"))
	return err
}
