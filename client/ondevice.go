package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"deckhand/state"
)

// DevicePort is where devices answer in their own network.
const DevicePort = "48484"

// IsDevice reports whether a word names a device in the network rather than a fleet: an
// address or a name that ends in .local, each with a port or without.
func IsDevice(word string) bool {
	host, _ := splitAddress(word)
	_, err := netip.ParseAddr(host)
	return err == nil || strings.HasSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), ".local")
}

func splitAddress(word string) (host, port string) {
	if h, p, err := net.SplitHostPort(word); err == nil {
		return h, p
	}
	return strings.Trim(word, "[]"), ""
}

// OnNetwork is a device in local mode, as it answers in its own network.
type OnNetwork struct {
	Host string // its address
	base string
	http *http.Client
}

// DialDevice finds a device by its address or name and checks that it is in local mode.
func DialDevice(ctx context.Context, word string) (*OnNetwork, error) {
	name, port := splitAddress(word)
	host, err := lookUp(ctx, name)
	if err != nil {
		return nil, err
	}
	d := &OnNetwork{Host: host, base: "http://" + net.JoinHostPort(host, cmp.Or(port, DevicePort)), http: &http.Client{}}
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	// The version needs a key as soon as the device is not in local mode.
	if err := d.call(ctx, http.MethodGet, "/v2/version", nil, nil); err != nil {
		return nil, err
	}
	return d, nil
}

const deviceTimeout = 20 * time.Second

// DeviceInfo is what builds need to know about a device.
type DeviceInfo struct {
	Arch       string `json:"arch"`
	DeviceType string `json:"deviceType"`
}

// Info asks the device what it is.
func (d *OnNetwork) Info(ctx context.Context) (DeviceInfo, error) {
	var answer struct {
		Info DeviceInfo `json:"info"`
	}
	err := d.call(ctx, http.MethodGet, "/v2/local/device-info", nil, &answer)
	return answer.Info, err
}

// Run makes the apps, by number, the only ones that were pushed to the device. Its name
// and its configuration stay.
func (d *OnNetwork) Run(ctx context.Context, apps map[string]any) error {
	var now struct {
		State map[string]map[string]any `json:"state"`
	}
	if err := d.call(ctx, http.MethodGet, "/v2/local/target-state", nil, &now); err != nil {
		return err
	}
	if now.State["local"] == nil {
		return state.Classify(state.ClassInvalid, fmt.Errorf("%s does not answer as a device does", d.Host))
	}
	now.State["local"]["apps"] = apps
	return d.call(ctx, http.MethodPost, "/v2/local/target-state", now.State, nil)
}

// DeviceLine is a line that a device logs.
type DeviceLine struct {
	Message     string `json:"message"`
	Timestamp   int64  `json:"timestamp"` // milliseconds since 1970; 0: not known
	IsSystem    bool   `json:"isSystem"`
	IsStdErr    bool   `json:"isStdErr"`
	ServiceName string `json:"serviceName"`
}

// Logs hands over what the device logs from now on, until the context or the connection
// ends, or each gives an error.
func (d *OnNetwork) Logs(ctx context.Context, each func(DeviceLine) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+"/v2/local/logs", nil)
	if err != nil {
		return state.Classify(state.ClassInvalid, err)
	}
	resp, err := d.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	for {
		line, err := in.ReadBytes('\n')
		var l DeviceLine
		if json.Unmarshal(line, &l) == nil && (l.Message != "" || l.Timestamp != 0) {
			if err := each(l); err != nil {
				return err
			}
		}
		if err != nil {
			return state.Classify(state.ClassNetwork, fmt.Errorf("the stream of logs of %s broke: %w", d.Host, err))
		}
	}
}

// do asks, and turns refusals into errors; the body is the caller's to close.
func (d *OnNetwork) do(req *http.Request) (*http.Response, error) {
	resp, err := d.http.Do(req)
	if err != nil {
		return nil, d.unreachable(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, d.refusal(resp)
	}
	return resp, nil
}

func (d *OnNetwork) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("ask %s: %w", d.Host, err)
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, content)
	if err != nil {
		return state.Classify(state.ClassInvalid, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(into); err != nil {
		return state.Classify(state.ClassInvalid, fmt.Errorf("%s does not answer as a device does: %w", d.Host, err))
	}
	return nil
}

func (d *OnNetwork) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return state.Classify(state.ClassCancelled, err)
	}
	return state.Classify(state.ClassNetwork, fmt.Errorf("no device answers at %s; is it switched on, and in local mode? (%w)", d.base, err))
}

// refusal reads why a device says no.
func (d *OnNetwork) refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var answer struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(text, &answer) // else it is plain text
	said := cmp.Or(answer.Message, strings.TrimSpace(string(text)), resp.Status)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return state.Classify(state.ClassAuth, fmt.Errorf("%s is not in local mode; its owner switches that on in the cloud, with the configuration variable BALENA_SUPERVISOR_LOCAL_MODE = 1", d.Host))
	case http.StatusBadRequest:
		return state.Classify(state.ClassInvalid, fmt.Errorf("%s refuses: %s", d.Host, said))
	}
	return fmt.Errorf("%s answers: %s", d.Host, said)
}
