// Command deckhand-cloud is the companion cloud: fleets, releases and devices
// in one process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"
	"golang.org/x/term"

	"deckhand/cloud/server"
	"deckhand/version"
)

type cli struct {
	Serve   serveCmd   `cmd:"" help:"Run the cloud."`
	User    userCmd    `cmd:"" help:"Who may log in; stop the cloud first."`
	Migrate migrateCmd `cmd:"" help:"Move the schema of the database; stop the cloud first."`
	Audit   auditCmd   `cmd:"" help:"Show who wrote what; the cloud may run."`
	Gc      gcCmd      `cmd:"" help:"Remove images that no release needs."`
	Backup  backupCmd  `cmd:"" help:"Copy a cloud, which may run, into one file."`
	Restore restoreCmd `cmd:"" help:"Make a cloud of a backup."`
	Doctor  doctorCmd  `cmd:"" help:"Look for what is wrong; the exit code is 1 when something is."`
	Version versionCmd `cmd:"" help:"Show the version."`
}

type serveCmd struct {
	DataDir        string        `default:"/var/lib/deckhand-cloud" env:"DECKHAND_CLOUD_DATA_DIR" placeholder:"DIR" help:"Folder of the database, keys and images (${default})."`
	Database       string        `env:"DECKHAND_CLOUD_DATABASE" placeholder:"URL" help:"PostgreSQL database, postgres://user:password@host/name, which several servers may share; a file in the data folder when not given."`
	Listen         string        `default:"127.0.0.1:8480" env:"DECKHAND_CLOUD_LISTEN" placeholder:"HOST:PORT" help:"Address of API and web page (${default})."`
	RegistryListen string        `default:"127.0.0.1:8481" env:"DECKHAND_CLOUD_REGISTRY_LISTEN" placeholder:"HOST:PORT" help:"Address of the image registry (${default})."`
	PublicURL      string        `name:"public-url" env:"DECKHAND_CLOUD_PUBLIC_URL" placeholder:"URL" help:"How devices and owners reach the API, when not by --listen."`
	RegistryHost   string        `env:"DECKHAND_CLOUD_REGISTRY_HOST" placeholder:"HOST[:PORT]" help:"How devices and the engine reach the registry, when not by --registry-listen."`
	Engine         string        `default:"unix:///var/run/docker.sock" env:"DECKHAND_CLOUD_ENGINE,DOCKER_HOST" placeholder:"URL" help:"Docker engine that builds (${default})."`
	TLSCert        string        `name:"tls-cert" env:"DECKHAND_CLOUD_TLS_CERT" type:"existingfile" placeholder:"FILE" help:"Certificate for both addresses, PEM."`
	TLSKey         string        `name:"tls-key" env:"DECKHAND_CLOUD_TLS_KEY" type:"existingfile" placeholder:"FILE" help:"Its key, PEM."`
	PollInterval   time.Duration `default:"10m" env:"DECKHAND_CLOUD_POLL_INTERVAL" placeholder:"DURATION" help:"How often devices ask for their target; they can be configured to ask less often (${default})."`
	LogLevel       string        `default:"info" enum:"debug,info,warn,error" env:"DECKHAND_CLOUD_LOG_LEVEL" help:"Least important lines to log: ${enum} (${default})."`

	BuilderSecret string `env:"DECKHAND_CLOUD_BUILDER_SECRET" placeholder:"SECRET" help:"Password of builders elsewhere, at least 32 characters; better by the variable than here."`

	VPNKey string `name:"vpn-key" env:"DECKHAND_CLOUD_VPN_KEY" placeholder:"SECRET" help:"Key of VPN servers, at least 32 characters; better by the variable than here."`

	AssetLimit int64 `default:"4294967296" env:"DECKHAND_CLOUD_ASSET_LIMIT" placeholder:"BYTES" help:"Size of the largest file of a release (${default})."`

	RegistryDir   string        `env:"DECKHAND_CLOUD_REGISTRY_DIR" placeholder:"DIR" help:"Folder of the images, which servers on one database share (registry in the data folder)."`
	RegistryQuota int64         `env:"DECKHAND_CLOUD_REGISTRY_QUOTA" placeholder:"BYTES" help:"How much room the images of one organization may take; no limit when not given."`
	GCInterval    time.Duration `name:"gc-interval" default:"24h" env:"DECKHAND_CLOUD_GC_INTERVAL" placeholder:"DURATION" help:"How often images that no release needs are removed; 0 for never (${default})."`
	GCGrace       time.Duration `name:"gc-grace" default:"24h" env:"DECKHAND_CLOUD_GC_GRACE" placeholder:"DURATION" help:"What was used within this time stays in the registry (${default})."`
	MetricsListen string        `env:"DECKHAND_CLOUD_METRICS_LISTEN" placeholder:"HOST:PORT" help:"Address of /metrics for Prometheus; none when not given."`
	MetricsToken  string        `env:"DECKHAND_CLOUD_METRICS_TOKEN" placeholder:"SECRET" help:"Password for /metrics, sent as a bearer token; needed where others reach the address."`

	RegistryStorage string `env:"DECKHAND_CLOUD_REGISTRY_STORAGE" placeholder:"URL" help:"Bucket of an S3-compatible store for images and files of releases, in place of the folder, like s3://bucket/prefix?endpoint=https://host&region=name; its key comes from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."`

	FetchFrom []netip.Prefix `env:"DECKHAND_CLOUD_FETCH_FROM" placeholder:"NETWORK" help:"Private networks that projects to build may be fetched from by URL, like 10.0.0.0/8."`

	TrustedProxy []netip.Prefix `env:"DECKHAND_CLOUD_TRUSTED_PROXY" placeholder:"NETWORK" help:"Addresses of proxies that tell who the client is, like 127.0.0.1/32."`
}

