package config

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Values are the keys of config.json that deckhand uses. A key that is absent
// or null has its default.
type Values struct {
	APIEndpoint   string // base URL without a slash at the end; empty: the device is unmanaged
	UUID          string // 32 hexadecimal digits, 62 on old devices
	DeviceAPIKey  string
	APIKey        string // provisioning key; gone once the device is registered
	ApplicationID int64  // the fleet to join
	DeviceID      int64
	RegisteredAt  int64 // Unix milliseconds
	DeviceType    string
	DeviceName    string // initialDeviceName: given to the cloud once

	ListenPort          int           // of the local API; default 48484
	PollInterval        time.Duration // appUpdatePollInterval; default 15 min
	BootstrapRetryDelay time.Duration // between attempts to register; default 30 s
	APITimeout          time.Duration // idle connections to the local API; default 15 min
	DeltaEndpoint       string        // default https://delta.balena-cloud.com
	LogsEndpoint        string        // default: APIEndpoint

	RootCA string // balenaRootCA: certificates in PEM, in base64

	Hostname          string
	DevelopmentMode   bool
	PersistentLogging bool
}

// Managed reports whether the device belongs to a cloud.
func (v Values) Managed() bool { return v.APIEndpoint != "" }

// Provisioned reports whether the cloud knows the device and told its number.
func (v Values) Provisioned() bool {
	return v.UUID != "" && v.APIEndpoint != "" && v.RegisteredAt != 0 && v.DeviceID != 0
}

// CloudKey is the key to show to the cloud: the provisioning key until the
// device is registered, then its own.
func (v Values) CloudKey() string {
	if v.APIKey != "" {
		return v.APIKey
	}
	return v.DeviceAPIKey
}

// defaults are the values of absent keys.
func defaults() Values {
	return Values{
		ListenPort:          48484,
		PollInterval:        15 * time.Minute,
		BootstrapRetryDelay: 30 * time.Second,
		APITimeout:          15 * time.Minute,
		DeltaEndpoint:       "https://delta.balena-cloud.com",
	}
}

// key ties a name in the file to a field of Values.
type key struct {
	name  string
	field func(*Values) any // pointer to the field
	check func(any) error   // nil: every value of the type will do
}

// keys is the table of all typed keys. To add one: a field and a row.
func keys() []key {
	return []key{
		{"apiEndpoint", func(v *Values) any { return &v.APIEndpoint }, isURL},
		{"uuid", func(v *Values) any { return &v.UUID }, isUUID},
		{"deviceApiKey", func(v *Values) any { return &v.DeviceAPIKey }, isToken},
		{"apiKey", func(v *Values) any { return &v.APIKey }, isToken},
		{"applicationId", func(v *Values) any { return &v.ApplicationID }, isID},
		{"deviceId", func(v *Values) any { return &v.DeviceID }, isID},
		{"registered_at", func(v *Values) any { return &v.RegisteredAt }, isID},
		{"deviceType", func(v *Values) any { return &v.DeviceType }, isText(255)},
		{"initialDeviceName", func(v *Values) any { return &v.DeviceName }, isText(255)},
		{"listenPort", func(v *Values) any { return &v.ListenPort }, isPort},
		{"appUpdatePollInterval", func(v *Values) any { return &v.PollInterval }, isWait},
		{"bootstrapRetryDelay", func(v *Values) any { return &v.BootstrapRetryDelay }, isWait},
		{"apiTimeout", func(v *Values) any { return &v.APITimeout }, isWait},
		{"deltaEndpoint", func(v *Values) any { return &v.DeltaEndpoint }, isURL},
		{"logsEndpoint", func(v *Values) any { return &v.LogsEndpoint }, isURL},
		{"balenaRootCA", func(v *Values) any { return &v.RootCA }, isCertificates},
		{"hostname", func(v *Values) any { return &v.Hostname }, isText(255)},
		{"developmentMode", func(v *Values) any { return &v.DevelopmentMode }, nil},
		{"persistentLogging", func(v *Values) any { return &v.PersistentLogging }, nil},
	}
}

// decode reads raw into the field; null leaves the default.
func (k key) decode(v *Values, raw json.RawMessage) error {
	if string(raw) == "null" {
		return setFalse(k.field(v))
	}
	p := k.field(v)
	var err error
	switch p := p.(type) {
	case *string:
		*p, err = text(raw)
	case *bool:
		*p, err = boolean(raw)
	case *int:
		var n int64
		n, err = integer(raw)
		*p = int(max(min(n, math.MaxInt32), math.MinInt32)) // the check refuses the ends
	case *int64:
		*p, err = integer(raw)
	case *time.Duration:
		*p, err = milliseconds(raw)
	}
	if err != nil {
		return err
	}
	if s, ok := p.(*string); ok && strings.HasSuffix(k.name, "Endpoint") {
		*s = strings.TrimRight(strings.TrimSpace(*s), "/")
	}
	if k.check == nil {
		return nil
	}
	return k.check(reflect.ValueOf(p).Elem().Interface())
}

