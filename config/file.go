package config

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"deckhand/state"
)

// maxSize is far beyond any real config.json, in bytes.
const maxSize = 1 << 20

// File is a config.json that could be read. Its methods may be called from
// several goroutines.
type File struct {
	path string

	mu     sync.Mutex
	values Values
}

// Load reads a config.json. Errors are of class invalid and name the file, the
// key and the reason; all wrong keys are listed at once.
func Load(path string) (*File, error) {
	f := &File{path: path}
	doc, err := read(path)
	if err != nil {
		return nil, err
	}
	f.values, err = doc.values(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Path is where the file is.
func (f *File) Path() string { return f.path }

// Values are the values as last read or written.
func (f *File) Values() Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.values
}

// Update reads the file again, lets change edit the values, and writes the keys
// that differ. A value set to its zero is removed from the file. When it fails
// the file is as it was.
func (f *File) Update(change func(*Values)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	doc, err := read(f.path)
	if err != nil {
		return err
	}
	before, err := doc.values(f.path)
	if err != nil {
		return err
	}
	after := before
	change(&after)
	if after == before {
		f.values = before
		return nil
	}
	doc.apply(before, after)
	checked, err := doc.values(f.path)
	if err != nil {
		return fmt.Errorf("not written: %w", err)
	}
	if err := replace(f.path, doc.encode()); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	f.values = checked
	return nil
}

// EnsureIdentity gives the device a UUID and, when it belongs to a cloud, a key
// of its own, unless the file has them. It writes before it returns, so that an
// identity is on the disk before anybody else hears of it.
func (f *File) EnsureIdentity() (Values, error) {
	v := f.Values()
	if v.UUID != "" && (v.DeviceAPIKey != "" || !v.Managed()) {
		return v, nil
	}
	err := f.Update(func(v *Values) {
		if v.UUID == "" {
			v.UUID = NewID()
		}
		if v.DeviceAPIKey == "" && v.Managed() {
			v.DeviceAPIKey = NewID()
		}
	})
	return f.Values(), err
}

// NewID makes 32 random hexadecimal digits, for a UUID or a key.
func NewID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return hex.EncodeToString(b)
}

// document is the file as it was written: keys in their order, values raw.
type document struct {
	entries []entry
}

type entry struct {
	key string
	raw json.RawMessage
}

func read(path string) (*document, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("read %s: %w", path, err))
	}
	doc, err := parse(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))) // some editors write a byte order mark
	if err != nil {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("%s: %w", path, err))
	}
	return doc, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path) // before the open: a pipe would wait for ever
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w; give the path of the device's config.json with --config", err)
		}
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSize)
	}
	return b, nil
}

func parse(b []byte) (*document, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, errors.New("the file is empty; it must hold a JSON object")
	}
	if !json.Valid(b) {
		var v any
		return nil, locate(b, json.Unmarshal(b, &v))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("it holds %s; it must hold a JSON object", show(bytes.TrimSpace(b)))
	}
	doc := &document{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, locate(b, err)
		}
		name, _ := t.(string)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, locate(b, err)
		}
		doc.set(name, raw) // of a repeated key the last one counts
	}
	return doc, nil
}

// locate adds line and column to an error of the JSON decoder.
func locate(b []byte, err error) error {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	at := max(0, min(int(syntax.Offset), len(b)))
	line := 1 + bytes.Count(b[:at], []byte("\n"))
	column := at - bytes.LastIndexByte(b[:at], '\n') - 1
	if at >= len(b) && strings.Contains(err.Error(), "unexpected end") {
		return fmt.Errorf("it ends in the middle (line %d, column %d): %w", line, column, err)
	}
	return fmt.Errorf("it is not JSON (line %d, column %d): %w", line, column, err)
}

func (d *document) set(name string, raw json.RawMessage) {
	for i := range d.entries {
		if d.entries[i].key == name {
			d.entries[i].raw = raw
			return
		}
	}
	d.entries = append(d.entries, entry{name, raw})
}

func (d *document) get(name string) (json.RawMessage, bool) {
	for _, e := range d.entries {
		if e.key == name {
			return e.raw, true
		}
	}
	return nil, false
}

func (d *document) remove(name string) {
	for i, e := range d.entries {
		if e.key == name {
			d.entries = append(d.entries[:i], d.entries[i+1:]...)
			return
		}
	}
}

// values decodes every key of the table.
func (d *document) values(path string) (Values, error) {
	v := defaults()
	var problems []error
	for _, k := range keys() {
		raw, ok := d.get(k.name)
		if !ok {
			continue
		}
		if err := k.decode(&v, raw); err != nil {
			if k.name == "apiKey" || k.name == "deviceApiKey" {
				err = errors.New("the key must be one text of printable ASCII without spaces")
			}
			problems = append(problems, fmt.Errorf("%s: %s: %w", path, k.name, err))
		}
	}
	return v, state.Classify(state.ClassInvalid, errors.Join(problems...))
}

// apply writes the keys whose values differ.
func (d *document) apply(before, after Values) {
	for _, k := range keys() {
		was, had := k.encode(&before)
		now, has := k.encode(&after)
		switch {
		case had == has && bytes.Equal(was, now):
		case has:
			d.set(k.name, now)
		default:
			d.remove(k.name)
		}
	}
}

// encode writes one key on each line, as people edit it.
func (d *document) encode() []byte {
	var b bytes.Buffer
	b.WriteString("{")
	for i, e := range d.entries {
		if i > 0 {
			b.WriteString(",")
		}
		name, err := json.Marshal(e.key)
		if err != nil {
			continue // a text always encodes
		}
		fmt.Fprintf(&b, "\n  %s: %s", name, e.raw)
	}
	b.WriteString("\n}\n")
	return b.Bytes()
}

// replace swaps the content of a file in one step: after a power cut either the
// old or the new content is there.
func replace(path string, content []byte) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link stays a link
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	temp := path + ".deckhand-new" // one name: crashes do not pile up files
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && err == nil {
		_ = f.Chown(int(owner.Uid), int(owner.Gid)) // not possible on FAT, nor needed there
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err = os.Rename(temp, path); err != nil {
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("%w; when the file is mounted into a container, mount its folder instead", err)
		}
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a rename durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	if errors.Is(err, syscall.EINVAL) {
		return nil // some file systems cannot sync a folder
	}
	return err
}
