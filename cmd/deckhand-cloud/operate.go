package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"deckhand/cloud/backup"
	"deckhand/cloud/doctor"
	"deckhand/cloud/registry"
	"deckhand/cloud/server"
)

// stored says where a cloud is with its images.
type stored struct {
	place
	RegistryStorage string `env:"DECKHAND_CLOUD_REGISTRY_STORAGE" placeholder:"URL" help:"Bucket of the images, as the cloud has it."`
	RegistryDir     string `env:"DECKHAND_CLOUD_REGISTRY_DIR" placeholder:"DIR" help:"Folder of the images (registry in the data folder)."`
}

func (s stored) images() string { return server.RegistryDir(s.DataDir, s.RegistryDir) }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

type gcCmd struct {
	stored
	DryRun bool          `help:"Only say what would be removed."`
	Grace  time.Duration `name:"gc-grace" default:"24h" env:"DECKHAND_CLOUD_GC_GRACE" placeholder:"DURATION" help:"What was used within this time stays (${default})."`
	JSON   bool          `name:"json" help:"Print JSON."`
}

// minGrace keeps people from clearing up under a running push.
const minGrace = 10 * time.Minute

func (c *gcCmd) Validate() error {
	if c.Grace < minGrace {
		return fmt.Errorf("--gc-grace must be at least %s: running pushes need it", minGrace)
	}
	return nil
}

func (c *gcCmd) Run(ctx context.Context) error {
	done, err := server.Collect(ctx, server.Place{DataDir: c.DataDir, Database: c.Database, RegistryDir: c.RegistryDir, RegistryStorage: c.RegistryStorage}, c.Grace, c.DryRun)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(os.Stdout, done)
	}
	verb := "removed"
	if c.DryRun {
		verb = "would remove"
	}
	fmt.Printf("%s %d images that no release has, %d blobs, %s; %d blobs with %s stay\n",
		verb, done.Repositories, done.Blobs, registry.Size(done.Bytes), done.KeptBlobs, registry.Size(done.KeptBytes))
	for _, name := range done.Unreadable {
		fmt.Printf("a manifest of %s cannot be read; all of it was kept\n", name)
	}
	return nil
}

type backupCmd struct {
	stored
	Images bool   `help:"Copy the images, too."`
	File   string `arg:"" help:"File to write, which must not exist; - for standard output."`
}

func (c *backupCmd) Run(ctx context.Context) error {
	from := backup.Source{DataDir: c.DataDir, Database: c.Database, RegistryDir: c.images(), RegistryStorage: c.RegistryStorage, Images: c.Images}
	if c.File != "-" {
		return backup.WriteFile(ctx, from, c.File)
	}
	if term.IsTerminal(int(os.Stdout.Fd())) {
		return errors.New("write backup: standard output is a terminal; name a file or a pipe")
	}
	return backup.Write(ctx, from, os.Stdout)
}

type restoreCmd struct {
	stored
	File string `arg:"" help:"Backup to read; - for standard input."`
}

func (c *restoreCmd) Run(ctx context.Context) error {
	in := os.Stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		defer f.Close()
		in = f
	}
	about, err := backup.Restore(ctx, in, backup.Target{DataDir: c.DataDir, Database: c.Database, RegistryDir: c.RegistryDir})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	fmt.Printf("restored the cloud as of %s\n", about.Made.Format(time.RFC3339))
	if about.Storage != "" {
		fmt.Printf("the images are in %s: give it with --registry-storage; deckhand-cloud doctor says which are missing\n", about.Storage)
	} else if !about.Images {
		fmt.Println("the backup has no images: put the registry's folder back, or push again; deckhand-cloud doctor says which are missing")
	}
	return nil
}

type doctorCmd struct {
	stored
	Engine  string        `default:"unix:///var/run/docker.sock" env:"DECKHAND_CLOUD_ENGINE,DOCKER_HOST" placeholder:"URL" help:"Docker engine that builds (${default})."`
	TLSCert string        `name:"tls-cert" env:"DECKHAND_CLOUD_TLS_CERT" placeholder:"FILE" help:"Certificate of the cloud, PEM."`
	TLSKey  string        `name:"tls-key" env:"DECKHAND_CLOUD_TLS_KEY" placeholder:"FILE" help:"Its key, PEM."`
	Grace   time.Duration `name:"gc-grace" default:"24h" env:"DECKHAND_CLOUD_GC_GRACE" placeholder:"DURATION" help:"What was used within this time is not called superfluous (${default})."`
	JSON    bool          `name:"json" help:"Print JSON."`
}

func (c *doctorCmd) Run(ctx context.Context) error {
	findings := doctor.Examine(ctx, doctor.Patient{DataDir: c.DataDir, Database: c.Database, RegistryDir: c.images(), RegistryStorage: c.RegistryStorage,
		TLSCert: c.TLSCert, TLSKey: c.TLSKey, Engine: c.Engine, Grace: c.Grace})
	if err := show(os.Stdout, findings, c.JSON); err != nil {
		return err
	}
	if doctor.Worst(findings) == doctor.Error {
		return errors.New("something is wrong; see above")
	}
	return nil
}

func show(out io.Writer, findings []doctor.Finding, asJSON bool) error {
	if asJSON {
		return writeJSON(out, findings)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Level, f.Check, f.Text)
		if f.Do != "" {
			fmt.Fprintf(w, "\t\t→ %s\n", f.Do)
		}
	}
	return w.Flush()
}
