package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"deckhand/config"
	"deckhand/hostapp"
	"deckhand/localapi"
	"deckhand/state"
)

func (s *Supervisor) hostFiles() hostapp.HostFiles {
	return hostapp.HostFiles{Root: s.cfg.HostRoot, Boot: filepath.Dir(s.cfg.ConfigFile)}
}

// HostConfig implements localapi.Host.
func (e edge) HostConfig() (localapi.HostConfig, error) {
	files := e.s.hostFiles()
	name, err := files.Hostname()
	if err != nil {
		return localapi.HostConfig{}, err
	}
	c := localapi.HostConfig{Hostname: name}
	r, bad, there, err := files.Proxy()
	if err != nil || !there {
		return c, err
	}
	e.s.tellBadProxy(bad)
	c.Proxy = &localapi.Proxy{DNS: r.DNS}
	for _, o := range r.Options {
		c.Proxy.Options = append(c.Proxy.Options, localapi.ProxyOption(o))
	}
	c.Proxy.NoProxy, err = files.NoProxy()
	return c, err
}

func (s *Supervisor) tellBadProxy(bad []string) {
	if len(bad) > 0 {
		s.cfg.Log.Warn().Strs("at", bad).Msg("some of redsocks.conf on the boot partition cannot be read, and is left out")
	}
}

// SetHostConfig implements localapi.Host. A change may restart what containers
// need, and the engine, so that all of them are asked before. config.json is
// written last: the host may restart us for it.
func (e edge) SetHostConfig(ctx context.Context, c localapi.HostChange, force bool) error {
	s := e.s
	s.power.mu.Lock() // one after the other, and not while the device goes down
	defer s.power.mu.Unlock()
	change, err := s.planHostChange(c)
	if err != nil {
		return state.Classify(state.ClassInvalid, err)
	}
	free, err := s.lockAll(ctx, force)
	if err != nil {
		return err
	}
	defer free(context.WithoutCancel(ctx))
	return change()
}

// planHostChange checks a change whole before anything is written.
func (s *Supervisor) planHostChange(c localapi.HostChange) (change func() error, err error) {
	file := s.configFile()
	if c.Hostname != nil {
		if file == nil {
			return nil, state.Classify(state.ClassEngine, errors.New("config.json cannot be used, so the name of the host cannot be set"))
		}
		if err := checkHostname(*c.Hostname); err != nil {
			return nil, err
		}
	}
	if c.Proxy != nil {
		if err := checkNoProxy(c.Proxy.NoProxy); err != nil {
			return nil, err
		}
	}
	write, err := s.planProxy(c.Proxy)
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := write(); err != nil {
			return err
		}
		if c.Hostname == nil {
			return nil
		}
		name := *c.Hostname
		return file.Update(func(v *config.Values) {
			v.Hostname = name
			if name == "" {
				v.Hostname = v.UUID[:min(7, len(v.UUID))]
			}
		})
	}, nil
}

// planProxy lays a change over the proxy that is set. Addresses that bypass the
// proxy are a file of their own: without other changes the proxy is not touched.
func (s *Supervisor) planProxy(c *localapi.ProxyChange) (write func() error, err error) {
	files := s.hostFiles()
	switch {
	case c == nil:
		return func() error { return nil }, nil
	case c.Remove:
		return func() error { return files.SetProxy(nil) }, nil
	}
	noProxy := func() error {
		if c.NoProxy == nil {
			return nil
		}
		return files.SetNoProxy(*c.NoProxy)
	}
	if len(c.Options) == 0 && c.DNS == nil {
		return noProxy, nil
	}
	r, bad, _, err := files.Proxy()
	if err != nil {
		return nil, state.Classify(state.ClassEngine, err)
	}
	s.tellBadProxy(bad)
	if r, err = s.overProxy(r, *c); err != nil {
		return nil, err
	}
	return func() error {
		if err := noProxy(); err != nil {
			return err
		}
		return files.SetProxy(&r)
	}, nil
}

// overProxy checks in two stages, as balena does: what is not as it should be is
// said in the log, and what would leave the device without a network is refused.
func (s *Supervisor) overProxy(r hostapp.Redsocks, c localapi.ProxyChange) (hostapp.Redsocks, error) {
	for _, o := range c.Options {
		if o.Key == "local_ip" || o.Key == "local_port" || !hostapp.KnowsProxyOption(o.Key) {
			s.cfg.Log.Warn().Str("option", clipText(o.Key)).Msg("the host's proxy knows no such option; it is left out")
			continue
		}
		if err := hostapp.CheckProxyOption(o.Key, o.Value); err != nil {
			return r, fmt.Errorf("network.proxy: %w", err)
		}
		if !usualProxyValue(o.Key, o.Value) {
			s.cfg.Log.Warn().Str("option", o.Key).Msg("an option of the host's proxy has an unusual value; it is used as it is")
		}
		r = r.With(o.Key, o.Value)
	}
	if c.DNS != nil {
		if *c.DNS != "" {
			if err := hostapp.CheckDNS(*c.DNS); err != nil {
				return r, fmt.Errorf("network.proxy.dns: %w", err)
			}
		}
		r.DNS = *c.DNS
	}
	for _, key := range []string{"type", "ip", "port"} {
		if r.Get(key) == "" {
			return r, fmt.Errorf("network.proxy.%s: missing; with such a proxy the device would be offline", key)
		}
	}
	return r, nil
}

var decimal = regexp.MustCompile(`^[0-9]{1,5}$`)

// usualProxyValue is the strict stage.
func usualProxyValue(key, value string) bool {
	switch key {
	case "type":
		switch value {
		case "socks4", "socks5", "http-connect", "http-relay":
			return true
		}
		return false
	case "port":
		return decimal.MatchString(value)
	}
	return true
}

func checkHostname(name string) error {
	if len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("network.hostname: it must be at most 255 bytes without spaces")
	}
	return nil
}

func checkNoProxy(list *[]string) error {
	if list == nil {
		return nil
	}
	for i, x := range *list {
		if x == "" || len(x) > 255 || strings.ContainsFunc(x, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return fmt.Errorf("network.proxy.noProxy[%d]: it must be one address", i)
		}
	}
	return nil
}

// clipText bounds what others sent, for the log.
func clipText(s string) string {
	return strings.ToValidUTF8(s[:min(40, len(s))], "")
}
