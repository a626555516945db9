package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"deckhand/state"
)

// Actor is who a token belongs to.
type Actor struct {
	Kind     string `json:"actorType"`   // user, device or application
	ID       int64  `json:"actorTypeId"` // of the user, device or fleet
	Username string `json:"username"`
	Email    string `json:"email"`
	UUID     string `json:"uuid"` // of a device
	Slug     string `json:"slug"` // of a fleet
}

// Fleet is a group of devices that run the same releases.
type Fleet struct {
	ID         int64  `json:"id"`
	Name       string `json:"name"`
	Slug       string `json:"slug"`
	DeviceType string `json:"deviceType"` // slug
	Target     int64  `json:"targetRelease"`
}

// Device is one device as the cloud knows it.
type Device struct {
	ID                int64     `json:"id"`
	UUID              string    `json:"uuid"`
	Name              string    `json:"name"`
	Fleet             int64     `json:"-"`
	FleetSlug         string    `json:"fleet"`
	DeviceType        string    `json:"deviceType"`
	Online            bool      `json:"online"`
	Status            string    `json:"status"`
	OSVersion         string    `json:"osVersion"`
	SupervisorVersion string    `json:"supervisorVersion"`
	IPAddress         string    `json:"ipAddress"`
	Running           int64     `json:"runningRelease"` // 0 when none
	RunningCommit     string    `json:"runningCommit"`
	LastSeen          time.Time `json:"lastSeen,omitzero"`
}

// Release is one version of a fleet's software.
type Release struct {
	ID      int64     `json:"id"`
	Commit  string    `json:"commit"`
	Version string    `json:"version"`
	Status  string    `json:"status"`
	Final   bool      `json:"final"`
	Created time.Time `json:"createdAt,omitzero"`
	Ended   time.Time `json:"endedAt,omitzero"`
}

// Install is one service's image on a device.
type Install struct {
	Service  string `json:"service"`
	Image    int64  `json:"image"`
	Release  int64  `json:"release"`
	Status   string `json:"status"`
	Progress int    `json:"progress"` // percent downloaded
}

// Registration is a device's identity as the cloud gave it.
type Registration struct {
	ID   int64  `json:"id"`
	UUID string `json:"uuid"`
	Key  string `json:"api_key"`
}

// Login exchanges user name and password for a session token.
func (c *Client) Login(ctx context.Context, user, password string) (string, error) {
	var token string
	err := c.call(ctx, http.MethodPost, "/login_", nil, map[string]string{"username": user, "password": password}, &token)
	if err != nil {
		return "", fmt.Errorf("log in as %s: %w", user, err)
	}
	return token, nil
}

// Whoami says whose the token is.
func (c *Client) Whoami(ctx context.Context) (Actor, error) {
	var a Actor
	err := c.call(ctx, http.MethodGet, "/actor/v1/whoami", nil, nil, &a)
	return a, err
}

// reference is a foreign key of an answer: an object with the id, or the expanded row.
type reference int64

// UnmarshalJSON reads both spellings; null is 0.
func (r *reference) UnmarshalJSON(data []byte) error {
	var deferred struct {
		ID int64 `json:"__id"`
	}
	var expanded []struct {
		ID int64 `json:"id"`
	}
	switch {
	case json.Unmarshal(data, &deferred) == nil:
		*r = reference(deferred.ID)
	case json.Unmarshal(data, &expanded) == nil:
		*r = 0
		if len(expanded) > 0 {
			*r = reference(expanded[0].ID)
		}
	default:
		return json.Unmarshal(data, (*int64)(r))
	}
	return nil
}

// query is what to ask of a resource.
type query struct {
	filter, fields, order string
	top                   int
}

