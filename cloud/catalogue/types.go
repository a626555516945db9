package catalogue

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// deviceType is a type of device as clients know it that make disk images.
type deviceType struct {
	Slug    string     `json:"slug"`
	Name    string     `json:"name"`
	Arch    string     `json:"arch"`
	Aliases []string   `json:"aliases"`
	State   string     `json:"state"`
	Options []question `json:"options"`
	Yocto   struct{}   `json:"yocto"`

	Instructions       []string `json:"instructions"`
	GettingStartedLink string   `json:"gettingStartedLink"`
}

// question is one that clients ask before they make a config.json.
type question struct {
	Name      string            `json:"name"`
	Message   string            `json:"message"`
	Type      string            `json:"type,omitempty"`
	Choices   []string          `json:"choices,omitempty"`
	Default   any               `json:"default,omitempty"`
	Minimum   int               `json:"min,omitempty"`
	When      map[string]string `json:"when,omitempty"`
	IsGroup   bool              `json:"isGroup,omitempty"`
	Collapses bool              `json:"isCollapsible,omitempty"`
	Collapsed bool              `json:"collapsed,omitempty"`
	Options   []question        `json:"options,omitempty"`
}

// questions are the same for every type: the network, and how often to poll.
func questions() []question {
	wifi := map[string]string{"network": "wifi"}
	return []question{
		{Name: "network", Message: "Network", IsGroup: true, Options: []question{
			{Name: "network", Message: "Network Connection", Type: "list", Choices: []string{"ethernet", "wifi"}, Default: "ethernet"},
			{Name: "wifiSsid", Message: "Wifi SSID", Type: "text", When: wifi},
			{Name: "wifiKey", Message: "Wifi Passphrase", Type: "password", When: wifi},
		}},
		{Name: "advanced", Message: "Advanced", IsGroup: true, Collapses: true, Collapsed: true, Options: []question{
			{Name: "appUpdatePollInterval", Message: "Check for updates every X minutes", Type: "number", Minimum: 10, Default: 10},
		}},
	}
}

// types lists all device types, by slug.
func (c *Catalogue) types(ctx context.Context) ([]deviceType, error) {
	all, err := c.cfg.DB.DeviceTypes(ctx)
	if err != nil {
		return nil, fmt.Errorf("list device types: %w", err)
	}
	out := make([]deviceType, len(all))
	for i, t := range all {
		out[i] = deviceType{Slug: t.Slug, Name: t.Name, Arch: t.Arch, Aliases: aliases(t), State: "RELEASED",
			Options: questions(), Instructions: append([]string{}, t.Instructions...)}
	}
	return out, nil
}

// aliases are the names by which a type is found, its own slug among them.
func aliases(t model.DeviceType) []string {
	if len(t.Aliases) == 0 {
		return []string{t.Slug}
	}
	return t.Aliases
}

func (c *Catalogue) deviceTypes(w http.ResponseWriter, r *http.Request) {
	all, err := c.types(r.Context())
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, all)
}

// find answers 404 itself when there is no such type.
func (c *Catalogue) find(w http.ResponseWriter, r *http.Request) (deviceType, bool) {
	all, err := c.types(r.Context())
	if err != nil {
		answer.Failure(w, r, err)
		return deviceType{}, false
	}
	slug := r.PathValue("slug")
	i := slices.IndexFunc(all, func(t deviceType) bool { return slices.Contains(append(t.Aliases, t.Slug), slug) })
	if i < 0 {
		answer.JSON(w, http.StatusNotFound, fmt.Sprintf("Unknown device type %s", slug))
		return deviceType{}, false
	}
	return all[i], true
}

func (c *Catalogue) deviceType(w http.ResponseWriter, r *http.Request) {
	if t, ok := c.find(w, r); ok {
		answer.JSON(w, http.StatusOK, t)
	}
}

// images lists the versions of the host OS that can be downloaded here: none.
func (c *Catalogue) images(w http.ResponseWriter, r *http.Request) {
	if _, ok := c.find(w, r); ok {
		answer.JSON(w, http.StatusOK, map[string]any{"versions": []string{}, "latest": nil})
	}
}

func (c *Catalogue) downloadSize(w http.ResponseWriter, r *http.Request) {
	if t, ok := c.find(w, r); ok {
		answer.JSON(w, http.StatusNotFound, fmt.Sprintf("There are no disk images for %s here: take the host OS from its maker.", t.Slug))
	}
}
