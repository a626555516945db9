package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/cloud/server"
)

// buffer is a log that several goroutines write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func config(dir string, log io.Writer) server.Config {
	return server.Config{DataDir: dir, Listen: "127.0.0.1:0", RegistryListen: "127.0.0.1:0", Engine: "unix:///nonexistent/docker.sock", Log: zerolog.New(log)}
}

// run starts a cloud; the function returned stops it and waits.
func run(t *testing.T, cfg server.Config) (*server.Server, func()) {
	t.Helper()
	s, err := server.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("stop: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the cloud does not stop")
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

func do(t *testing.T, client *http.Client, method, url, credential, body string, headers ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

func login(t *testing.T, s *server.Server, l server.Login) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"username": l.Username, "password": l.Password})
	if err != nil {
		t.Fatal(err)
	}
	status, token, _ := do(t, http.DefaultClient, "POST", s.URL()+"/login_", "", string(body))
	if status != 200 {
		t.Fatalf("log in: %d %s", status, token)
	}
	return token
}

func TestANewCloudAndItsRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var log buffer
	s, stop := run(t, config(dir, &log))
	first := s.FirstLogin()
	if first == nil {
		t.Fatal("a new cloud gives no login")
	}
	token := login(t, s, *first)
	if status, body, _ := do(t, http.DefaultClient, "GET", s.URL()+"/ping", "", ""); status != 200 || body != "OK" {
		t.Errorf("ping: %d %s", status, body)
	}
	if status, _, _ := do(t, http.DefaultClient, "GET", s.URL()+"/connectivity-check", "", ""); status != 204 {
		t.Errorf("connectivity check: %d", status)
	}
	if status, _, _ := do(t, http.DefaultClient, "GET", s.URL()+"/nothing", "", ""); status != 404 {
		t.Errorf("unknown path: %d", status)
	}
	status, _, header := do(t, http.DefaultClient, "GET", "http://"+s.RegistryHost()+"/v2/", "", "")
	if status != 401 || !strings.Contains(header.Get("WWW-Authenticate"), s.URL()+"/auth/v1/token") {
		t.Errorf("registry: %d %v", status, header)
	}
	if _, err := server.New(t.Context(), config(dir, io.Discard)); err == nil || !strings.Contains(err.Error(), "another deckhand-cloud") {
		t.Errorf("a second cloud on the folder: %v", err)
	}
	stop()
	if strings.Contains(log.String(), first.Password) || strings.Contains(log.String(), token) {
		t.Error("the log holds a secret")
	}

	again, stop := run(t, config(dir, &log))
	if again.FirstLogin() != nil {
		t.Error("a restart gives a login")
	}
	if status, _, _ := do(t, http.DefaultClient, "GET", again.URL()+"/user/v1/whoami", token, ""); status != 200 {
		t.Errorf("the session ended with the restart: %d", status)
	}
	if _, err := server.OpenUsers(t.Context(), dir, ""); err == nil {
		t.Error("users are changed while the cloud runs")
	}
	stop()
	password := resetPassword(t, dir)
	third, _ := run(t, config(dir, &log))
	login(t, third, server.Login{Username: "admin", Password: password})
	if status, _, _ := do(t, http.DefaultClient, "GET", third.URL()+"/user/v1/whoami", token, ""); status != 401 {
		t.Errorf("the old session survived the new password: %d", status)
	}
}

