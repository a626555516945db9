package model

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"deckhand/cloud/access"
)

// rules are what holds when rows of a resource are written, by whomever: a
// request, the builder, a device that registers. Lists are fields separated by
// spaces. The steps run inside the write's transaction.
type rules struct {
	// required fields must have a value, always.
	required string
	// server fields are set by the cloud alone. What others say is ignored.
	server string
	// unseen fields have a column but no answer shows them. Each has a type of its
	// own, which only those who may set it make.
	unseen string
	// fixed fields stay as they were when the row was made.
	fixed string
	// lengths are the fewest and the most characters of texts.
	lengths map[string][2]int
	// words are the values that a text may have.
	words map[string][]string
	// long fields are read, and noted in the audit log, only when they are set.
	long string
	// secret fields are hidden in the audit log.
	secret string
	// create, update and remove run before the row is inserted, changed, or
	// deleted. They check it, and complete w.set.
	create, update, remove hook
	// after runs when rows are written, for what follows from it elsewhere.
	after hooks
	// together says that no row is judged by others of its resource: all rows of a
	// request are checked before the first one is written. Otherwise one row after
	// the other is written, and after gets one at a time.
	together bool
}

type (
	// hook is what a rule does with one row.
	hook func(ctx context.Context, t *txn, w *write) error
	// hooks are what it does with rows that are written together: one at least.
	hooks func(ctx context.Context, t *txn, rows []*write) error
)

// ruleBook has the rules of each resource that can be written. Each entry is in
// the file of its subject: rules_<subject>.go. It is a function and no variable
// because rules write, too.
func ruleBook(resource string) (rules, bool) {
	book := map[string]func() rules{
		"application":                         fleetRules,
		"application_config_variable":         func() rules { return variableRules(FleetConfig) },
		"application_environment_variable":    func() rules { return variableRules(FleetEnvironment) },
		"application_profile":                 profileRules,
		"application_tag":                     func() rules { return tagRules("application", 100, 1000) },
		"api_key":                             keyRules,
		"build_environment_variable":          func() rules { return variableRules(BuildEnvironment) },
		"device":                              deviceRules,
		"device_config_variable":              func() rules { return variableRules(DeviceConfig) },
		"device_environment_variable":         func() rules { return variableRules(DeviceEnvironment) },
		"device_service_environment_variable": func() rules { return variableRules(DeviceServiceEnvironment) },
		"device_tag":                          func() rules { return tagRules("device", maxTagName, maxTagValue) },
		"image":                               imageRules,
		"image__is_part_of__release":          releaseImageRules,
		"image_environment_variable":          func() rules { return imagePartRules("name", 255, maxVariableValue) },
		"image_install":                       imageInstallRules,
		"image_label":                         func() rules { return imagePartRules("label_name", 1000, 300) },
		"image_profile":                       imageProfileRules,
		"organization":                        organizationRules,
		"organization_membership":             membershipRules,
		"release":                             releaseRules,
		"release_asset":                       assetRules,
		"release_tag":                         func() rules { return tagRules("release", 164, 1000) },
		"service":                             serviceRules,
		"service_environment_variable":        func() rules { return variableRules(ServiceEnvironment) },
		"service_install":                     serviceInstallRules,
		"service_instance":                    serviceInstanceRules,
		"service_label":                       serviceLabelRules,
		"user":                                userRules,
		"user__has__public_key":               publicKeyRules,
	}
	rule, ok := book[resource]
	if !ok {
		return rules{}, false
	}
	return rule(), true
}

// ruled finds a resource and its rules, for a caller who may do that with some of
// its rows.
func ruled(by writer, resource string, verb access.Verb) (Resource, rules, error) {
	r, ok := ResourceNamed(resource)
	rule, written := ruleBook(r.Name)
	may := by.cloud
	if !may {
		_, _, may = access.Rows(by.Caller, r.Name, verb)
	}
	if !ok || !written || !may {
		return Resource{}, rules{}, fmt.Errorf("%s %s: %w", verb, resource, ErrForbidden)
	}
	return r, rule, nil
}

// admit is what of a write reaches the rules, with its texts checked.
func (r rules) admit(by writer, table Resource, v Values) (Values, error) {
	set := Values{}
	server := strings.Fields(r.server)
	for name, value := range v {
		_, known := table.Field(name)
		if _, hashed := value.(PasswordHash); hashed && slices.Contains(strings.Fields(r.unseen), name) {
			known = true
		}
		if known && (by.cloud || !slices.Contains(server, name)) && name != "id" && name != "created_at" && name != "modified_at" {
			set[name] = value
		}
	}
	if !by.cloud {
		for _, name := range access.Closed(by.Caller, table.Name) {
			if _, ok := set[name]; ok {
				return nil, fmt.Errorf("%s: %w", name, ErrForbidden)
			}
		}
	}
	return set, r.checkTexts(set)
}

func (r rules) checkTexts(set Values) error {
	for name, span := range r.lengths {
		s, ok := set[name].(string)
		switch n := utf8.RuneCountInString(s); {
		case ok && n > span[1] && span[0] == 0:
			return invalid(name, "%s has at most %d characters.", name, span[1])
		case ok && (n > span[1] || n < span[0]):
			return invalid(name, "%s has %d to %d characters.", name, span[0], span[1])
		}
	}
	for name, words := range r.words {
		if s, ok := set[name].(string); ok && !slices.Contains(words, s) {
			return invalid(name, "%s must be one of: %s.", name, strings.Join(words, ", "))
		}
	}
	return nil
}

// complete refuses a row without a required field.
func (r rules) complete(set Values) error {
	for name := range strings.FieldsSeq(r.required) {
		if set[name] == nil {
			return invalid(name, "%s must be given.", name)
		}
	}
	return nil
}

// keep refuses to empty required fields and to change fixed ones.
func (r rules) keep(w *write) error {
	for name := range strings.FieldsSeq(r.required) {
		if w.sets(name) && w.set[name] == nil {
			return invalid(name, "%s must be given.", name)
		}
	}
	for name := range strings.FieldsSeq(r.fixed) {
		if !w.by.cloud && w.changes(name) {
			return invalid(name, "%s cannot be changed.", name)
		}
	}
	return nil
}
