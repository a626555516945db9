package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"deckhand/config"
	"deckhand/state"
)

// registerTimeout is how long the cloud may take to register a device.
const registerTimeout = 30 * time.Second

// longestRefusal bounds what Retry-After can add to the wait between attempts.
const longestRefusal = 15 * time.Minute

// IdentityFile is config.json. Update is on the disk when it returns.
type IdentityFile interface {
	Values() config.Values
	Update(change func(*config.Values)) error
}

// ProvisionConfig says who the device is and how to reach its cloud.
type ProvisionConfig struct {
	File IdentityFile

	SupervisorVersion string
	OSVersion         string // os-release PRETTY_NAME
	OSVariant         string // dev or prod; others are not sent
	MACAddress        string // space-separated
	DeviceType        string // slug; empty: that of config.json

	UserAgent string
	Timeout   time.Duration     // of silence; 0: DefaultTimeout
	Transport http.RoundTripper // nil: a transport of our own

	// OnError is told why an attempt failed and when the next one comes. May
	// be nil.
	OnError func(err error, next time.Duration)
}

// Provision makes the device known to its cloud and returns when it is, or when
// ctx ends. It repeats failed attempts after bootstrapRetryDelay.
//
// The identity is on the disk before the cloud hears of it, and what the cloud
// answered is written in one step together with the removal of the provisioning
// key. So an answer that gets lost, or a crash at any moment, leads to the same
// device: the next attempt finds it with the device's own key.
func Provision(ctx context.Context, c ProvisionConfig) error {
	if c.Transport == nil {
		c.Transport = NewTransport(TransportConfig{})
	}
	return insist(ctx, c.File, c.OnError, provisioner{c}.attempt)
}