// resetPassword gives the owner of a stopped cloud a new password.
func resetPassword(t *testing.T, dir string) string {
	t.Helper()
	users := openUsers(t, dir)
	defer users.Close()
	if _, err := users.ResetPassword(t.Context(), "nobody"); err == nil {
		t.Error("reset of an unknown user")
	}
	password, err := users.ResetPassword(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	return password
}

func openUsers(t *testing.T, dir string) *server.Users {
	t.Helper()
	users, err := server.OpenUsers(t.Context(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return users
}

func TestUsersOfNoCloud(t *testing.T) {
	if _, err := server.OpenUsers(t.Context(), t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("an empty folder has users: %v", err)
	}
}

func TestSeveralUsersAndOrganizations(t *testing.T) {
	dir := t.TempDir()
	first, stop := run(t, config(dir, io.Discard))
	admin := login(t, first, *first.FirstLogin())
	if status, text, _ := do(t, http.DefaultClient, "POST", first.URL()+"/v7/application", admin, `{"app_name":"garden","device_type":"generic-amd64","organization":1,"is_for__device_type":1}`); status != 201 {
		t.Fatalf("create a fleet: %d %s", status, text)
	}
	stop()

	users := openUsers(t, dir)
	logins := map[string]string{}
	for name, rest := range map[string][2]string{"eve": {"eve@example.test", "admin"}, "mallory": {"", ""}} {
		password, err := users.Add(t.Context(), name, rest[0], rest[1])
		if err != nil {
			t.Fatal(err)
		}
		logins[name] = password
	}
	for _, wrong := range [][4]string{
		{"eve", "", "", `"username" must be unique`}, {"Eve", "", "", "lower-case letters"}, {"carol", "", "nobodys", "nobodys"},
		{"carol", "eve@example.test", "", `"email" must be unique`}, {"carol", "carol", "", "me@example.com"},
		{"carol", "Carol <c@example.test>", "", "me@example.com"}, {"carol", "a@b", "", "me@example.com"},
	} {
		if _, err := users.Add(t.Context(), wrong[0], wrong[1], wrong[2]); err == nil || !strings.Contains(err.Error(), wrong[3]) {
			t.Errorf("user %v: %v", wrong, err)
		}
	}
	people, err := users.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]server.Person{{"admin", "", []string{"admin"}}, {"eve", "eve@example.test", []string{"admin", "eve"}}, {"mallory", "", []string{"mallory"}}}, people); diff != "" {
		t.Error(diff)
	}
	if err := users.Delete(t.Context(), "mallory"); err != nil {
		t.Error(err)
	}
	if err := users.Close(); err != nil {
		t.Fatal(err)
	}

	again, stop := run(t, config(dir, io.Discard))
	if status, _, _ := do(t, http.DefaultClient, "POST", again.URL()+"/login_", "", `{"username":"mallory","password":"`+logins["mallory"]+`"}`); status != 401 {
		t.Errorf("a deleted user logs in: %d", status)
	}
	eve := login(t, again, server.Login{Username: "eve@example.test", Password: logins["eve"]})
	if _, text, _ := do(t, http.DefaultClient, "GET", again.URL()+"/actor/v1/whoami", eve, ""); !strings.Contains(text, `"username":"eve","email":"eve@example.test"`) {
		t.Errorf("eve is %s", text)
	}
	if _, text, _ := do(t, http.DefaultClient, "GET", again.URL()+"/v7/application?$select=slug", eve, ""); text != `{"d":[{"slug":"admin/garden"}]}` {
		t.Errorf("a member sees %s", text)
	}
	stop()

	users = openUsers(t, dir)
	defer users.Close()
	if err := users.Delete(t.Context(), "admin"); err != nil {
		t.Errorf("eve keeps the fleets: %v", err)
	}
	if err := users.Delete(t.Context(), "eve"); err == nil || !strings.Contains(err.Error(), "organization admin") {
		t.Errorf("the last member of an organization with fleets was deleted: %v", err)
	}
}

func TestRegistryTokenOpensTheRegistry(t *testing.T) {
	s, _ := run(t, config(t.TempDir(), io.Discard))
	token := login(t, s, *s.FirstLogin())
	status, body, _ := do(t, http.DefaultClient, "GET", s.URL()+"/auth/v1/token?service="+s.RegistryHost(), token, "")
	var got struct{ Token string }
	if err := json.Unmarshal([]byte(body), &got); status != 200 || err != nil {
		t.Fatalf("%d %s %v", status, body, err)
	}
	if status, body, _ := do(t, http.DefaultClient, "GET", "http://"+s.RegistryHost()+"/v2/", got.Token, ""); status != 200 {
		t.Errorf("the registry refuses our token: %d %s", status, body)
	}
	if status, _, _ := do(t, http.DefaultClient, "GET", "http://"+s.RegistryHost()+"/v2/", token, ""); status != 401 {
		t.Errorf("the registry takes a session: %d", status)
	}
}

func TestAHeldDeviceIsReleasedWhenTheCloudStops(t *testing.T) {
	var log buffer
	cfg := config(t.TempDir(), &log)
	cfg.Log = cfg.Log.Level(zerolog.DebugLevel)
	s, stop := run(t, cfg)
	token := login(t, s, *s.FirstLogin())
	client := http.DefaultClient
	status, body, _ := do(t, client, "POST", s.URL()+"/v7/application", token, `{"app_name":"kitchen","device_type":"generic-amd64"}`)
	if status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	_, key, _ := do(t, client, "POST", s.URL()+"/api-key/application/1/provisioning", token, "")
	uuid := strings.Repeat("a", 32)
	status, body, _ = do(t, client, "POST", s.URL()+"/device/register", strings.Trim(key, `"`),
		`{"application":1,"uuid":"`+uuid+`","device_type":"generic-amd64","api_key":"device-key-device-key"}`)
	if status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	state := s.URL() + "/device/v3/" + uuid + "/state"
	_, _, header := do(t, client, "GET", state+"?apikey=device-key-device-key", "", "")
	type reply struct {
		status int
		err    error
	}
	held := make(chan reply, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), "GET", state, nil)
		if err != nil {
			held <- reply{0, err}
			return
		}
		req.Header.Set("Authorization", "Bearer device-key-device-key")
		req.Header.Set("If-None-Match", header.Get("ETag"))
		req.Header.Set("Prefer", "wait=50")
		res, err := client.Do(req)
		if err != nil {
			held <- reply{0, err}
			return
		}
		res.Body.Close()
		held <- reply{res.StatusCode, nil}
	}()
	select {
	case r := <-held:
		t.Fatalf("not held: %+v", r)
	case <-time.After(100 * time.Millisecond):
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if r := <-held; r.err != nil || r.status != 304 {
		t.Errorf("the held request got %+v", r)
	}
	if strings.Contains(log.String(), "apikey") || strings.Contains(log.String(), "device-key") {
		t.Error("the log holds a key")
	}
}

