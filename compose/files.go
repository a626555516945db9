package compose

import (
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"deckhand/state"
)

const (
	maxContent  = 1 << 20 // bytes of one secret or config
	defaultMode = 0o444   // of their files
)

// fileKind is how secrets differ from configs.
type fileKind struct {
	section string // where they are declared, and the attribute of services
	one     string // what one is called
	folder  string // where files go that name no absolute path
}

func fileKinds() []fileKind {
	return []fileKind{{"configs", "config", "/"}, {"secrets", "secret", "/run/secrets"}}
}

// declarations checks that each secret and config says where its content is
// from, in one way. Contents appear in no message.
func (b *builder) declarations() {
	for _, k := range fileKinds() {
		for _, name := range slices.Sorted(maps.Keys(b.contents[k.section])) {
			given := 0
			for _, way := range []string{"content", "environment", "file"} {
				if _, ok := b.content(k, name)[way]; ok {
					given++
				}
			}
			if given != 1 {
				b.reject(k.section+"."+name, "want exactly one of content and environment, in a compose file also file")
			}
		}
	}
}

// content is a declared secret or config; nil when there is none of the name.
func (b *builder) content(k fileKind, name string) map[string]any {
	m, _ := b.contents[k.section][name].(map[string]any)
	return m
}

// files builds the secrets and configs of a service.
func (b *builder) files(name string, taken targets, spec *state.Spec) {
	for _, k := range fileKinds() {
		list, _ := b.around[name].files[k.section].([]any)
		for i, v := range list {
			at := "services." + name + "." + k.section + "[" + strconv.Itoa(i) + "]"
			long, _ := v.(map[string]any)
			if f, ok := b.oneFile(at, name, k, long, spec); ok {
				if f.Target, ok = b.claim(taken, at, f.Target); ok {
					spec.Files = append(spec.Files, f)
				}
			}
		}
	}
	slices.SortFunc(spec.Files, func(x, y state.File) int { return strings.Compare(x.Target, y.Target) })
}

func (b *builder) oneFile(at, service string, k fileKind, long map[string]any, spec *state.Spec) (state.File, bool) {
	source, _ := long["source"].(string)
	target, _ := long["target"].(string)
	target = orElse(target, source)
	if !path.IsAbs(target) {
		target = path.Join(k.folder, target)
	}
	uid, _ := long["uid"].(int64)
	gid, _ := long["gid"].(int64)
	mode, _ := long["mode"].(int)
	if mode == defaultMode {
		mode = 0
	}
	if mode > 0o777 {
		b.reject(at+".mode", "a file has permissions up to 0777")
	}
	def := b.content(k, source)
	if def == nil {
		b.reject(at, "there is no "+k.one+" "+strconv.Quote(clip(source))+" under "+k.section)
		return state.File{}, false
	}
	content, ok := b.read(k.section+"."+source, service, def, spec)
	if len(content) > maxContent {
		b.reject(k.section+"."+source, "is larger than "+strconv.Itoa(maxContent)+" bytes")
	}
	return state.File{Target: target, UID: int(uid), GID: int(gid), Mode: uint32(mode), Content: content}, ok
}

// read gets the content for one service. In a release, variables are those of
// the service; in a compose file, those of the person who applies it.
func (b *builder) read(at, service string, def map[string]any, spec *state.Spec) ([]byte, bool) {
	if text, ok := def["content"].(string); ok {
		return []byte(text), true
	}
	if name, ok := def["environment"].(string); ok {
		value, found := spec.Environment[name]
		whose := "the service " + service
		if b.file {
			value, found = b.lookup(name)
			whose = "this environment"
		}
		if !found && !b.anyVariable {
			b.reject(at+".environment", "the variable "+clip(name)+" is not set for "+whose)
		}
		return []byte(value), found || b.anyVariable
	}
	name, ok := def["file"].(string)
	if !ok {
		return nil, false // refused where it is declared
	}
	if b.folder == "" {
		b.reject(at+".file", "the folder of the compose file is not known; use content or environment")
		return nil, false
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(b.folder, name)
	}
	content, err := readFile(name)
	if errors.Is(err, os.ErrNotExist) {
		err = errors.New("there is no file " + clip(name))
	}
	if err != nil {
		b.reject(at+".file", err.Error())
	}
	return content, err == nil
}

// fileForm is the name of a secret or config, or a mapping.
func fileForm(s *screen, at string, v any) (any, bool) {
	if m, ok := v.(map[string]any); ok {
		return m, true
	}
	name, ok := v.(string)
	if !ok || name == "" {
		return s.want(at, "a name or a mapping", v)
	}
	return map[string]any{"source": name}, true
}

// fileMode is permissions. Text is octal. So are the digits of a number that
// somebody wrote without the leading zero: 755 in decimal means nothing.
func fileMode(s *screen, at string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	const what = "permissions such as 0440"
	n, isNumber := whole(v)
	digits, _ := scalar(v)
	if _, isText := v.(string); isText || isNumber && meantOctal(n) {
		if !isText {
			s.warn(at, "taken as octal, 0"+digits+`; write "0`+digits+`"`)
		}
		octal, err := strconv.ParseInt(strings.TrimPrefix(strings.TrimSpace(digits), "0o"), 8, 32)
		if err != nil {
			return s.want(at, what, v)
		}
		n, isNumber = octal, true
	}
	if !isNumber || n < 1 || n > 0o7777 {
		return s.want(at, what, v)
	}
	return int(n), true
}

// meantOctal reports whether a decimal number reads like usual permissions.
func meantOctal(n int64) bool {
	return slices.Contains([]int64{
		400, 440, 444, 500, 550, 555, 600, 640, 644, 660, 664, 666, 700, 711, 750, 755, 770, 775, 777,
		1700, 1750, 1755, 1770, 1775, 1777,
	}, n)
}
