package doctor_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/doctor"
)

func TestMain(m *testing.M) { cloudtest.Main(m) }

// patient is a cloud in good health.
func patient(t *testing.T) (*cloudtest.World, doctor.Patient) {
	t.Helper()
	w := cloudtest.New(t, nil)
	p := doctor.Patient{DataDir: t.TempDir(), Database: w.Config.Database, RegistryDir: t.TempDir(), Grace: time.Hour}
	if w.Config.Path != "" {
		p.DataDir = filepath.Dir(w.Config.Path)
	}
	keys := filepath.Join(p.DataDir, "keys")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(keys, "session.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return w, p
}

// want fails unless the check found the text at the level, with advice when it is
// not fine.
func want(t *testing.T, findings []doctor.Finding, check string, level doctor.Level, text string) {
	t.Helper()
	for _, f := range findings {
		if f.Check == check && f.Level == level && strings.Contains(f.Text, text) && (f.Do == "") == (level == doctor.OK) {
			return
		}
	}
	t.Errorf("no finding %s of %q with %q in %+v", level, check, text, findings)
}

func TestAHealthyCloud(t *testing.T) {
	_, p := patient(t)
	findings := doctor.Examine(t.Context(), p)
	for _, check := range []string{"database", "integrity of the database", "clock", "images of releases", "images that no release needs", "permissions of secrets"} {
		want(t, findings, check, doctor.OK, "")
	}
	if worst := doctor.Worst(findings); worst == doctor.Error {
		t.Errorf("a healthy cloud is %s: %+v", worst, findings)
	}
}

func TestWhatIsWrongIsFound(t *testing.T) {
	w, p := patient(t)
	w.Release(w.Fleet(w.Admin, "kitchen"), "aaaa", `{"services":{"main":{"image":"x"}}}`)
	if err := os.Chmod(filepath.Join(p.DataDir, "keys", "session.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.TLSCert, p.TLSKey = certificate(t, time.Now().Add(time.Hour))
	p.Engine = "unix:///nonexistent/docker.sock"
	findings := doctor.Examine(t.Context(), p)
	want(t, findings, "images of releases", doctor.Error, "release admin/kitchen/0.0.0")
	want(t, findings, "permissions of secrets", doctor.Error, "session.key")
	want(t, findings, "TLS certificate", doctor.Warning, "ends on")
	want(t, findings, "engine that builds", doctor.Warning, "")
	if worst := doctor.Worst(findings); worst != doctor.Error {
		t.Errorf("worst is %s", worst)
	}
	p.TLSCert, p.TLSKey = certificate(t, time.Now().Add(-time.Hour))
	want(t, doctor.Examine(t.Context(), p), "TLS certificate", doctor.Error, "ended on")
	p.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	if w.Config.Database != "" {
		want(t, doctor.Examine(t.Context(), p), "clock", doctor.Error, "differs")
	} else {
		want(t, doctor.Examine(t.Context(), p), "clock", doctor.Error, "goes back")
	}
}

func TestADamagedDatabaseIsFound(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cloud.db"), []byte(strings.Repeat("no database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, doctor.Examine(t.Context(), doctor.Patient{DataDir: dir, RegistryDir: dir}), "database", doctor.Error, "damaged")
	want(t, doctor.Examine(t.Context(), doctor.Patient{DataDir: t.TempDir(), RegistryDir: dir}), "database", doctor.Error, "--data-dir")
}

// certificate makes one that ends at a time, and its key.
func certificate(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-48 * time.Hour), NotAfter: until}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: public}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestABucketThatCannotBeUsed(t *testing.T) {
	_, p := patient(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "somebody")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	for address, text := range map[string]string{
		"s3://images?endpoint=http://127.0.0.1:1": "connection refused",
		"s3://somebody:hunter2@images":            "AWS_SECRET_ACCESS_KEY",
	} {
		p.RegistryStorage = address
		findings := doctor.Examine(t.Context(), p)
		want(t, findings, "bucket of the images", doctor.Error, text)
		for _, f := range findings {
			if strings.Contains(f.Text, "hunter2") || f.Check == "images of releases" {
				t.Errorf("%+v", f)
			}
		}
	}
}
