//go:build engine

package servers

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"deckhand/test/dockerd"
	"deckhand/test/postgres"
	"deckhand/test/system"
)

// abandoned is within which time the build of a server that is gone is ended.
const abandoned = 75 * time.Second

// A build whose server is killed is ended by the other one, which goes on with its own.
func TestTheServerOfABuildIsKilled(t *testing.T) {
	t.Parallel()
	c := startBuilders(t)
	lost, own := c.builds(c.a.url), c.builds(c.b.url)
	c.a.process.Kill()
	took := c.ended(c.b.url, lost)
	if got := c.building(c.b.url, own); got.Status != "running" {
		t.Errorf("the build of the other server is %+v", got)
	}
	c.a.start(t)
	c.a.ready(t)
	if got := c.building(c.a.url, own); got.Status != "running" {
		t.Errorf("after the first server came back the build of the other is %+v", got)
	}
	c.cancels(own)
	t.Logf("the build of a killed server was ended after %s", took.Round(time.Second))
}

// A server that stood still for too long gives up its build when it goes on.
func TestTheServerOfABuildStandsStill(t *testing.T) {
	t.Parallel()
	c := startBuilders(t)
	slow := c.builds(c.b.url)
	c.signal(c.b, syscall.SIGSTOP)
	c.ended(c.a.url, slow)
	if strings.Contains(c.b.log.String(), "build ended") {
		t.Error("a server that stands still ended its build")
	}
	c.signal(c.b, syscall.SIGCONT)
	until(t, func(context.Context) error {
		if !strings.Contains(c.b.log.String(), "build ended") {
			return fmt.Errorf("the server goes on with a build that was ended:\n%s", c.b.log)
		}
		return nil
	})
	c.ended(c.b.url, slow) // and leaves it as it is
}

// startBuilders are two servers with an engine.
func startBuilders(t *testing.T) *cloud {
	engine := dockerd.Start(t)
	engine.Busybox(t, "busybox:test")
	c := start(t, postgres.Database(t, nil), "--engine", engine.Host)
	c.fleet(c.a.url, "kitchen")
	return c
}

// builds pushes a project whose build lasts for long, and gives its release.
func (c *cloud) builds(url string) int64 {
	c.Helper()
	const dockerfile = "FROM busybox:test\nRUN sleep 600\n"
	var project bytes.Buffer
	archive := tar.NewWriter(&project)
	if err := archive.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(dockerfile))}); err != nil {
		c.Fatal(err)
	}
	if _, err := archive.Write([]byte(dockerfile)); err != nil {
		c.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		c.Fatal(err)
	}
	var began struct{ ReleaseID int64 }
	body := c.want(http.StatusOK, url, "POST", "/v3/build?slug=admin%2Fkitchen&headless=true", c.session, project.String())
	c.read(body, &began)
	if began.ReleaseID == 0 {
		c.Fatalf("the build did not begin: %s", body)
	}
	return began.ReleaseID
}

// build is what the API says about one.
type build struct {
	Status string `json:"status"`
	Log    string `json:"build_log"`
}

func (c *cloud) building(url string, release int64) build {
	c.Helper()
	all := rows[build](c, url, "release", fmt.Sprintf("$select=status,build_log&$filter=id eq %d", release))
	if len(all) != 1 {
		c.Fatalf("release %d: %v", release, all)
	}
	return all[0]
}

// ended waits until a server says that a build is over because its server is gone.
func (c *cloud) ended(url string, release int64) time.Duration {
	c.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(c.Context(), abandoned)
	defer cancel()
	if err := system.Until(ctx, func(context.Context) error {
		if got := c.building(url, release); got.Status != "error" || !strings.Contains(got.Log, "is gone; push again") {
			return fmt.Errorf("the build is %+v", got)
		}
		return nil
	}); err != nil {
		c.Fatal(err)
	}
	return time.Since(began)
}

func (c *cloud) cancels(release int64) {
	c.Helper()
	c.want(http.StatusOK, c.b.url, "PATCH", fmt.Sprintf("/v7/release(%d)", release), c.session, `{"status":"cancelled"}`)
}

func (c *cloud) signal(s *server, signal syscall.Signal) {
	c.Helper()
	if err := syscall.Kill(s.process.PID, signal); err != nil {
		c.Fatal(err)
	}
}