// list reads rows of a resource.
func list[T any](ctx context.Context, c *Client, resource string, q query) ([]T, error) {
	values := url.Values{}
	for key, value := range map[string]string{"$filter": q.filter, "$select": q.fields, "$orderby": q.order} {
		if value != "" {
			values.Set(key, value)
		}
	}
	if q.top > 0 {
		values.Set("$top", strconv.Itoa(q.top))
	}
	var answer struct {
		D []T `json:"d"`
	}
	if err := c.call(ctx, http.MethodGet, "/v7/"+resource, values, nil, &answer); err != nil {
		return nil, fmt.Errorf("read %s: %w", resource, err)
	}
	return answer.D, nil
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

type applicationRow struct {
	ID         int64     `json:"id"`
	Name       string    `json:"app_name"`
	Slug       string    `json:"slug"`
	DeviceType reference `json:"is_for__device_type"`
	Target     reference `json:"should_be_running__release"`
}

const applicationFields = "id,app_name,slug,is_for__device_type,should_be_running__release"

func (c *Client) deviceTypes(ctx context.Context) (map[int64]string, error) {
	type row struct {
		ID   int64  `json:"id"`
		Slug string `json:"slug"`
	}
	rows, err := list[row](ctx, c, "device_type", query{fields: "id,slug"})
	slugs := map[int64]string{}
	for _, r := range rows {
		slugs[r.ID] = r.Slug
	}
	return slugs, err
}

func (c *Client) fleets(ctx context.Context, filter string) ([]Fleet, error) {
	rows, err := list[applicationRow](ctx, c, "application", query{filter: filter, fields: applicationFields, order: "app_name asc"})
	if err != nil {
		return nil, err
	}
	types, err := c.deviceTypes(ctx)
	if err != nil {
		return nil, err
	}
	fleets := make([]Fleet, 0, len(rows))
	for _, r := range rows {
		fleets = append(fleets, Fleet{ID: r.ID, Name: r.Name, Slug: r.Slug, DeviceType: types[int64(r.DeviceType)], Target: int64(r.Target)})
	}
	return fleets, nil
}

// Fleets lists the fleets the user can see, by name.
func (c *Client) Fleets(ctx context.Context) ([]Fleet, error) { return c.fleets(ctx, "") }

// Fleet finds a fleet by its slug (org/name), or by its name alone when there is only one
// of that name.
func (c *Client) Fleet(ctx context.Context, name string) (Fleet, error) {
	field := "app_name"
	if strings.Contains(name, "/") {
		field, name = "slug", strings.ToLower(name)
	}
	found, err := c.fleets(ctx, field+" eq "+quote(name))
	switch {
	case err != nil:
		return Fleet{}, err
	case len(found) == 0:
		return Fleet{}, state.Classify(state.ClassNotFound, fmt.Errorf("there is no fleet %s, or you may not see it", name))
	case len(found) > 1:
		return Fleet{}, state.Classify(state.ClassInvalid, fmt.Errorf("there are %d fleets %s; write the organization before it, like %s", len(found), name, found[0].Slug))
	}
	return found[0], nil
}

// CreateFleet adds a fleet for devices of a type, given by its slug.
func (c *Client) CreateFleet(ctx context.Context, name, deviceType string) (Fleet, error) {
	type row struct {
		ID int64 `json:"id"`
	}
	types, err := list[row](ctx, c, "device_type", query{filter: "slug eq " + quote(deviceType), fields: "id", top: 1})
	if err != nil {
		return Fleet{}, err
	}
	if len(types) == 0 {
		return Fleet{}, state.Classify(state.ClassNotFound, fmt.Errorf("the cloud knows no device type %s", deviceType))
	}
	var made applicationRow
	body := map[string]any{"app_name": name, "is_for__device_type": types[0].ID}
	if err := c.call(ctx, http.MethodPost, "/v7/application", nil, body, &made); err != nil {
		return Fleet{}, fmt.Errorf("create fleet %s: %w", name, err)
	}
	return Fleet{ID: made.ID, Name: made.Name, Slug: made.Slug, DeviceType: deviceType}, nil
}

type deviceRow struct {
	ID                int64     `json:"id"`
	UUID              string    `json:"uuid"`
	Name              string    `json:"device_name"`
	Fleet             reference `json:"belongs_to__application"`
	DeviceType        reference `json:"is_of__device_type"`
	Running           reference `json:"is_running__release"`
	Online            bool      `json:"is_online"`
	Status            string    `json:"overall_status"`
	OSVersion         string    `json:"os_version"`
	SupervisorVersion string    `json:"supervisor_version"`
	IPAddress         string    `json:"ip_address"`
	LastSeen          time.Time `json:"last_connectivity_event"`
}

const deviceFields = "id,uuid,device_name,belongs_to__application,is_of__device_type,is_running__release,is_online,overall_status,os_version,supervisor_version,ip_address,last_connectivity_event"

func (c *Client) devices(ctx context.Context, filter string) ([]Device, error) {
	rows, err := list[deviceRow](ctx, c, "device", query{filter: filter, fields: deviceFields, order: "device_name asc"})
	if err != nil {
		return nil, err
	}
	types, err := c.deviceTypes(ctx)
	if err != nil {
		return nil, err
	}
	fleets, err := list[applicationRow](ctx, c, "application", query{fields: "id,slug"})
	if err != nil {
		return nil, err
	}
	slugs := map[int64]string{}
	for _, f := range fleets {
		slugs[f.ID] = f.Slug
	}
	commits, err := c.commits(ctx, rows)
	if err != nil {
		return nil, err
	}
	devices := make([]Device, 0, len(rows))
	for _, r := range rows {
		devices = append(devices, Device{
			RunningCommit: commits[int64(r.Running)],
			ID:            r.ID, UUID: r.UUID, Name: r.Name, Fleet: int64(r.Fleet), FleetSlug: slugs[int64(r.Fleet)],
			DeviceType: types[int64(r.DeviceType)], Online: r.Online, Status: r.Status, OSVersion: r.OSVersion,
			SupervisorVersion: r.SupervisorVersion, IPAddress: r.IPAddress, Running: int64(r.Running), LastSeen: r.LastSeen,
		})
	}
	return devices, nil
}

// commits names the releases that devices run.
func (c *Client) commits(ctx context.Context, devices []deviceRow) (map[int64]string, error) {
	commits := map[int64]string{}
	for _, d := range devices {
		if d.Running != 0 {
			commits[int64(d.Running)] = ""
		}
	}
	const most = 200 // in one address
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(commits)), most) {
		in := make([]string, 0, len(ids))
		for _, id := range ids {
			in = append(in, strconv.FormatInt(id, 10))
		}
		releases, err := list[Release](ctx, c, "release", query{filter: "id in (" + strings.Join(in, ",") + ")", fields: "id,commit"})
		if err != nil {
			return nil, err
		}
		for _, r := range releases {
			commits[r.ID] = r.Commit
		}
	}
	return commits, nil
}

