package state

import "strings"

// Reference is an image name in canonical form: repository@digest when there is
// a digest (a tag beside it is dropped), else repository:tag with "latest" as
// the default. No registry is invented; the engine's default registry is left
// out, as the engine does.
func Reference(name string) string {
	for _, hub := range []string{"docker.io/", "index.docker.io/"} {
		if rest, ok := strings.CutPrefix(name, hub); ok {
			name = strings.TrimPrefix(rest, "library/")
		}
	}
	if repo, digest, ok := strings.Cut(name, "@"); ok {
		return repository(repo) + "@" + digest
	}
	if repo := repository(name); repo == name {
		return name + ":latest"
	}
	return name
}

// repository strips a tag. A colon before the last slash belongs to a port.
func repository(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

// Digest is the digest part of a reference, or "".
func Digest(ref string) string {
	_, d, _ := strings.Cut(ref, "@")
	return d
}

// Repository is a reference without tag and digest.
func Repository(ref string) string {
	repo, _, _ := strings.Cut(ref, "@")
	return repository(repo)
}

// Registry is the host part of a reference, or "" when the name has none. The
// first path component is a host if it is localhost or holds a dot or a colon.
func Registry(ref string) string {
	host, _, ok := strings.Cut(Repository(ref), "/")
	if ok && (host == "localhost" || strings.ContainsAny(host, ".:")) {
		return host
	}
	return ""
}

// SameImage reports whether two canonical references lead to the same image:
// the same name, or the same digest in any repository.
func SameImage(a, b string) bool {
	return a == b || (Digest(a) != "" && Digest(a) == Digest(b))
}

// Leads reports whether ref leads to the image.
func (i Image) Leads(ref string) bool {
	for _, r := range i.Refs {
		if SameImage(r, ref) {
			return true
		}
	}
	return false
}