// setFalse gives a null boolean its meaning; other types keep their default.
func setFalse(p any) error {
	if b, ok := p.(*bool); ok {
		*b = false
	}
	return nil
}

// encode writes the field; ok is false when the key should not be in the file.
func (k key) encode(v *Values) (raw json.RawMessage, ok bool) {
	p := reflect.ValueOf(k.field(v)).Elem()
	if p.IsZero() {
		return nil, false
	}
	x := p.Interface()
	if d, isDuration := x.(time.Duration); isDuration {
		x = d.Milliseconds()
	}
	raw, err := json.Marshal(x)
	return raw, err == nil
}

func text(raw json.RawMessage) (string, error) {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", fmt.Errorf("%s is no text", show(raw))
	}
	return s, nil
}

// boolean accepts what balena's OS and tools write: true, 1, "on", "False", …
func boolean(raw json.RawMessage) (bool, error) {
	s := string(raw)
	if t, err := text(raw); err == nil {
		s = strings.ToLower(t)
	}
	switch s {
	case "1", "true", "on":
		return true, nil
	case "0", "false", "off":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", show(raw))
}

// integer accepts whole numbers, and texts that start with one.
func integer(raw json.RawMessage) (int64, error) {
	f, err := number(raw)
	if err != nil {
		return 0, err
	}
	if f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, fmt.Errorf("%s is not a whole number", show(raw))
	}
	return int64(f), nil
}

func number(raw json.RawMessage) (float64, error) {
	var f float64
	if json.Unmarshal(raw, &f) == nil {
		return f, nil
	}
	if s, err := text(raw); err == nil {
		if m := regexp.MustCompile(`^\s*([+-]?[0-9]{1,18})`).FindStringSubmatch(s); m != nil {
			n, err := strconv.ParseInt(m[1], 10, 64)
			return float64(n), err
		}
	}
	return 0, fmt.Errorf("%s is not a number", show(raw))
}

func milliseconds(raw json.RawMessage) (time.Duration, error) {
	f, err := number(raw)
	if err != nil {
		return 0, err
	}
	const year = 366 * 24 * 3600 * 1000
	if f < 0 || f > year {
		return 0, fmt.Errorf("%s is not between 0 and a year in milliseconds", show(raw))
	}
	return time.Duration(f * float64(time.Millisecond)), nil
}

// show quotes a value in an error, cut to what a person needs to find it.
func show(raw json.RawMessage) string {
	s := strings.ToValidUTF8(string(raw), "?")
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

func isURL(x any) error {
	s, _ := x.(string)
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("%q is no address of the form https://host", clip(s))
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the address must have no user, query or fragment")
	}
	return nil
}

func isUUID(x any) error {
	s, _ := x.(string)
	if s != "" && !regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{62})$`).MatchString(s) {
		return fmt.Errorf("%q is not 32 or 62 lower-case hexadecimal digits", clip(s))
	}
	return nil
}

// isToken accepts what can stand in an HTTP header. It never shows the value.
func isToken(x any) error {
	s, _ := x.(string)
	if len(s) > 1024 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the key must be printable ASCII without spaces")
	}
	return nil
}

func isCertificates(x any) error {
	s, _ := x.(string)
	if s == "" {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(b) {
		return errors.New("it is no PEM certificate in base64")
	}
	return nil
}

func isText(most int) func(any) error {
	return func(x any) error {
		s, _ := x.(string)
		if len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("the text must be one line of at most %d bytes", most)
		}
		return nil
	}
}

func isID(x any) error {
	if n, _ := x.(int64); n < 0 {
		return fmt.Errorf("%d is negative", n)
	}
	return nil
}

func isPort(x any) error {
	if n, _ := x.(int); n < 1 || n > 65535 {
		return fmt.Errorf("%d is no port", n)
	}
	return nil
}

// isWait refuses waits so short that a loop would hammer the cloud.
func isWait(x any) error {
	if d, _ := x.(time.Duration); d < 100*time.Millisecond {
		return fmt.Errorf("%v is too short, at least 100 (milliseconds)", d)
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