// insist makes attempts until one succeeds, or ctx ends.
func insist(ctx context.Context, file IdentityFile, onError func(error, time.Duration), attempt func(context.Context) error) error {
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := max(file.Values().BootstrapRetryDelay, min(RetryAfter(err), longestRefusal))
		if onError != nil {
			onError(err, wait)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

type provisioner struct{ c ProvisionConfig }

// attempt does whatever the state of the identity file asks for.
func (p provisioner) attempt(ctx context.Context) error {
	v := p.c.File.Values()
	if !v.Managed() || v.Provisioned() && v.APIKey == "" {
		return nil
	}
	if err := p.identify(v); err != nil {
		return err
	}
	v = p.c.File.Values()
	cloud, err := New(Config{
		Endpoint: v.APIEndpoint, UUID: v.UUID, Key: func() string { return v.DeviceAPIKey },
		UserAgent: p.c.UserAgent, Timeout: p.c.Timeout, Transport: p.c.Transport,
	})
	if err != nil {
		return err
	}
	id := int64(0)
	switch {
	case v.RegisteredAt == 0:
		id, err = p.register(ctx, cloud, v)
	case v.DeviceID == 0:
		id, err = p.exchangeOrRenew(ctx, cloud, v)
	default:
		// Registered, with the provisioning key still there. The identity is
		// in use, so it is never replaced here.
		id, err = exchange(ctx, cloud, v)
	}
	if err != nil {
		return err
	}
	return p.finish(id)
}

// identify gives the device an identity, on the disk.
func (p provisioner) identify(v config.Values) error {
	if v.UUID != "" && v.DeviceAPIKey != "" {
		return nil
	}
	err := p.c.File.Update(func(v *config.Values) {
		if v.UUID == "" {
			v.UUID = config.NewID()
		}
		if v.DeviceAPIKey == "" {
			v.DeviceAPIKey = config.NewID()
		}
	})
	if err != nil {
		return fmt.Errorf("register the device: %w", err)
	}
	return nil
}

func (p provisioner) finish(id int64) error {
	err := p.c.File.Update(func(v *config.Values) {
		if v.RegisteredAt == 0 {
			v.RegisteredAt = time.Now().UnixMilli()
		}
		v.DeviceID, v.APIKey = id, ""
	})
	if err != nil {
		return fmt.Errorf("register the device: %w", err)
	}
	return nil
}

// registration is the body of POST /device/register.
type registration struct {
	Application       int64  `json:"application"`
	UUID              string `json:"uuid"`
	DeviceType        string `json:"device_type"`
	APIKey            string `json:"api_key"`
	SupervisorVersion string `json:"supervisor_version,omitempty"`
	OSVersion         string `json:"os_version,omitempty"`
	OSVariant         string `json:"os_variant,omitempty"`
	MACAddress        string `json:"mac_address,omitempty"`
}

func (p provisioner) register(ctx context.Context, cloud *Client, v config.Values) (int64, error) {
	if v.APIKey == "" || v.ApplicationID == 0 {
		// A device registered by hand knows its key and needs no other.
		if id, err := find(ctx, cloud, v, v.DeviceAPIKey); !errors.Is(err, errNotOurs) {
			return id, err
		}
		return 0, state.Classify(state.ClassInvalid, errors.New("register the device: config.json needs apiKey and applicationId; download it again from the cloud"))
	}
	r := registration{
		Application: v.ApplicationID, UUID: v.UUID, DeviceType: p.c.DeviceType, APIKey: v.DeviceAPIKey,
		SupervisorVersion: p.c.SupervisorVersion, OSVersion: p.c.OSVersion, MACAddress: p.c.MACAddress,
	}
	if r.DeviceType == "" {
		r.DeviceType = v.DeviceType
	}
	if p.c.OSVariant == "dev" || p.c.OSVariant == "prod" {
		r.OSVariant = p.c.OSVariant
	}
	body, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("register the device: %w", err)
	}
	res, err := cloud.do(ctx, request{
		method: http.MethodPost, path: "/device/register", key: v.APIKey, body: body, timeout: registerTimeout, limit: maxAnswer,
	})
	if err != nil {
		return 0, fmt.Errorf("register the device: %w", err)
	}
	switch res.status {
	case http.StatusCreated:
		var answer struct {
			ID int64 `json:"id"`
		}
		if err := json.Unmarshal(res.body, &answer); err != nil || answer.ID <= 0 {
			// The device exists now; the next attempt finds it.
			return 0, state.Classify(state.ClassInvalid, errors.New("register the device: the answer holds no device number"))
		}
		return answer.ID, nil
	case http.StatusConflict:
		// An earlier answer was lost, or somebody registered it before.
		return p.exchangeOrRenew(ctx, cloud, v)
	}
	return 0, fmt.Errorf("register the device: %w", res.failure())
}

// errNotOurs means that the cloud surely does not let us have this identity.
var errNotOurs = errors.New("the cloud does not let this device use its UUID and key")

// exchangeOrRenew is exchange, with a new identity when the old one surely
// cannot be had. An outage is no such answer: it would leave a second device.
func (p provisioner) exchangeOrRenew(ctx context.Context, cloud *Client, v config.Values) (int64, error) {
	id, err := exchange(ctx, cloud, v)
	if !errors.Is(err, errNotOurs) {
		return id, err
	}
	if e := p.c.File.Update(func(v *config.Values) {
		v.UUID, v.DeviceAPIKey, v.RegisteredAt, v.DeviceID = config.NewID(), config.NewID(), 0, 0
	}); e != nil {
		return 0, fmt.Errorf("register the device: %w", e)
	}
	return 0, fmt.Errorf("%w; it gets a new identity", err)
}

// exchange finds the device under its own key, or gives it that key with the
// help of the provisioning key.
func exchange(ctx context.Context, cloud *Client, v config.Values) (int64, error) {
	id, err := find(ctx, cloud, v, v.DeviceAPIKey)
	if err == nil || !errors.Is(err, errNotOurs) {
		return id, err
	}
	if v.APIKey == "" {
		return 0, state.Classify(state.ClassAuth, errors.New("exchange keys: the cloud does not know this device's key and config.json holds no apiKey; download it again from the cloud"))
	}
	if id, err = find(ctx, cloud, v, v.APIKey); err != nil {
		return 0, err
	}
	body, err := json.Marshal(map[string]string{"apiKey": v.DeviceAPIKey})
	if err != nil {
		return 0, fmt.Errorf("exchange keys: %w", err)
	}
	res, err := cloud.do(ctx, request{
		method: http.MethodPost, path: fmt.Sprintf("/api-key/device/%d/device-key", id), key: v.APIKey, body: body, limit: maxAnswer,
	})
	if err != nil {
		return 0, fmt.Errorf("exchange keys: %w", err)
	}
	if res.status != http.StatusOK {
		return 0, fmt.Errorf("exchange keys: %w", res.refusal())
	}
	return id, nil
}

// find asks for the device's number with a key. The error is errNotOurs when
// the answer is a definite no.
func find(ctx context.Context, cloud *Client, v config.Values, key string) (int64, error) {
	res, err := cloud.do(ctx, request{
		method: http.MethodGet, path: "/v7/device", key: key, limit: maxAnswer,
		query: query("id", "uuid eq "+quote(v.UUID)),
	})
	if err != nil {
		return 0, fmt.Errorf("find the device: %w", err)
	}
	if res.status/100 != 2 {
		return 0, fmt.Errorf("find the device: %w", res.refusal())
	}
	found, err := rows[row](res)
	if err != nil {
		return 0, fmt.Errorf("find the device: %w", err)
	}
	if len(found) == 0 || found[0].ID <= 0 {
		return 0, state.Classify(state.ClassAuth, fmt.Errorf("find the device: %w", errNotOurs))
	}
	return found[0].ID, nil
}

// refusal is the answer's failure, which is errNotOurs when it is definite.
func (r *response) refusal() error {
	switch r.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return state.Classify(state.ClassAuth, fmt.Errorf("%w: %w", errNotOurs, r.failure()))
	}
	return r.failure()
}
