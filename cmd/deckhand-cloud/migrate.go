package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"deckhand/cloud/model"
	"deckhand/cloud/server"
)

type migrateCmd struct {
	Up     migrateUpCmd     `cmd:"" help:"Bring the schema up to date, as a start does."`
	Down   migrateDownCmd   `cmd:"" help:"Take the newest step of the schema back, before an older deckhand-cloud is run again."`
	Status migrateStatusCmd `cmd:"" help:"Show the steps of the schema."`
}

func (p place) migrator(ctx context.Context, do func(*model.Migrator) error) (err error) {
	m, err := server.OpenMigrator(ctx, p.DataDir, p.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return do(m)
}

type migrateUpCmd struct{ place }

func (c *migrateUpCmd) Run(ctx context.Context) error {
	return c.migrator(ctx, func(m *model.Migrator) error {
		steps, err := m.Up(ctx)
		showSteps(os.Stdout, steps)
		if err == nil && len(steps) == 0 {
			fmt.Println("up to date")
		}
		return err
	})
}

type migrateDownCmd struct{ place }

func (c *migrateDownCmd) Run(ctx context.Context) error {
	return c.migrator(ctx, func(m *model.Migrator) error {
		step, err := m.Down(ctx)
		if err == nil {
			showSteps(os.Stdout, []model.Migration{step})
		}
		return err
	})
}

type migrateStatusCmd struct{ place }

func (c *migrateStatusCmd) Run(ctx context.Context) error {
	return c.migrator(ctx, func(m *model.Migrator) error {
		steps, err := m.Status(ctx)
		showSteps(os.Stdout, steps)
		return err
	})
}

func showSteps(w io.Writer, steps []model.Migration) {
	for _, s := range steps {
		state := "absent"
		if s.Applied {
			state = "present"
		}
		fmt.Fprintf(w, "%04d  %-7s  %s\n", s.Version, state, s.Name)
	}
}