// Devices lists devices by name: of one fleet, or all for 0.
func (c *Client) Devices(ctx context.Context, fleet int64) ([]Device, error) {
	if fleet == 0 {
		return c.devices(ctx, "")
	}
	return c.devices(ctx, fmt.Sprintf("belongs_to__application eq %d", fleet))
}

// Device finds a device by its UUID or the beginning of it.
func (c *Client) Device(ctx context.Context, uuid string) (Device, error) {
	found, err := c.devices(ctx, "startswith(uuid,"+quote(uuid)+")")
	switch {
	case err != nil:
		return Device{}, err
	case uuid == "" || len(found) == 0:
		return Device{}, state.Classify(state.ClassNotFound, fmt.Errorf("there is no device %s, or you may not see it", uuid))
	case len(found) > 1:
		return Device{}, state.Classify(state.ClassInvalid, fmt.Errorf("%d devices begin with %s; write more of the UUID", len(found), uuid))
	}
	return found[0], nil
}

// Installs lists what the services of a device are doing.
func (c *Client) Installs(ctx context.Context, device Device) ([]Install, error) {
	type installRow struct {
		Image    reference `json:"installs__image"`
		Release  reference `json:"is_provided_by__release"`
		Status   string    `json:"status"`
		Progress *int      `json:"download_progress"`
	}
	rows, err := list[installRow](ctx, c, "image_install", query{filter: fmt.Sprintf("device eq %d", device.ID)})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	names, err := c.serviceNames(ctx, device.Fleet)
	if err != nil {
		return nil, err
	}
	var installs []Install
	for _, r := range rows {
		type imageRow struct {
			Service reference `json:"is_a_build_of__service"`
		}
		images, err := list[imageRow](ctx, c, "image", query{filter: fmt.Sprintf("id eq %d", r.Image), fields: "id,is_a_build_of__service"})
		if err != nil {
			return nil, err
		}
		in := Install{Image: int64(r.Image), Release: int64(r.Release), Status: r.Status}
		if len(images) > 0 {
			in.Service = names[int64(images[0].Service)]
		}
		if r.Progress != nil {
			in.Progress = *r.Progress
		}
		installs = append(installs, in)
	}
	return installs, nil
}

