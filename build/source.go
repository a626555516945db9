package build

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Limits on what a push may bring.
type Limits struct {
	Compressed   int64 // bytes of the request body
	Uncompressed int64 // bytes of all files together
	Entries      int   // files, directories and links
}

// DefaultLimits are generous for real projects and still bounded.
func DefaultLimits() Limits {
	return Limits{Compressed: 2 << 30, Uncompressed: 8 << 30, Entries: 1_000_000}
}

const longestPath = 4096

// ErrTooLarge means that the compressed body is over its limit.
var ErrTooLarge = errors.New("the project is larger than this builder accepts")

// entry is one member of the pushed archive, as its header described it.
type entry struct {
	link  string // target, for symbolic links
	mode  fs.FileMode
	size  int64
	mtime time.Time
}

// Source is a pushed project: contents below dir, and what the archive said about each.
type Source struct {
	dir     string
	root    *os.Root
	entries map[string]entry // by clean slash path
}

// Spool reads a gzipped or plain tar into dir, which must be empty. Anything that would
// land or point outside of the project is refused.
func Spool(body io.Reader, dir string, lim Limits) (*Source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool folder: %w", err)
	}
	s := &Source{dir: dir, root: root, entries: map[string]entry{}}
	if err := s.read(&capped{r: body, left: lim.Compressed}, lim); err != nil {
		_ = root.Close()
		return nil, err
	}
	if err := s.checkLinks(); err != nil {
		_ = root.Close()
		return nil, err
	}
	return s, nil
}

// Flatten makes the only folder at the top of the project the project: archives that code
// hosts make have one. A project with more at its top than one folder stays as it is.
func (s *Source) Flatten() error {
	top := s.onlyFolder()
	if top == "" {
		return nil
	}
	root, err := s.root.OpenRoot(top)
	if err != nil {
		return fmt.Errorf("open the folder %s of the project: %w", top, err)
	}
	_ = s.root.Close()
	below := map[string]entry{}
	for name, e := range s.entries {
		rest, ok := strings.CutPrefix(name, top+"/")
		if !ok {
			continue
		}
		if e.mode&fs.ModeSymlink != 0 && !staysInside(path.Dir(rest), e.link) {
			err = fmt.Errorf("unpack %s: the link to %q leaves the project", rest, e.link)
		}
		below[rest] = e
	}
	s.dir, s.root, s.entries = filepath.Join(s.dir, top), root, below
	if err != nil {
		return err
	}
	return s.checkLinks()
}

// onlyFolder is the folder at the top of the project that has all the rest in it, "" when
// there is none.
func (s *Source) onlyFolder() string {
	top := ""
	for name, e := range s.entries {
		first, _, below := strings.Cut(name, "/")
		if top != "" && first != top || !below && !e.mode.IsDir() {
			return ""
		}
		top = first
	}
	return top
}

// Close ends the use of the spooled files; removing them is the owner's business.
func (s *Source) Close() error { return s.root.Close() }

func (s *Source) read(body io.Reader, lim Limits) error {
	plain, err := decompressed(body)
	if err != nil {
		return err
	}
	left := lim.Uncompressed
	archive := tar.NewReader(plain)
	for n := 0; ; n++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			// What follows the end mark is drained, so that a broken tail is noticed.
			if _, err := io.Copy(io.Discard, plain); err != nil {
				return fmt.Errorf("read the project archive: %w", err)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the project archive: %w", err)
		}
		if n >= lim.Entries {
			return fmt.Errorf("the project has more than %d files; use a .dockerignore file", lim.Entries)
		}
		if left -= header.Size; header.Size < 0 || left < 0 {
			return fmt.Errorf("the project is larger than %d MB unpacked; use a .dockerignore file", lim.Uncompressed>>20)
		}
		if err := s.add(header, archive); err != nil {
			return err
		}
	}
}

func decompressed(body io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(body, 64<<10)
	magic, err := buffered.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the project archive: %w", err)
	}
	if len(magic) < 2 {
		return nil, errors.New("the project archive is empty")
	}
	if magic[0] != 0x1f || magic[1] != 0x8b {
		return buffered, nil
	}
	zipped, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("read the project archive: %w", err)
	}
	return zipped, nil
}

