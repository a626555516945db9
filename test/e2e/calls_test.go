//go:build engine && linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/docker/docker/api/types/container"
)

// callsDevice makes a request that a device carries out, as the owner.
func (s *scene) callsDevice(path string, body map[string]any) (status int, answer string) {
	s.Helper()
	token, err := s.cloud.Client.Login(s.Context(), s.cloud.User, s.cloud.Password)
	s.must(err)
	b, err := json.Marshal(body)
	s.must(err)
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, s.cloud.URL+path, bytes.NewReader(b))
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	s.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	s.must(err)
	return resp.StatusCode, string(text)
}

// wants makes a request that a device carries out, and checks the status.
func (s *scene) wants(status int, path string, body map[string]any) string {
	s.Helper()
	got, answer := s.callsDevice(path, body)
	if got != status {
		s.Fatalf("%s: %d %s, want %d", path, got, answer, status)
	}
	return answer
}

// startsAgain waits until a service runs that was started after before.
func (s *scene) startsAgain(before container.InspectResponse, service string) container.InspectResponse {
	s.Helper()
	s.within(service+" starts again", func(context.Context) error {
		list := s.all(service)
		if len(list) != 1 || list[0].State != container.StateRunning {
			return fmt.Errorf("it has %d containers, or does not run", len(list))
		}
		if now := s.service(service); now.State.StartedAt == before.State.StartedAt {
			return errors.New("it has not been started")
		}
		return nil
	})
	return s.service(service)
}

// The owner has a device do things through the cloud, which has no way to the device
// but the request that the device holds.
func TestOwnerCallsTheDevice(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	s.device(fleet)
	r := s.push(fleet, `
services:
  web:
    build: web
    volumes: [data:/data]
  side:
    build: side
volumes:
  data: {}
`, map[string]string{"web": "1", "side": "1"})
	s.settles(r)
	var row struct{ ID int64 }
	s.read("device(uuid='"+s.uuid+"')?$select=id", &row)
	s.within("the cloud sees the device", func(context.Context) error {
		if status, answer := s.callsDevice("/supervisor/ping", map[string]any{"method": "GET", "deviceId": row.ID, "appId": fleet.ID}); status != 200 || answer != "OK" {
			return fmt.Errorf("%d %s", status, answer)
		}
		return nil
	})

	s.wants(200, "/supervisor/v1/blink", map[string]any{"uuid": s.uuid})
	var state struct {
		Status string `json:"status"`
		Commit string `json:"commit"`
	}
	s.must(json.Unmarshal([]byte(s.wants(200, "/supervisor/v1/device", map[string]any{"uuid": s.uuid, "method": "GET"})), &state))
	if state.Commit != r.commit {
		t.Errorf("the device says %+v, it runs %s", state, r.commit)
	}

	web, side := s.service("web"), s.service("side")
	s.wants(200, "/supervisor/v1/restart", map[string]any{"deviceId": row.ID, "appId": fleet.ID, "data": map[string]any{"appId": fleet.ID}})
	web, side = s.startsAgain(web, "web"), s.startsAgain(side, "side")

	s.wants(200, fmt.Sprintf("/supervisor/v2/applications/%d/restart-service", fleet.ID),
		map[string]any{"deviceId": row.ID, "appId": fleet.ID, "data": map[string]any{"appId": fleet.ID, "serviceName": "web"}})
	web = s.startsAgain(web, "web")
	s.same(side, s.service("side"))

	s.exec(web.ID, "touch", "/data/kept")
	s.wants(200, "/supervisor/v1/purge", map[string]any{"deviceId": row.ID, "appId": fleet.ID, "data": map[string]any{"appId": fleet.ID}})
	web = s.startsAgain(web, "web")
	if files := s.exec(web.ID, "ls", "/data"); files != "" {
		t.Errorf("after the purge there is still %q", files)
	}

	s.wants(200, fmt.Sprintf("/application/%d/restart", fleet.ID), nil)
	s.startsAgain(web, "web")
	s.startsAgain(side, "side")
	s.wants(204, "/supervisor/v1/update", map[string]any{"appId": fleet.ID, "data": map[string]any{"force": true}})
	s.wants(404, "/supervisor/v1/restart", map[string]any{"uuid": "00000000000000000000000000000000", "data": map[string]any{"appId": fleet.ID}})
}
