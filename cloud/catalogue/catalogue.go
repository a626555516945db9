package catalogue

import (
	"net/http"
	"strings"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// Config is what the catalogue needs to know.
type Config struct {
	DB   *model.DB
	Auth *auth.Auth
	// URL is how devices and owners reach the API.
	URL string
	// RegistryHost is the host[:port] in image names.
	RegistryHost string
	// CA is the PEM certificate that devices need to trust the API; empty: they
	// trust it already.
	CA []byte
}

// Catalogue serves the routes.
type Catalogue struct{ cfg Config }

// New makes the routes.
func New(cfg Config) *Catalogue { return &Catalogue{cfg} }

// Routes adds the routes to the mux.
func (c *Catalogue) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /config", c.config)
	mux.HandleFunc("GET /config/vars", variables)
	mux.HandleFunc("GET /os/v1/config", osConfig)
	mux.HandleFunc("GET /os/v1/config/{$}", osConfig)
	mux.HandleFunc("GET /device-types/v1", c.deviceTypes)
	mux.HandleFunc("GET /device-types/v1/{slug}", c.deviceType)
	mux.HandleFunc("GET /device-types/v1/{slug}/images", c.images)
	mux.HandleFunc("GET /device-types/v1/{slug}/images/{version}/download-size", c.downloadSize)
	mux.HandleFunc("GET /download-config", c.downloadConfig)
	mux.HandleFunc("POST /download-config", c.downloadConfig)
}

// config answers what web clients ask for before anything else.
func (c *Catalogue) config(w http.ResponseWriter, r *http.Request) {
	types, err := c.types(r.Context())
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	_, host, _ := strings.Cut(c.cfg.URL, "://")
	answer.JSON(w, http.StatusOK, map[string]any{
		"deployment": nil, "deviceUrlsBase": host, "adminUrl": c.cfg.URL, "gitServerUrl": "",
		"DEVICE_ONLINE_ICON": "", "DEVICE_OFFLINE_ICON": "", "signupCodeRequired": false,
		"supportedSocialProviders": []string{}, "deviceTypes": types,
	})
}

// osConfig tells the host's configuration service that there is no VPN and that no
// keys are to be installed.
func osConfig(w http.ResponseWriter, _ *http.Request) {
	answer.JSON(w, http.StatusOK, map[string]any{
		"services": map[string]any{
			"openvpn": map[string]string{"config": "", "ca": ""},
			"ssh":     map[string]string{"authorized_keys": ""},
		},
		"config":         map[string]any{"overrides": map[string]string{}},
		"schema_version": "1.0.0",
	})
}