// Validate is called by kong.
func (c *serveCmd) Validate() error {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if c.PollInterval < time.Second {
		return errors.New("--poll-interval must be at least 1s")
	}
	if c.GCGrace < minGrace {
		return fmt.Errorf("--gc-grace must be at least %s: running pushes need it", minGrace)
	}
	if c.AssetLimit < 1 {
		return errors.New("--asset-limit must be at least 1 byte")
	}
	return nil
}

func (c *serveCmd) Run(ctx context.Context) error {
	log, err := newLog(os.Stderr, c.LogLevel)
	if err != nil {
		return err
	}
	s, err := server.New(ctx, server.Config{
		DataDir: c.DataDir, Database: c.Database, Listen: c.Listen, RegistryListen: c.RegistryListen, PublicURL: c.PublicURL, RegistryHost: c.RegistryHost,
		Engine: c.Engine, TLSCert: c.TLSCert, TLSKey: c.TLSKey, PollInterval: c.PollInterval, TrustedProxies: c.TrustedProxy, BuilderSecret: c.BuilderSecret, VPNKey: c.VPNKey, FetchFrom: c.FetchFrom, AssetLimit: c.AssetLimit, Log: log,
		Operations: server.Operations{MetricsListen: c.MetricsListen, MetricsToken: c.MetricsToken, RegistryDir: c.RegistryDir, RegistryStorage: c.RegistryStorage, RegistryQuota: c.RegistryQuota, CollectInterval: c.GCInterval, CollectGrace: c.GCGrace},
	})
	if err != nil {
		return err
	}
	welcome(os.Stdout, s.URL(), s.FirstLogin())
	log.Info().Str("url", s.URL()).Str("registry", s.RegistryHost()).Str("data", c.DataDir).Str("version", version.Version).Msg("cloud is up")
	err = s.Run(ctx)
	log.Info().Msg("cloud is down")
	return err
}

// welcome shows the one-time login of a new cloud. It goes to standard output
// and not to the log, which others may read.
func welcome(w io.Writer, url string, login *server.Login) {
	if login == nil {
		return
	}
	fmt.Fprintf(w, `
  This is a new cloud. Log in as its owner; the password is shown only now.

    URL       %s
    user      %s
    password  %s

  deckctl login %s --user %s

`, url, login.Username, login.Password, url, login.Username)
}

func newLog(w *os.File, level string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		return zerolog.Nop(), fmt.Errorf("read --log-level: %w", err)
	}
	var out io.Writer = w
	if term.IsTerminal(int(w.Fd())) {
		out = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(out).Level(l).With().Timestamp().Logger(), nil
}

type versionCmd struct{}

func (versionCmd) Run() error {
	_, err := fmt.Println("deckhand-cloud " + version.Version)
	return err
}

// exitUsage is the code for a wrong command line.
const exitUsage = 2

// exit ends the process for kong, which has its own codes for a wrong command line.
func exit(code int) {
	if code != 0 {
		code = exitUsage
	}
	os.Exit(code)
}

func main() {
	var c cli
	parsed := kong.Parse(&c, kong.Name("deckhand-cloud"), kong.Description("The companion cloud: fleets, releases and devices in one process."),
		kong.ShortUsageOnError(), kong.Exit(exit))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	parsed.BindTo(ctx, (*context.Context)(nil))
	err := parsed.Run()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "deckhand-cloud: "+err.Error())
		os.Exit(1)
	}
}