func (c *Client) serviceNames(ctx context.Context, fleet int64) (map[int64]string, error) {
	type row struct {
		ID   int64  `json:"id"`
		Name string `json:"service_name"`
	}
	rows, err := list[row](ctx, c, "service", query{filter: fmt.Sprintf("application eq %d", fleet)})
	names := map[int64]string{}
	for _, r := range rows {
		names[r.ID] = r.Name
	}
	return names, err
}

// ProvisioningKey makes a key with which devices can join a fleet. A life of 0 means that
// it does not expire.
func (c *Client) ProvisioningKey(ctx context.Context, fleet int64, life time.Duration) (string, error) {
	body := map[string]any{"name": "deckctl"}
	if life > 0 {
		body["expiryDate"] = time.Now().Add(life).UTC().Format(time.RFC3339)
	}
	var key string
	err := c.call(ctx, http.MethodPost, fmt.Sprintf("/api-key/application/%d/provisioning", fleet), nil, body, &key)
	if err != nil {
		return "", fmt.Errorf("make provisioning key: %w", err)
	}
	return key, nil
}

// DeviceKey makes a new key for a device.
func (c *Client) DeviceKey(ctx context.Context, device int64) (string, error) {
	var key string
	err := c.call(ctx, http.MethodPost, fmt.Sprintf("/api-key/device/%d/device-key", device), nil, map[string]any{}, &key)
	if err != nil {
		return "", fmt.Errorf("make device key: %w", err)
	}
	return key, nil
}

// NewUUID is an identity for a device: 32 hex digits.
func NewUUID() string { return randomHex(16) }

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// RegisterDevice adds a device to a fleet: with a provisioning key that lives for minutes,
// as devices do it themselves. An empty uuid means a new one.
func (c *Client) RegisterDevice(ctx context.Context, fleet Fleet, uuid string) (Registration, error) {
	if uuid == "" {
		uuid = NewUUID()
	}
	key, err := c.ProvisioningKey(ctx, fleet.ID, 10*time.Minute)
	if err != nil {
		return Registration{}, err
	}
	var r Registration
	body := map[string]any{
		"application": fleet.ID, "uuid": uuid, "device_type": fleet.DeviceType,
		"api_key": randomHex(16), // ours, so that a lost answer loses nothing
	}
	if err := c.As(key).call(ctx, http.MethodPost, "/device/register", nil, body, &r); err != nil {
		return Registration{}, fmt.Errorf("register device %s: %w", uuid, err)
	}
	return r, nil
}

// Releases lists the releases of a fleet, the newest first.
func (c *Client) Releases(ctx context.Context, fleet int64) ([]Release, error) {
	type row struct {
		ID      int64     `json:"id"`
		Commit  string    `json:"commit"`
		Version string    `json:"raw_version"`
		Status  string    `json:"status"`
		Final   bool      `json:"is_final"`
		Created time.Time `json:"created_at"`
		Ended   time.Time `json:"end_timestamp"`
	}
	rows, err := list[row](ctx, c, "release", query{
		filter: fmt.Sprintf("belongs_to__application eq %d", fleet),
		fields: "id,commit,raw_version,status,is_final,created_at,end_timestamp", order: "created_at desc",
	})
	releases := make([]Release, 0, len(rows))
	for _, r := range rows {
		releases = append(releases, Release(r))
	}
	return releases, err
}

// CancelRelease stops a build that has not succeeded yet.
func (c *Client) CancelRelease(ctx context.Context, release int64) error {
	body := map[string]any{"status": "cancelled", "end_timestamp": time.Now().UnixMilli()}
	return c.call(ctx, http.MethodPatch, fmt.Sprintf("/v7/release(%d)", release),
		url.Values{"$filter": {"status ne 'success'"}}, body, nil)
}
