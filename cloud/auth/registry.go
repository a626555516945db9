package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"deckhand/cloud/access"
	"deckhand/cloud/model"
)

// Access is one right in a registry token.
type Access struct {
	Type    string   `json:"type"` // repository
	Name    string   `json:"name"`
	Actions []string `json:"actions"` // pull, push
	// Alias is the name asked for, where the repository has another.
	Alias string `json:"alias,omitempty"`
}

// registryTokenLife is long because a push of many images may begin late.
const registryTokenLife = 4 * time.Hour

type registryClaims struct {
	Access []Access `json:"access"`
	jwt.RegisteredClaims
}

// SignRegistryToken is a bearer token for the embedded registry, good for
// four hours. The subject is for its logs. Whether the subject may have the
// access is not checked: see RegistryAccess.
func (a *Auth) SignRegistryToken(subject string, access []Access) (string, error) {
	if access == nil {
		access = []Access{}
	}
	// The registry compares with its own clock, so this is not the database's.
	now := time.Now()
	claims := registryClaims{Access: access, RegisteredClaims: jwt.RegisteredClaims{
		ID: newUUID(), Issuer: a.issuer, Subject: subject, Audience: jwt.ClaimStrings{a.service},
		NotBefore: jwt.NewNumericDate(now.Add(-10 * time.Second)), IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(registryTokenLife))}}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = a.kid
	signed, err := token.SignedString(a.registry)
	if err != nil {
		return "", fmt.Errorf("sign registry token: %w", err)
	}
	return signed, nil
}

// newUUID is a random UUID, version 4.
func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails since Go 1.24
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// RegistryIssuer is the iss claim of the tokens.
func (a *Auth) RegistryIssuer() string { return a.issuer }

// RegistryService is the aud claim of the tokens and the service name of the registry.
func (a *Auth) RegistryService() string { return a.service }

// RegistryCertFile is the path of the PEM certificate of the key that signs
// registry tokens (the registry's rootcertbundle).
func (a *Auth) RegistryCertFile() string { return a.files.cert }

// RegistryJWKSFile is the path of the JSON web key set of that key.
func (a *Auth) RegistryJWKSFile() string { return a.files.jwks }

// RegistryJWKS is the JSON web key set itself.
func (a *Auth) RegistryJWKS() []byte { return jwks(&a.registry.PublicKey) }

// RegistryPublicKey is the key that verifies registry tokens.
func (a *Auth) RegistryPublicKey() *ecdsa.PublicKey { return &a.registry.PublicKey }

var (
	repositoryRule = regexp.MustCompile(`^(v2/[0-9a-f]{32})(-[0-9]{1,4})?$`)
	// aliasRule is "<organization>/<fleet>[/<version>]".
	aliasRule = regexp.MustCompile(`^([a-z0-9_-]+/[a-z0-9_-]+)(?:/([A-Za-z0-9_.-]+))?$`)
	// publicRule is what old devices pull without being asked who they are.
	publicRule = regexp.MustCompile(`^resin/(resinos|[a-z0-9-]+-supervisor)$`)
)

// targetWords ask for the release that the fleet's devices should run.
func targetWords() []string { return []string{"", "latest", "current", "default", "pinned"} }

// RegistryAccess reduces what an actor asks for to what it may do: it pulls the
// images that it may read, and pushes those that it may update.
// "v2/<hash>-<n>" (build cache) has the rights of "v2/<hash>".
func (a *Auth) RegistryAccess(ctx context.Context, actor Actor, asked []Access) ([]Access, error) {
	by := actor.Caller()
	pull, push, err := a.repositories(ctx, by, asked)
	if err != nil {
		return nil, fmt.Errorf("check access to images: %w", err)
	}
	granted := make([]Access, 0, len(asked))
	for _, want := range asked {
		g := Access{Type: want.Type, Name: want.Name, Actions: []string{}}
		allowed := map[string]bool{}
		switch m := repositoryRule.FindStringSubmatch(want.Name); {
		case m != nil:
			allowed = map[string]bool{"pull": pull[m[1]], "push": push[m[1]]}
		case publicRule.MatchString(want.Name):
			allowed = map[string]bool{"pull": true}
		default:
			repository, err := a.aliased(ctx, by, want.Name)
			if err != nil {
				return nil, fmt.Errorf("check access to %s: %w", want.Name, err)
			}
			if repository != "" {
				g.Name, g.Alias, allowed = repository, want.Name, map[string]bool{"pull": true}
			}
		}
		for _, action := range want.Actions {
			if allowed[action] && !slices.Contains(g.Actions, action) {
				g.Actions = append(g.Actions, action)
			}
		}
		granted = append(granted, g)
	}
	return granted, nil
}

