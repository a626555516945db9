package catalogue

import (
	"net/http"
	"slices"

	"deckhand/cloud/answer"
)

// The names that clients may not use, and those that are configuration and not
// environment.
var (
	reservedNames      = []string{"RESIN", "BALENA", "USER"}
	reservedNamespaces = []string{"RESIN_", "BALENA_"}
	allowedNamespaces  = []string{"RESIN_HOST_", "RESIN_UI_", "BALENA_HOST_", "BALENA_UI_"}
	refusedNames       = []string{"RESTART", "DEVICE_RESTART", "SUPERVISOR_OVERRIDE_LOCK", "SUPERVISOR_NATIVE_LOGGER", "HOST_LOG_TO_DISPLAY"}
)

// property is a JSON schema of a configuration variable.
type property struct {
	Type        string   `json:"type"`
	Description string   `json:"description"`
	Default     any      `json:"default,omitempty"`
	Enum        []string `json:"enum,omitempty"`
}

// known are the configuration variables, without their prefix.
func known() map[string]property {
	onOff := func(what string, standard bool) property {
		return property{Type: "boolean", Description: what, Default: standard}
	}
	return map[string]property{
		"APP_RESTART_POLICY":                {Type: "string", Description: "When containers start again; only for old supervisors"},
		"APP_RESTART_RETRIES":               {Type: "integer", Description: "How often a container is started again; only for old supervisors"},
		"DEPENDENT_DEVICES_HOOK_ADDRESS":    {Type: "string", Description: "Where old supervisors tell of dependent devices"},
		"OVERRIDE_LOCK":                     onOff("Break update locks", false),
		"SUPERVISOR_CONNECTIVITY_CHECK":     onOff("Watch whether the cloud's address can be reached", true),
		"SUPERVISOR_HANDOVER_TIMEOUT":       {Type: "integer", Description: "How long a hand-over may take, in milliseconds", Default: 60_000},
		"SUPERVISOR_LOCAL_MODE":             onOff("Let people in the local network push to the device", false),
		"SUPERVISOR_LOG_CONTROL":            onOff("Send logs to the cloud", true),
		"SUPERVISOR_POLL_INTERVAL":          {Type: "integer", Description: "How often the device asks for its target, in milliseconds", Default: 900_000},
		"SUPERVISOR_UPDATE_STRATEGY":        {Type: "string", Description: "How services without a label of their own are updated", Enum: []string{"download-then-kill", "kill-then-download", "delete-then-download", "hand-over"}},
		"SUPERVISOR_VPN_CONTROL":            onOff("Connect to the VPN", true),
		"SUPERVISOR_PERSISTENT_LOGGING":     onOff("Keep the host's journal over a restart", false),
		"SUPERVISOR_INSTANT_UPDATE_TRIGGER": onOff("Ask for a new target as soon as there is one", true),
		"SUPERVISOR_HARDWARE_METRICS":       onOff("Report memory, processor and temperature", true),
	}
}

func variables(w http.ResponseWriter, _ *http.Request) {
	var names []string
	properties := map[string]property{}
	for name, p := range known() {
		for _, prefix := range reservedNamespaces {
			names = append(names, prefix+name)
			properties[prefix+name] = p
		}
	}
	answer.JSON(w, http.StatusOK, map[string]any{
		"reservedNames": reservedNames, "reservedNamespaces": reservedNamespaces,
		"invalidRegex": `/^\d|\W/`, "configVarInvalidRegex": `/^[\d:]|[^A-Za-z0-9_:]/`,
		"whiteListedNames": slices.Sorted(slices.Values(names)), "whiteListedNamespaces": allowedNamespaces, "blackListedNames": refusedNames,
		"configVarSchema": map[string]any{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": properties},
	})
}
