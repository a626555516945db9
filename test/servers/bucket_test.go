//go:build engine

package servers

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime/multipart"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"deckhand/test/postgres"
	"deckhand/test/s3"
)

// Two servers have a database and a bucket in common, and no folder: what is stored at
// one is there at the other, and can be cleared up from elsewhere.
func TestTwoServersWithoutACommonFolder(t *testing.T) {
	_, address := s3.One(t).Bucket(t)
	database := postgres.Database(t, nil)
	c := start(t, database, "--registry-storage", address)
	fleet := c.fleet(c.a.url, "kitchen")
	c.release(c.a.url, fleet, "abc123")

	type image struct {
		Location string `json:"is_stored_at__image_location"`
	}
	location := rows[image](c, c.a.url, "image", "$select=is_stored_at__image_location")[0].Location
	host, repository, _ := strings.Cut(location, "/")
	at := func(s *server) name.Reference {
		t.Helper()
		ref, err := name.ParseReference(s.registry+"/"+repository+":latest", name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	user := remote.WithTransport(c.tokenFor(host, repository))
	pushed, err := random.Image(1<<20, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(at(c.a), pushed, user); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(at(c.b), user)
	if err == nil {
		err = validate.Image(pulled)
	}
	if err != nil {
		t.Errorf("pull from the other server: %v", err)
	}

	c.sharesFiles()

	//nolint:gosec // our own program
	gc := exec.CommandContext(t.Context(), c.a.program, "gc", "--data-dir", t.TempDir(), "--database", database, "--registry-storage", address)
	said, err := gc.CombinedOutput()
	if err != nil || !regexp.MustCompile(`removed 0 images .* 5 blobs with \S+ MiB stay`).Match(said) {
		t.Errorf("gc: %v %s", err, said)
	}
}

// bearer is a registry token that goes with every request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// tokenFor gets a token to push to a repository and pull from it.
func (c *cloud) tokenFor(service, repository string) bearer {
	c.Helper()
	login := base64.StdEncoding.EncodeToString([]byte("admin:" + c.session))
	var got struct{ Token string }
	c.read(c.want(http.StatusOK, c.a.url, "GET", "/auth/v1/token?service="+service+"&scope=repository:"+repository+":pull,push", "", "", "Authorization", "Basic "+login), &got)
	return bearer(got.Token)
}

// sharesFiles uploads a file of a release at one server and downloads it at the other.
func (c *cloud) sharesFiles() {
	c.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	release := rows[struct{ ID int64 }](c, c.a.url, "release", "$select=id")[0].ID
	for field, value := range map[string]string{"asset_key": "notes", "release": fmt.Sprint(release)} {
		if err := form.WriteField(field, value); err != nil {
			c.Fatal(err)
		}
	}
	part, err := form.CreateFormFile("asset", "notes.txt")
	if err == nil {
		_, err = part.Write([]byte("hello"))
	}
	if err != nil || form.Close() != nil {
		c.Fatal(err)
	}
	c.want(http.StatusCreated, c.a.url, "POST", "/v7/release_asset", c.session, b.String(), "Content-Type", form.FormDataContentType())
	href := rows[struct{ Asset struct{ Href string } }](c, c.b.url, "release_asset", "$select=asset")[0].Asset.Href
	_, path, _ := strings.Cut(strings.TrimPrefix(href, "http://"), "/")
	if got := c.want(http.StatusOK, c.b.url, "GET", "/"+path, "", ""); got != "hello" {
		c.Errorf("the other server has %q", got)
	}
}
