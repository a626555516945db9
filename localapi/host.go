package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"deckhand/state"
)

// Host is the configuration of the operating system's network.
type Host interface {
	// HostConfig is what is set now.
	HostConfig() (HostConfig, error)
	// SetHostConfig changes some of it. It takes the update locks of every app
	// first, whatever they say with force. Class invalid: nothing was changed,
	// the request is wrong; class locked: an update lock says no.
	SetHostConfig(ctx context.Context, c HostChange, force bool) error
}

// HostConfig is the name of the host and its proxy.
type HostConfig struct {
	Hostname string
	Proxy    *Proxy // nil: none
}

// Proxy is what everything goes through.
type Proxy struct {
	Options []ProxyOption
	DNS     string // server for names behind the proxy, ADDRESS:PORT; empty: they do not go through it
	NoProxy []string
}

// ProxyOption is type, ip, port, login, password or another option.
type ProxyOption struct{ Key, Value string }

// HostChange is what a request asks for. Nil: it stays.
type HostChange struct {
	Hostname *string // empty: the one that follows from the UUID
	Proxy    *ProxyChange
}

// ProxyChange is laid over the proxy that is set.
type ProxyChange struct {
	Remove  bool          // there shall be no proxy
	Options []ProxyOption // as they were sent, known or not
	DNS     *string       // empty: off
	NoProxy *[]string     // empty: none
}

const (
	hostLimit   = 1 << 20 // bytes of a body
	defaultDNS  = "8.8.8.8:53"
	hostIsWrong = "Could not parse host config input to a valid format:"
)

// hostRoutes are about the host. Every key opens them.
func (a *api) hostRoutes() []route {
	return []route{
		{"GET", "/v1/device/host-config", true, 0, a.hostConfig},
		{"PATCH", "/v1/device/host-config", true, hostLimit, a.setHostConfig},
	}
}

func (a *api) hostConfig(w http.ResponseWriter, _ *http.Request, _ []byte) {
	c, err := a.c.Host.HostConfig()
	if err != nil {
		problemOf(w, err)
		return
	}
	network := map[string]any{"hostname": c.Hostname}
	if c.Proxy != nil {
		network["proxy"] = c.Proxy.document()
	}
	answer(w, http.StatusOK, map[string]any{"network": network})
}

func (p Proxy) document() map[string]any {
	out := map[string]any{}
	for _, o := range p.Options {
		out[o.Key] = o.Value
	}
	if port, err := strconv.Atoi(p.option("port")); err == nil && strconv.Itoa(port) == p.option("port") {
		out["port"] = port
	}
	if p.DNS != "" {
		out["dns"] = p.DNS
	}
	if len(p.NoProxy) > 0 {
		out["noProxy"] = p.NoProxy
	}
	return out
}

func (p Proxy) option(key string) string {
	for _, o := range p.Options {
		if o.Key == key {
			return o.Value
		}
	}
	return ""
}

func (a *api) setHostConfig(w http.ResponseWriter, r *http.Request, body []byte) {
	f, err := readForm(r, body)
	if err != nil {
		problemOf(w, err)
		return
	}
	c, err := readHostChange(f["network"])
	if err == nil {
		err = a.c.Host.SetHostConfig(r.Context(), c, f.truthy("force"))
	} else {
		err = state.Classify(state.ClassInvalid, err)
	}
	switch {
	case err == nil:
		text(w, http.StatusOK, "OK")
	case state.ClassOf(err) == state.ClassInvalid:
		plain(w, http.StatusBadRequest, hostIsWrong+" "+reason(err)) // plain: it quotes what was sent
	default:
		problemOf(w, err)
	}
}

// readHostChange reads the field network.
func readHostChange(raw json.RawMessage) (c HostChange, err error) {
	var fields struct {
		Hostname json.RawMessage `json:"hostname"`
		Proxy    json.RawMessage `json:"proxy"`
	}
	if len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &fields) != nil {
		return c, errors.New("network: it must be an object with hostname, proxy or both")
	}
	if len(fields.Hostname) > 0 {
		if json.Unmarshal(fields.Hostname, &c.Hostname) != nil || c.Hostname == nil {
			return c, errors.New("network.hostname: it must be a text")
		}
	}
	if len(fields.Proxy) > 0 {
		c.Proxy, err = readProxyChange(fields.Proxy)
	}
	return c, err
}

// readProxyChange keeps the order of the options: that of the file.
func readProxyChange(raw json.RawMessage) (*ProxyChange, error) {
	if raw[0] != '{' {
		return nil, errors.New("network.proxy: it must be an object")
	}
	c := &ProxyChange{Remove: true}
	d := json.NewDecoder(bytes.NewReader(raw))
	_, _ = d.Token() // the brace
	for d.More() {
		c.Remove = false
		name, err := d.Token()
		if err != nil {
			return nil, errors.New("network.proxy: it cannot be read")
		}
		key, _ := name.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("network.proxy: it cannot be read")
		}
		if err := c.read(key, value); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *ProxyChange) read(key string, raw json.RawMessage) error {
	switch key {
	case "noProxy":
		var list []string
		if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
			return errors.New("network.proxy.noProxy: it must be a list of texts")
		}
		c.NoProxy = &list
	case "dns":
		dns, err := readDNS(raw)
		c.DNS = &dns
		return err
	default:
		value, _, ok := form{key: raw}.scalar(key)
		if !ok {
			return fmt.Errorf("network.proxy.%.40s: it must be a text or a number", key)
		}
		c.Options = append(c.Options, ProxyOption{key, value})
	}
	return nil
}

func readDNS(raw json.RawMessage) (string, error) {
	var on bool
	var server string
	switch {
	case string(raw) == "null":
	case json.Unmarshal(raw, &on) == nil && !on:
		return "", nil
	case on:
		return defaultDNS, nil
	case json.Unmarshal(raw, &server) == nil && server != "":
		return server, nil
	}
	return "", errors.New("network.proxy.dns: it must be true, false or ADDRESS:PORT")
}
