package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"deckhand/build"
	"deckhand/build/event"
	"deckhand/client"
)

// enginePort is where the engine of a device under development listens.
const enginePort = "2375"

// toDevice builds on the device, has it run the result, and shows what it logs.
func (c *pushCmd) toDevice(ctx context.Context, s *session) error {
	if c.Draft {
		return &exitError{exitUsage, errors.New("--draft is for fleets: on a device there are no releases")}
	}
	device, err := client.DialDevice(ctx, c.Fleet)
	if err != nil {
		return err
	}
	info, err := device.Info(ctx)
	if err != nil {
		return err
	}
	engine := c.Engine
	if engine == "" {
		engine = "tcp://" + net.JoinHostPort(device.Host, enginePort)
	}
	apps, err := c.buildOn(ctx, s, engine, info)
	if err != nil {
		return err
	}
	if err := device.Run(ctx, apps); err != nil {
		return err
	}
	fmt.Fprintf(s.stderr, "%s runs it; it replaces what has changed.\n", c.Fleet)
	if c.Detached {
		return nil
	}
	return followDevice(ctx, s, device)
}

// buildOn builds the project and gives the apps to run, by number.
func (c *pushCmd) buildOn(ctx context.Context, s *session, engine string, info client.DeviceInfo) (map[string]any, error) {
	project, err := client.OpenProject(c.Dir)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "deckctl-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	reader, writer := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		_ = writer.CloseWithError(project.Pack(writer, nil))
	}()
	defer func() { _ = reader.Close(); <-packed }()
	show, finish := c.renderer(s, newRecord(func(string) string { return "" }))
	began := time.Now()
	composition, result, err := build.OnDevice{
		Engine: engine, DeviceType: info.DeviceType, Arch: info.Arch,
		Archive: reader, Dir: dir, Dockerfile: c.Dockerfile, NoCache: c.Nocache, Events: show,
	}.Do(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("cannot build on %s: %w", engine, err)}
	}
	finish(result, time.Since(began))
	switch result.Status {
	case event.StatusSuccess:
		return deviceApps(composition), nil
	case event.StatusError:
		return nil, &exitError{code: exitBuilder}
	}
	return nil, &exitError{code: exitFailed}
}

// deviceApps writes a composition in the form that devices in local mode take: every
// client uses the same numbers, so that a push replaces the one before, whoever it was.
func deviceApps(composition map[string]any) map[string]any {
	part := func(name string) map[string]any {
		m, _ := composition[name].(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		return m
	}
	services := map[string]any{}
	all := part("services")
	for i, name := range slices.Sorted(maps.Keys(all)) {
		fields, _ := all[name].(map[string]any)
		out := map[string]any{"environment": map[string]any{}, "labels": map[string]any{}}
		for key, value := range fields {
			if value != nil {
				out[key] = value
			}
		}
		out["imageId"], out["serviceId"], out["serviceName"], out["running"] = i+1, i+1, name, true
		services[strconv.Itoa(i+1)] = out
	}
	return map[string]any{"1": map[string]any{
		"name": build.DeviceApp, "commit": build.DeviceCommit, "releaseId": "1",
		"services": services, "volumes": part("volumes"), "networks": part("networks"),
	}}
}

// followDevice shows what a device logs until Ctrl-C.
func followDevice(ctx context.Context, s *session, device *client.OnNetwork) error {
	return device.Logs(ctx, func(l client.DeviceLine) error {
		if s.json {
			return json.NewEncoder(s.stdout).Encode(l)
		}
		at := time.Now()
		if l.Timestamp > 0 {
			at = time.UnixMilli(l.Timestamp)
		}
		from := l.ServiceName
		if l.IsSystem || from == "" {
			from = "system"
		}
		_, err := fmt.Fprintf(s.stdout, "%s [%s] %s\n", at.Local().Format("2006-01-02 15:04:05.000"), from, strings.TrimRight(l.Message, "\r\n"))
		return err
	})
}

type scanCmd struct {
	Timeout time.Duration `short:"t" default:"4s" help:"How long to listen for answers."`
}

// Run lists the devices in the network.
func (c *scanCmd) Run(ctx context.Context, s *session) error {
	found, err := client.Scan(ctx, c.Timeout)
	if err != nil {
		return err
	}
	if s.json {
		if found == nil {
			found = []client.Found{}
		}
		return json.NewEncoder(s.stdout).Encode(found)
	}
	if len(found) == 0 {
		_, err := fmt.Fprintln(s.stderr, "No device answers in this network. It may be in another one, or hidden by the variable HOST_DISCOVERABILITY.")
		return err
	}
	w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tDECKHAND")
	for _, f := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, f.Address, f.Version)
	}
	return w.Flush()
}
