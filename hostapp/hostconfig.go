package hostapp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The files of the host's proxy, on the boot partition. The host's own services
// watch them.
const (
	proxyFolder  = "system-proxy"
	redsocksFile = "redsocks.conf"
	noProxyFile  = "no_proxy"
)

// HostFiles are the files that say how the host is called and through which proxy
// it reaches the network.
type HostFiles struct {
	Root string // the host's root folder; empty: "/"
	Boot string // the boot partition: the folder of config.json
}

// Hostname is the host's name.
func (h HostFiles) Hostname() (string, error) {
	root := h.Root
	if root == "" {
		root = "/"
	}
	b, err := readSmall(filepath.Join(root, "etc/hostname"))
	if err == nil && b == nil {
		return os.Hostname()
	}
	return oneLine(string(b)), err
}

// Proxy is the content of redsocks.conf; there is false when there is none. bad is
// that of ParseRedsocks.
func (h HostFiles) Proxy() (r Redsocks, bad []string, there bool, err error) {
	b, err := readSmall(h.path(redsocksFile))
	if err != nil || b == nil {
		return Redsocks{}, nil, false, err
	}
	r, bad = ParseRedsocks(string(b))
	return r, bad, true, nil
}

// NoProxy lists the addresses that bypass the proxy.
func (h HostFiles) NoProxy() ([]string, error) {
	b, err := readSmall(h.path(noProxyFile))
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out, err
}

// SetProxy writes redsocks.conf in one step; nil removes it.
func (h HostFiles) SetProxy(r *Redsocks) error {
	if r == nil {
		return h.set(redsocksFile, "")
	}
	return h.set(redsocksFile, r.String())
}

// SetNoProxy writes the addresses that bypass the proxy in one step; none removes
// the file.
func (h HostFiles) SetNoProxy(addresses []string) error {
	return h.set(noProxyFile, strings.Join(addresses, "\n"))
}

func (h HostFiles) path(name string) string { return filepath.Join(h.Boot, proxyFolder, name) }

// set makes a file's content this; empty removes it. What is there already is not
// written: the host would restart its proxy for nothing.
func (h HostFiles) set(name, content string) error {
	path := h.path(name)
	if content == "" {
		err := os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", path, err)
		}
		return nil
	}
	if b, err := readSmall(path); err == nil && string(b) == content {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := replaceFile(path, content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replaceFile swaps a file's content: after a power cut the old or the new one is
// there. The host's proxy reads it under a user of its own.
func replaceFile(path, content string) (err error) {
	temp := path + ".deckhand-new" // one name: crashes do not pile up files
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = dir.Sync()
	if e := dir.Close(); err == nil {
		err = e
	}
	if errors.Is(err, syscall.EINVAL) {
		return nil // some file systems cannot sync a folder
	}
	return err
}