// certificate makes one for loopback: the files of --tls-cert and --tls-key, and who
// trusts it.
func certificate(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, pool
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := certificate(t, dir)
	cfg := config(filepath.Join(dir, "data"), io.Discard)
	cfg.TLSCert, cfg.TLSKey = cert, key
	s, _ := run(t, cfg)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	t.Cleanup(client.CloseIdleConnections)
	if !strings.HasPrefix(s.URL(), "https://") {
		t.Error(s.URL())
	}
	if status, body, _ := do(t, client, "GET", s.URL()+"/ping", "", ""); status != 200 || body != "OK" {
		t.Errorf("%d %s", status, body)
	}
	if status, _, _ := do(t, client, "GET", "https://"+s.RegistryHost()+"/v2/", "", ""); status != 401 {
		t.Errorf("registry: %d", status)
	}

	bad := config(filepath.Join(dir, "other"), io.Discard)
	bad.TLSCert, bad.TLSKey = key, cert
	if _, err := server.New(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "--tls-cert") {
		t.Errorf("swapped files: %v", err)
	}
}

func TestStartThatFailsSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := config(t.TempDir(), io.Discard)
	cfg.RegistryListen = taken.Addr().String()
	if _, err := server.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--registry-listen") {
		t.Errorf("taken port: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.New(t.Context(), config(file, io.Discard)); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("data folder is a file: %v", err)
	}
	// A start that failed must not have used up the one-time login.
	cfg = config(t.TempDir(), io.Discard)
	engine := cfg.Engine
	cfg.Engine = "nonsense://"
	if _, err := server.New(t.Context(), cfg); err == nil {
		t.Fatal("an engine address that is none was accepted")
	}
	cfg.Engine = engine
	if s, _ := run(t, cfg); s.FirstLogin() == nil {
		t.Error("the login was lost")
	}
}
