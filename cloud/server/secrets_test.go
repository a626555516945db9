package server_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"deckhand/cloud/server"
)

// talk is a conversation with a cloud that remembers every secret of it.
type talk struct {
	t       *testing.T
	url     string
	secrets map[string]string
}

// keep notes a secret, and how it looks on the wire.
func (k *talk) keep(name, secret string) string {
	k.t.Helper()
	if len(secret) < 8 {
		k.t.Fatalf("%s is no secret: %q", name, secret)
	}
	k.secrets[name] = secret
	return secret
}

func (k *talk) say(want int, method, path, credential, body string, headers ...string) string {
	k.t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = k.url + path
	}
	status, answered, _ := do(k.t, http.DefaultClient, method, url, credential, body, headers...)
	if status != want {
		k.t.Fatalf("%s %s: %d %s", method, path, status, answered)
	}
	return answered
}

func unquote(t *testing.T, s string) string {
	t.Helper()
	var text string
	if err := json.Unmarshal([]byte(s), &text); err != nil {
		t.Fatal(err)
	}
	return text
}

func (k *talk) basic(name, password string) string {
	return "Basic " + k.keep("basic "+name, base64.StdEncoding.EncodeToString([]byte(name+":"+password)))
}

func TestNoSecretIsLogged(t *testing.T) {
	var log buffer
	cfg := config(t.TempDir(), &log)
	cfg.Log = zerolog.New(&log).Level(zerolog.TraceLevel)
	cfg.BuilderSecret = "the-secret-of-builders-elsewhere-1"
	s, stop := run(t, cfg)
	k := &talk{t, s.URL(), map[string]string{}}
	k.keep("builder secret", cfg.BuilderSecret)

	password := k.keep("password", s.FirstLogin().Password)
	k.say(401, "POST", "/login_", "", `{"username":"admin","password":"`+k.keep("wrong password", "not-the-password")+`"}`)
	k.say(401, "POST", "/login_", "", `{"username":"`+k.keep("password as name", "typed-in-the-wrong-field")+`","password":"x"}`)
	session := k.keep("session", login(t, s, server.Login{Username: "admin", Password: password}))
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(session, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Secret string `json:"jwt_secret"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	k.keep("jwt_secret", claims.Secret)
	session = k.keep("refreshed session", k.say(200, "GET", "/user/v1/refresh-token", session, ""))
	k.say(201, "POST", "/v7/application", session, `{"app_name":"garden","organization":1,"is_for__device_type":1}`)
	userKey := k.keep("user key", unquote(t, k.say(200, "POST", "/api-key/user/full", session, `{"name":"ci"}`)))
	fleetKey := k.keep("provisioning key", unquote(t, k.say(200, "POST", "/api-key/v2/", session,
		`{"actorType":"application","actorTypeId":1,"roles":["provisioning-api-key"],"expiryDate":null}`)))
	uuid := strings.Repeat("a", 32)
	deviceKey := k.keep("device key", "a-device-key-of-its-own")
	k.say(201, "POST", "/device/register?apikey="+fleetKey, "", `{"application":1,"uuid":"`+uuid+`","device_type":"generic-amd64","api_key":"`+deviceKey+`"}`)
	k.say(201, "POST", "/device/register", "", `{"apikey":"`+fleetKey+`","application":1,"uuid":"`+uuid+`","device_type":"generic-amd64","api_key":"`+deviceKey+`"}`)
	k.say(201, "POST", "/v7/device_environment_variable", userKey, `{"device":1,"name":"PASSWORD","value":"`+k.keep("variable", "swordfish-swordfish")+`"}`)
	k.say(400, "POST", "/v7/device_environment_variable", userKey, `{"device":1,"name":"BALENA_X","value":"`+k.keep("refused variable", "tunafish-tunafish")+`"}`)
	k.say(400, "POST", "/v7/device_environment_variable", userKey, `{"device":1,"name":"PASSWORD","value":"`+k.keep("broken body", "catfish-catfish"))
	k.say(200, "PATCH", "/device/v3/state", deviceKey, `{"`+uuid+`":{"status":"Idle","api_secret":"`+k.keep("supervisor's secret", "supervisor-api-secret-1")+`"}}`)
	k.say(200, "GET", "/device/v3/"+uuid+"/state?apikey="+deviceKey, "", "")
	k.say(401, "GET", "/actor/v1/whoami?apikey="+k.keep("wrong key", "no-key-of-anybody-1"), "", "")

	token := func(authorization string) string {
		var got struct{ Token string }
		answered := k.say(200, "GET", "/auth/v1/token?scope=repository:v2/"+strings.Repeat("0", 32)+":pull,push", "", "", "Authorization", authorization)
		if err := json.Unmarshal([]byte(answered), &got); err != nil {
			t.Fatal(err)
		}
		return got.Token
	}
	k.keep("device's registry token", token(k.basic("d_"+uuid, deviceKey)))
	registryToken := k.keep("builder's registry token", token(k.basic("builder", cfg.BuilderSecret)))
	k.say(401, "GET", "/auth/v1/token", "", "", "Authorization", k.basic("d_"+uuid, "not-the-key-of-it"))
	images := "http://" + s.RegistryHost() + "/v2/"
	k.say(200, "GET", images, registryToken, "")
	k.say(401, "GET", images, k.keep("forged token", registryToken[:len(registryToken)-10]+"AAAAAAAAAA"), "")
	k.say(404, "GET", images+"v2/"+strings.Repeat("0", 32)+"/manifests/latest", registryToken, "")
	k.say(401, "GET", images+"v2/"+strings.Repeat("1", 32)+"/manifests/latest", registryToken, "")
	stop()

	text := log.String()
	if lines := strings.Count(text, "\n"); lines < 20 {
		t.Fatalf("only %d lines were logged: %s", lines, text)
	}
	for name, secret := range k.secrets {
		if strings.Contains(text, secret) {
			t.Errorf("the log has the %s", name)
		}
	}
}
