// Package registry is the cloud's own image store: the distribution library served
// in-process, on a directory or a bucket, behind the tokens that package auth signs.
//
// It is not a mirror or a proxy and keeps no list of its own: which images exist and
// who may touch them is decided by whoever signs the tokens.
package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/token" // the "token" access controller
	"github.com/distribution/distribution/v3/registry/handlers"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"
)

// Config says where images live and whose tokens open the door.
type Config struct {
	Storage        // blobs and manifests
	Realm   string // URL where clients fetch a token, "<api>/auth/v1/token"
	Service string // audience of the tokens: the registry's host as image names spell it
	Issuer  string // who signs the tokens, as their "iss" says
	JWKS    []byte // public keys that tokens are checked with, a JSON Web Key Set
	// Secret signs where an upload goes on: servers that share the images share it, so
	// that each can go on with an upload that another one began. Empty: one that is kept
	// in Dir.
	Secret string
	// Grace is the collector's. A use of what is in a bucket that was noted is not noted
	// again for a small part of it.
	Grace time.Duration
	Quota Quota
	Log   zerolog.Logger // the library's own lines go here, at debug level
}

// Registry answers the distribution API below /v2/.
type Registry struct {
	app     *handlers.App
	handler http.Handler
}

// New opens the image store. The library panics on a configuration it dislikes; that
// comes back as an error here.
func New(cfg Config) (r *Registry, err error) {
	if cfg.Realm == "" || cfg.Service == "" || cfg.Issuer == "" || len(cfg.JWKS) == 0 {
		return nil, fmt.Errorf("open registry: realm, service, issuer and key set must all be given")
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "images"), 0o700); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	keys := filepath.Join(cfg.Dir, "jwks.json")
	if err := replace(keys, cfg.JWKS); err != nil {
		return nil, fmt.Errorf("write the registry's key set: %w", err)
	}
	if cfg.Secret == "" {
		if cfg.Secret, err = once(filepath.Join(cfg.Dir, "upload-secret"), rand.Text()); err != nil {
			return nil, fmt.Errorf("open registry: %w", err)
		}
	}
	register()
	redirectLibraryLog(cfg.Log)
	defer func() {
		if p := recover(); p != nil {
			r, err = nil, fmt.Errorf("open registry in %s: %v", cfg.Dir, p)
		}
	}()
	place := cfg.open(min(cfg.Grace/10, mostRemembering))
	driver, err := place.driver()
	if err != nil {
		return nil, fmt.Errorf("open registry in %s: %w", place, err)
	}
	q := &quota{place: place, Quota: cfg.Quota, known: map[int64]*usage{}}
	c := libraryConfig(cfg, counting{driver, q}, keys)
	app := handlers.NewApp(context.Background(), c)
	return &Registry{app: app, handler: guard{place, q.uploads(app)}}, nil
}

// replace writes a file that another server may be reading.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// once writes a file unless it is there already, and gives what is in it: servers
// that share the folder share it. It is there whole or not at all.
func once(path, content string) (string, error) {
	if b, err := os.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		return string(b), err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		// Unlike a rename it leaves the one that is there.
		if err = os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return "", err
	}
	b, err := os.ReadFile(path)
	return string(b), err
}

// ServeHTTP answers one registry request.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.handler.ServeHTTP(w, unaliased(req))
}

// Close stops the library's background work. Requests after it are not answered usefully.
func (r *Registry) Close() error { return r.app.Shutdown() }

// mostRemembering is far below the shortest grace that programs allow.
const mostRemembering = time.Minute

// driverName is what the library knows our storage by.
const driverName = "deckhand"

// register makes the storage known to the library, once for the process.
var register = sync.OnceFunc(func() { factory.Register(driverName, given{}) })

// given hands the library the driver that is in its configuration.
type given struct{}

// Create is called by the library with its configuration.
func (given) Create(_ context.Context, parameters map[string]any) (storagedriver.StorageDriver, error) {
	driver, ok := parameters["driver"].(storagedriver.StorageDriver)
	if !ok {
		return nil, errors.New("no driver")
	}
	return driver, nil
}

func libraryConfig(cfg Config, driver storagedriver.StorageDriver, keys string) *configuration.Configuration {
	c := &configuration.Configuration{
		Version: "0.1",
		Storage: configuration.Storage{
			driverName: configuration.Parameters{"driver": driver},
			"delete":   configuration.Parameters{"enabled": true},
			"redirect": configuration.Parameters{"disable": true},
			// No cache: it would say that a blob is there which was cleared up.
			// Old uploads are the collector's.
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		},
		Auth: configuration.Auth{"token": configuration.Parameters{
			"realm":   cfg.Realm,
			"service": cfg.Service,
			"issuer":  cfg.Issuer,
			"jwks":    keys,
		}},
	}
	c.HTTP.Secret = cfg.Secret
	// Relative locations keep uploads working whatever name and scheme the client used.
	c.HTTP.RelativeURLs = true
	return c
}

// redirectLibraryLog tames the library's global logger: it would print every refused
// request to stderr in a format of its own.
func redirectLibraryLog(log zerolog.Logger) {
	logrus.SetFormatter(&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true})
	logrus.SetOutput(&lineWriter{log: log})
}

type lineWriter struct {
	mu  sync.Mutex
	log zerolog.Logger
}

// Write takes one whole entry at a time, which is how logrus writes.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.Debug().Str("from", "registry").Msg(string(bytes.TrimSpace(p)))
	return len(p), nil
}
