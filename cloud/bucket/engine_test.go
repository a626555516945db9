//go:build engine

package bucket_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/bucket"
	"deckhand/test/s3"
)

func TestMain(m *testing.M) { os.Exit(s3.Tests{M: m}.Run()) }

func open(t *testing.T, address string) *bucket.Store {
	t.Helper()
	a, err := bucket.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := bucket.Open(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestABucketIsAPlace(t *testing.T) {
	_, address := s3.One(t).Bucket(t)
	s := open(t, address)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := s.Clock(t.Context())
	if ago := time.Since(now); err != nil || ago < 0 || ago > time.Minute {
		t.Errorf("the clock is %s ago, %v", ago, err)
	}
	for _, name := range []string{"/a/b/1", "/a/2", "/ab/3"} {
		if err := s.PutContent(t.Context(), name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := s.Objects(t.Context(), "/a")
	if err != nil || len(found) != 2 || found[0].Path != "/a/2" || found[1].Path != "/a/b/1" || found[1].Size != 6 {
		t.Errorf("below /a are %v %v", found, err)
	}
	for range 2 {
		if err := s.Remove(t.Context(), "/a/2"); err != nil {
			t.Error(err)
		}
	}
	for _, who := range []string{"first", "second"} {
		if owner, err := s.Claim(t.Context(), "/owner", who); err != nil || owner != "first" {
			t.Errorf("%s finds %q %v", who, owner, err)
		}
	}
}

// The key can be in a file as well.
func TestTheKeyInAFile(t *testing.T) {
	_, address := s3.One(t).Bucket(t)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = "+s3.Key+"\naws_secret_access_key = "+s3.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	if err := open(t, address).Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// What keeps a bucket from being used is told with what to do about it, and never with
// a secret.
func TestABucketThatCannotBeUsed(t *testing.T) {
	server := s3.One(t)
	name, address := server.Bucket(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	for what, c := range map[string]struct{ address, key, secret, want string }{
		"no such bucket":  {"s3://nothing-here?endpoint=" + server.URL, s3.Key, s3.Secret, "make the bucket"},
		"a wrong secret":  {address, s3.Key, "wrong-secret", "AWS_SECRET_ACCESS_KEY"},
		"an unknown key":  {address, "nobody", "wrong-secret", "AWS_ACCESS_KEY_ID"},
		"nobody listens":  {"s3://" + name + "?endpoint=http://" + nobody, s3.Key, s3.Secret, "check its endpoint"},
		"another region":  {address + "&region=eu-north-1", s3.Key, s3.Secret, "region"},
		"no key anywhere": {address, "", "", "AWS_SHARED_CREDENTIALS_FILE"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Setenv("AWS_ACCESS_KEY_ID", c.key)
			t.Setenv("AWS_SECRET_ACCESS_KEY", c.secret)
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			t.Setenv("HOME", t.TempDir())
			err := open(t, c.address).Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "cannot be used") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "wrong-secret") {
				t.Errorf("the secret is told: %v", err)
			}
			t.Log(err)
		})
	}
}