// repositories says for all repositories at once which may be pulled and pushed.
func (a *Auth) repositories(ctx context.Context, by access.Caller, asked []Access) (pull, push map[string]bool, err error) {
	var names []string
	pushes := false
	for _, want := range asked {
		if m := repositoryRule.FindStringSubmatch(want.Name); m != nil {
			names, pushes = append(names, m[1]), pushes || slices.Contains(want.Actions, "push")
		}
	}
	if pull, err = a.db.Repositories(ctx, by, access.Read, names); err != nil || !pushes {
		return pull, nil, err
	}
	push, err = a.db.Repositories(ctx, by, access.Update, names)
	return pull, push, err
}

// aliased is the repository that a name of a fleet or release stands for, ""
// when there is none that the caller may pull.
func (a *Auth) aliased(ctx context.Context, by access.Caller, name string) (string, error) {
	m := aliasRule.FindStringSubmatch(name)
	if m == nil {
		return "", nil
	}
	version := m[2]
	if slices.Contains(targetWords(), version) {
		version = ""
	}
	repository, err := a.db.RepositoryNamed(ctx, by, m[1], version)
	if errors.Is(err, model.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	may, err := a.db.Repositories(ctx, by, access.Read, []string{repository})
	if err != nil || !may[repository] {
		return "", err
	}
	return repository, nil
}

type registryFiles struct{ key, cert, jwks string }

// Shared is a secret for one purpose that all servers on one database have: it is made
// of the key that signs sessions.
func (a *Auth) Shared(purpose string) string {
	mac := hmac.New(sha256.New, a.sessionKey)
	mac.Write([]byte("deckhand shared secret: " + purpose))
	return hex.EncodeToString(mac.Sum(nil))
}

func (a *Auth) loadKeys(dir string) error {
	if dir == "" {
		return errors.New("no folder given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	a.files = registryFiles{
		key:  filepath.Join(dir, "registry-token.key"),
		cert: filepath.Join(dir, "registry-token.crt"),
		jwks: filepath.Join(dir, "registry-token.jwks"),
	}
	session, err := a.readOrMake(filepath.Join(dir, "session.key"), newSessionKey, afterSession)
	if err == nil && len(session) < 32 {
		err = damagedKey(a.keyPlace(filepath.Join(dir, "session.key")), afterSession, errors.New("too short"))
	}
	if err != nil {
		return err
	}
	a.sessionKey = session
	encoded, err := a.readOrMake(a.files.key, newRegistryKey, afterRegistry)
	if err != nil {
		return err
	}
	if a.registry, err = parseRegistryKey(encoded); err != nil {
		return damagedKey(a.keyPlace(a.files.key), afterRegistry, err)
	}
	a.kid = thumbprint(&a.registry.PublicKey)
	// Derived from the key each time, so they cannot disagree with it.
	cert, err := certificate(a.registry)
	if err != nil {
		return err
	}
	if err := writeFile(a.files.cert, cert); err != nil {
		return err
	}
	return writeFile(a.files.jwks, a.RegistryJWKS())
}

func damagedKey(path, after string, err error) error {
	return fmt.Errorf("read %s: %w; restore it from a backup or remove it and start again (%s)", path, err, after)
}

// What happens when a key is lost.
const (
	afterSession  = "everybody must log in again"
	afterRegistry = "devices ask for new registry tokens by themselves"
)

// keyPlace is where a key is kept, for people.
func (a *Auth) keyPlace(path string) string {
	if a.db.Shared() {
		return "the row " + filepath.Base(path) + " of the table signing_key"
	}
	return path
}

// readOrMake reads a key, or makes it at the first start: servers that share a
// database sign with the same keys, which are in it.
func (a *Auth) readOrMake(path string, make func() ([]byte, error), after string) ([]byte, error) {
	if a.db.Shared() {
		return a.db.SigningKey(context.Background(), filepath.Base(path), make)
	}
	return readOrMakeFile(path, make, after)
}

func readOrMakeFile(path string, make func() ([]byte, error), after string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		return b, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, damagedKey(path, after, err)
	}
	if b, err = make(); err != nil {
		return nil, err
	}
	return b, writeFile(path, b)
}

// writeFile writes beside and renames: a crash leaves the old file or the new.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

func newSessionKey() ([]byte, error) { return []byte(NewSecret(48)), nil }

func newRegistryKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseRegistryKey(encoded []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(encoded)
	if block == nil {
		return nil, errors.New("not a PEM file")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not a P-256 key")
	}
	return key, nil
}

func certificate(key *ecdsa.PrivateKey) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "deckhand registry tokens"},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), // devices and clouds with a wrong clock
		NotAfter:     time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// coordinates are x and y of the point in base64url, 32 bytes each.
func coordinates(key *ecdsa.PublicKey) (x, y string) {
	point, err := key.Bytes() // 4 || x || y
	if err != nil || len(point) != 65 {
		return "", ""
	}
	return base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:])
}

// thumbprint is RFC 7638: SHA-256 over the required members in this order.
func thumbprint(key *ecdsa.PublicKey) string {
	x, y := coordinates(key)
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func jwks(key *ecdsa.PublicKey) []byte {
	x, y := coordinates(key)
	return fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-256","x":%q,"y":%q,"kid":%q,"use":"sig","alg":"ES256"}]}`, x, y, thumbprint(key))
}
