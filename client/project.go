package client

import (
	"archive/tar"
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

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"deckhand/state"
)

// Project is a folder to push: which of its files go into the archive.
type Project struct {
	dir     string
	ignored *patternmatcher.PatternMatcher
}

// OpenProject checks that a folder looks like a project and reads its .dockerignore.
func OpenProject(dir string) (*Project, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("open project: %w", err))
	}
	if !slices.ContainsFunc(names, func(e fs.DirEntry) bool { return marksProject(e.Name()) }) {
		return nil, state.Classify(state.ClassInvalid,
			fmt.Errorf("%s has no docker-compose.yml and no Dockerfile; is it the right folder?", dir))
	}
	patterns, err := ignorePatterns(dir)
	if err != nil {
		return nil, err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("read .dockerignore: %w", err))
	}
	return &Project{dir: dir, ignored: matcher}, nil
}

func marksProject(name string) bool {
	return name == "Dockerfile" || strings.HasPrefix(name, "Dockerfile.") ||
		name == "docker-compose.yml" || name == "docker-compose.yaml" || name == "package.json"
}

// ignorePatterns puts the user's patterns between ours: .git stays out unless they want
// it, and what the builder needs cannot be left out by them.
func ignorePatterns(dir string) ([]string, error) {
	patterns := []string{"**/.git"}
	f, err := os.Open(filepath.Join(dir, ".dockerignore"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("read .dockerignore: %w", err))
	default:
		defer f.Close()
		own, err := ignorefile.ReadAll(f)
		if err != nil {
			return nil, state.Classify(state.ClassInvalid, fmt.Errorf("read .dockerignore: %w", err))
		}
		patterns = append(patterns, own...)
	}
	return append(patterns, "!**/.balena", "!**/.resin", "!**/Dockerfile", "!**/Dockerfile.*", "!**/docker-compose.yml"), nil
}

// Pack writes the project as a gzipped tar. Links are followed; only regular files are
// stored. packed, when not nil, hears of each file.
func (p *Project) Pack(w io.Writer, packed func(files int, bytes int64)) error {
	zipped, err := gzip.NewWriterLevel(w, 6)
	if err != nil {
		return err
	}
	k := &packer{project: p, out: tar.NewWriter(zipped), packed: packed}
	if err := k.folder(".", nil); err != nil {
		return err
	}
	if err := k.out.Close(); err != nil {
		return err
	}
	return zipped.Close()
}

type packer struct {
	project *Project
	out     *tar.Writer
	packed  func(files int, bytes int64)
	files   int
	bytes   int64
}

// folder packs one folder. above are the real paths of the folders around it: a link back
// to one of them would never end.
func (k *packer) folder(rel string, above []string) error {
	full := filepath.Join(k.project.dir, filepath.FromSlash(rel))
	real, err := filepath.EvalSymlinks(full)
	if err != nil {
		return fmt.Errorf("pack %s: %w", rel, err)
	}
	if slices.Contains(above, real) {
		return fmt.Errorf("pack %s: it is a link to a folder around it", rel)
	}
	names, err := os.ReadDir(full)
	if err != nil {
		return fmt.Errorf("pack %s: %w", rel, err)
	}
	above = append(slices.Clone(above), real)
	for _, n := range names {
		if err := k.member(path.Join(rel, n.Name()), above); err != nil {
			return err
		}
	}
	return nil
}

func (k *packer) member(rel string, above []string) error {
	info, err := os.Stat(filepath.Join(k.project.dir, filepath.FromSlash(rel)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a dangling link, or gone since
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", rel, err)
	}
	ignored, err := k.project.ignored.MatchesOrParentMatches(rel)
	if err != nil {
		return fmt.Errorf("pack %s: %w", rel, err)
	}
	switch {
	case info.IsDir():
		// An ignored folder may hold files that are wanted all the same.
		if ignored && path.Base(rel) == ".git" {
			return nil
		}
		return k.folder(rel, above)
	case ignored || !info.Mode().IsRegular():
		return nil
	}
	return k.file(rel, info)
}

func (k *packer) file(rel string, info fs.FileInfo) error {
	f, err := os.Open(filepath.Join(k.project.dir, filepath.FromSlash(rel)))
	if err != nil {
		return fmt.Errorf("pack %s: %w", rel, err)
	}
	defer f.Close()
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: rel, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime(),
	}
	if err := k.out.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %s: %w", rel, err)
	}
	n, err := io.Copy(k.out, io.LimitReader(f, info.Size()))
	if err == nil && n < info.Size() {
		err = errors.New("the file became shorter while it was packed")
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", rel, err)
	}
	k.files++
	k.bytes += n
	if k.packed != nil {
		k.packed(k.files, k.bytes)
	}
	return nil
}