func (s *Source) add(h *tar.Header, content io.Reader) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	e := entry{mode: fs.FileMode(h.Mode).Perm(), mtime: h.ModTime, size: h.Size}
	switch h.Typeflag {
	case tar.TypeDir:
		if name == "." {
			return nil
		}
		e.mode |= fs.ModeDir
		err = s.root.MkdirAll(name, 0o700)
	case tar.TypeReg:
		err = s.writeFile(name, content)
	case tar.TypeSymlink:
		e.mode |= fs.ModeSymlink
		e.link = h.Linkname
		err = s.writeLink(name, h.Linkname)
	case tar.TypeLink:
		e.size, err = s.copyFile(name, h.Linkname)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("%s: only files, folders and links may be pushed", name)
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	s.entries[name] = e
	return nil
}

// cleanName is the path of an archive member inside the project.
func cleanName(name string) (string, error) {
	if len(name) > longestPath {
		return "", fmt.Errorf("the path %.60s… is longer than %d bytes", name, longestPath)
	}
	if name == "" || strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) ||
		slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("the path %q leaves the project", name)
	}
	return path.Clean(name), nil
}

func (s *Source) writeFile(name string, content io.Reader) error {
	if err := s.makeRoom(name); err != nil {
		return err
	}
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// makeRoom prepares the folder of name and drops an earlier member of the same name:
// the last one counts.
func (s *Source) makeRoom(name string) error {
	if dir := path.Dir(name); dir != "." {
		if err := s.root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *Source) writeLink(name, target string) error {
	if !staysInside(path.Dir(name), target) {
		return fmt.Errorf("the link to %q leaves the project", target)
	}
	if err := s.makeRoom(name); err != nil {
		return err
	}
	return s.root.Symlink(target, name)
}

func (s *Source) copyFile(name, original string) (int64, error) {
	from, err := cleanName(original)
	if err != nil {
		return 0, err
	}
	e, ok := s.entries[from]
	if !ok || !e.mode.IsRegular() {
		return 0, fmt.Errorf("it is a link to %q, which is no file before it in the archive", original)
	}
	f, err := s.root.Open(from)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return e.size, s.writeFile(name, f)
}

// checkLinks follows every link on the disk: a chain of links may leave the project
// although each of them looks harmless.
func (s *Source) checkLinks() error {
	for _, name := range s.names() {
		if s.entries[name].mode&fs.ModeSymlink == 0 {
			continue
		}
		if _, err := s.root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the link %s leaves the project or goes round in circles", name)
		}
	}
	return nil
}

func (s *Source) names() []string {
	names := make([]string, 0, len(s.entries))
	for name := range s.entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// has says whether a regular file of that name was pushed.
func (s *Source) has(name string) bool {
	e, ok := s.entries[name]
	return ok && e.mode.IsRegular()
}

// readFile gives a pushed file of at most limit bytes.
func (s *Source) readFile(name string, limit int64) ([]byte, error) {
	f, err := s.root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d kB", name, limit>>10)
	}
	return data, nil
}

// inContext lists the members of one service's build context, by their path in it.
func (s *Source) inContext(dir string) map[string]string {
	in := map[string]string{}
	for name := range s.entries {
		if name == ".balena" || strings.HasPrefix(name, ".balena/") ||
			name == ".resin" || strings.HasPrefix(name, ".resin/") {
			continue
		}
		if dir == "." {
			in[name] = name
		} else if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			in[rest] = name
		}
	}
	return in
}

// writeContext writes the build context of dir as a tar. Members named in without are
// left out; extra ones are added as plain files.
func (s *Source) writeContext(w io.Writer, dir string, without []string, extra map[string][]byte) error {
	out := tar.NewWriter(w)
	members := s.inContext(dir)
	names := make([]string, 0, len(members))
	for name := range members {
		if _, replaced := extra[name]; !replaced && !slices.Contains(without, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := s.writeMember(out, name, members[name]); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
	}
	for _, name := range sortedKeys(extra) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(extra[name]))}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := out.Write(extra[name]); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
	}
	return out.Close()
}

func (s *Source) writeMember(out *tar.Writer, name, original string) error {
	e := s.entries[original]
	h := &tar.Header{Name: name, Mode: int64(e.mode.Perm()), ModTime: e.mtime, Format: tar.FormatPAX}
	switch {
	case e.mode.IsDir():
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case e.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
	default:
		h.Typeflag, h.Size = tar.TypeReg, e.size
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := s.root.Open(original)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

// staysInside says whether target, as seen from dir, is inside the project.
func staysInside(dir, target string) bool {
	if path.IsAbs(target) {
		return false
	}
	joined := path.Join(dir, target)
	return joined != ".." && !strings.HasPrefix(joined, "../")
}

// capped fails with ErrTooLarge instead of reading on.
type capped struct {
	r    io.Reader
	left int64
}

// Read counts what passes.
func (c *capped) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}
