package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"deckhand/cloud/server"
)

type userCmd struct {
	Add           addUserCmd       `cmd:"" help:"Make a user; the password is shown once."`
	List          listUsersCmd     `cmd:"" help:"Show the users and their organizations."`
	ResetPassword resetPasswordCmd `cmd:"" help:"Give a user a new password."`
	Delete        deleteUserCmd    `cmd:"" help:"Remove a user with keys and sessions."`
}

// place says which cloud.
type place struct {
	DataDir  string `default:"/var/lib/deckhand-cloud" env:"DECKHAND_CLOUD_DATA_DIR" placeholder:"DIR" help:"Folder of the cloud (${default})."`
	Database string `env:"DECKHAND_CLOUD_DATABASE" placeholder:"URL" help:"PostgreSQL database of the cloud, when it has one."`
}

// with opens the users of the cloud for as long as do takes.
func (p place) with(ctx context.Context, do func(*server.Users) error) (err error) {
	users, err := server.OpenUsers(ctx, p.DataDir, p.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, users.Close()) }()
	return do(users)
}

func showLogin(w io.Writer, user, password string) error {
	_, err := fmt.Fprintf(w, "user      %s\npassword  %s\n", user, password)
	return err
}

type addUserCmd struct {
	place
	User         string `arg:"" help:"Name: lower-case letters, digits, underscores."`
	Email        string `placeholder:"ADDRESS" help:"E-mail address, with which the user may log in, too."`
	Organization string `placeholder:"HANDLE" help:"Make the user a member of this organization, too."`
}

func (c *addUserCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(users *server.Users) error {
		password, err := users.Add(ctx, c.User, c.Email, c.Organization)
		if err != nil {
			return err
		}
		return showLogin(os.Stdout, c.User, password)
	})
}

type listUsersCmd struct{ place }

func (c *listUsersCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(users *server.Users) error {
		people, err := users.List(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "USER\tE-MAIL\tORGANIZATIONS")
		for _, p := range people {
			fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Email, strings.Join(p.Organizations, ", "))
		}
		return w.Flush()
	})
}

type resetPasswordCmd struct {
	place
	User string `arg:"" optional:"" default:"admin" help:"User (${default})."`
}

func (c *resetPasswordCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(users *server.Users) error {
		password, err := users.ResetPassword(ctx, c.User)
		if err != nil {
			return err
		}
		return showLogin(os.Stdout, c.User, password)
	})
}

type deleteUserCmd struct {
	place
	User string `arg:"" help:"User."`
}

func (c *deleteUserCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(users *server.Users) error { return users.Delete(ctx, c.User) })
}
