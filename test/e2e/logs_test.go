//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// What a service prints and what the supervisor does is in the cloud, each line
// once, also after the supervisor was ended and started again.
func TestLogsReachTheCloud(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	r := s.push(fleet, `
services:
  web:
    build: ./web
    command: ["sh", "-c", "echo it begins; echo it complains >&2; exec sleep 100000"]
`, map[string]string{"web": "1"})
	s.device(fleet)
	s.settles(r)
	s.says("it begins", "it complains", "Supervisor starting", "Started service 'web sha256:")
	s.powerOff()
	s.boot()
	s.settles(r)
	s.exec(s.service("web").ID, "sh", "-c", "echo it goes on > /proc/1/fd/1")
	got := s.says("it goes on")
	if n := strings.Count(got, "it begins\n"); n != 1 {
		t.Errorf("the first line is there %d times:\n%s", n, got)
	}
}

// says waits until each of the texts begins a line of the device's log, and gives
// the log.
func (s *scene) says(texts ...string) (log string) {
	s.Helper()
	s.within("the log of the device", func(ctx context.Context) error {
		lines, err := s.cloud.Client.Logs(ctx, s.uuid, 0)
		if err != nil {
			return err
		}
		log = "\n"
		for _, l := range lines {
			log += l.Message + "\n"
		}
		for _, text := range texts {
			if !strings.Contains(log, "\n"+text) {
				return fmt.Errorf("%q is not in it:%s", text, log)
			}
		}
		return nil
	})
	return log
}
