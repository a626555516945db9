package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"deckhand/cloud/model"
	"deckhand/cloud/server"
)

type auditCmd struct {
	place
	Resource string        `placeholder:"NAME" help:"Only this resource, like device or release."`
	Row      int64         `placeholder:"ID" help:"Only the row with this id; goes with --resource."`
	Name     string        `placeholder:"NAME" help:"Only what this user, device (UUID) or fleet (slug) wrote; cloud is the cloud itself."`
	Verb     string        `enum:"create,update,delete," default:"" placeholder:"VERB" help:"Only create, update or delete."`
	Since    time.Duration `placeholder:"DURATION" help:"Only the last hours or minutes, like 24h."`
	Count    int           `short:"n" default:"100" help:"The last so many (${default})."`
	JSON     bool          `name:"json" help:"Print one JSON object a line."`
}

// Validate is called by kong.
func (c *auditCmd) Validate() error {
	switch {
	case c.Count < 1:
		return errors.New("--count must be at least 1")
	case c.Since < 0:
		return errors.New("--since must not be negative")
	case c.Row != 0 && c.Resource == "":
		return errors.New("--row needs --resource")
	}
	return nil
}

func (c *auditCmd) Run(ctx context.Context) error {
	f := model.AuditFilter{Resource: c.Resource, Row: c.Row, Name: c.Name, Verb: c.Verb}
	if c.Since > 0 {
		f.Since = time.Now().Add(-c.Since)
	}
	entries, err := server.Audit(ctx, c.DataDir, c.Database, f, c.Count)
	if err != nil {
		return err
	}
	if !c.JSON {
		return showEntries(os.Stdout, entries)
	}
	out := json.NewEncoder(os.Stdout)
	for _, e := range entries {
		if err := out.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

func showEntries(w io.Writer, entries []model.AuditEntry) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TIME\tWHO\tROLE\tVERB\tROW\tCHANGE")
	for _, e := range entries {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s %d\t%s\n", e.At.Format(time.RFC3339), plain(e.Name), e.Role, e.Verb, e.Resource, e.Row, plain(changed(e)))
	}
	return table.Flush()
}

// changed is what an entry says of the row.
func changed(e model.AuditEntry) string {
	switch {
	case e.Before == nil:
		return string(e.After)
	case e.After == nil:
		return string(e.Before)
	}
	return string(e.Before) + " -> " + string(e.After)
}

// plain is text that leaves a terminal as it is.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
