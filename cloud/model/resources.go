package model

import (
	"fmt"
	"maps"
	"strings"
	"sync"
)

// FieldKind is how a field is stored, and so how it is read and compared.
type FieldKind int

// The kinds of fields.
const (
	Integer FieldKind = iota
	BigInteger
	Text
	Boolean
	Date
	Reference
	JSON
	Location
	Version
	// File is a JSON object about a file; its href is stored without the URL of
	// the API.
	File
)

// Field is a field of a resource as the API names it.
type Field struct {
	Name string
	Kind FieldKind
	// Expression is the SQL of a computed field, over the table's alias t;
	// empty for a plain column.
	Expression string
}

// SQL is the expression that reads the field.
func (f Field) SQL() string {
	if f.Expression != "" {
		return "(" + f.Expression + ")"
	}
	return `t."` + f.Name + `"`
}

// Resource is a table as the API shows it. A column without a Field is never
// shown: the password of a user has none. Who sees which rows is in access.
type Resource struct {
	Name   string
	Fields []Field
	// Navs lead to other resources.
	Navs []Nav
	// Keys are the natural keys: fields that together name one row.
	Keys [][]string
	// Elsewhere says that there are never rows here: the resource belongs to a
	// hosted product, and clients only have to be told so politely.
	Elsewhere bool
	// Only limits the rows further than permissions do: SQL over t, in which each
	// ? is the id of the user who asks (0: it is not a user); empty: it does not.
	Only string
}

// Nav is a way from the rows of one resource, alias t, to those of another,
// alias u: the rows with t.Local = u.Remote. There is one for each name that a
// way goes by.
type Nav struct {
	Name string
	To   string // the resource
	Many bool   // there can be more than one row
	// Local is a field of the one, Remote a column of the other.
	Local, Remote string
	// From is SQL to read the other's rows from when its table alone does not
	// have Remote; empty: the table.
	From string
	// Where limits the rows further: SQL over u, in which each ? is the id of
	// the user who asks (0: it is not a user).
	Where string
}

// Field finds a field by name.
func (r Resource) Field(name string) (Field, bool) {
	for _, f := range r.Fields {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// Nav finds a navigation by name.
func (r Resource) Nav(name string) (Nav, bool) {
	for _, n := range r.Navs {
		if n.Name == name {
			return n, true
		}
	}
	return Nav{}, false
}

// ResourceNamed finds a resource by one of the names that clients use.
func ResourceNamed(name string) (Resource, bool) {
	r, ok := byName()[name]
	return r, ok
}

var byName = sync.OnceValue(func() map[string]Resource {
	all := map[string]Resource{}
	for _, r := range Resources() {
		all[r.Name] = r
	}
	// A name of older clients that newer ones still send.
	all["release_image"] = all["image__is_part_of__release"]
	return all
})

// ByName are all resources by every name that clients use.
func ByName() map[string]Resource { return maps.Clone(byName()) }

// Resources are all resources. To show a new table, add a row.
func Resources() []Resource {
	return []Resource{
		resource("actor", ""),
		resource("api_key", "name description expiry_date:date is_of__actor>actor"),
		resource("application", `app_name slug uuid actor>actor organization>organization is_for__device_type>device_type
			application_type>application_type should_be_running__release>release is_updated_by__application>application
			is_of__class is_host:bool is_archived:bool is_public:bool is_discoverable:bool is_accessible_by_support_until__date:date
			should_track_latest_release:bool`).
			key("slug").key("uuid").key("actor").
			many(`owns__device=device.belongs_to__application owns__release=release.belongs_to__application service=service.application
			application_tag=application_tag.application application_config_variable=application_config_variable.application
			application_environment_variable=application_environment_variable.application
			build_environment_variable=build_environment_variable.application updates__application=application.is_updated_by__application
			application_profile=application_profile.application includes__user=user_application_membership.is_member_of__application
			user__is_member_of__application=user_application_membership.is_member_of__application`).
			// Those who reach the application as members of its organization, for
			// a caller who is one of them. That it is public gives no such right.
			nav(Nav{Name: "is_directly_accessible_by__user", To: "user", Many: true, Local: "organization", Remote: "reached__organization",
				From: `(SELECT p.*, m.is_member_of__organization AS reached__organization FROM "user" p
					JOIN organization_membership m ON m."user" = p.id)`,
				Where: `u.reached__organization IN (SELECT o.is_member_of__organization FROM organization_membership o WHERE o."user" = ?)`}),
		resource("application_config_variable", "application>application name value").key("application", "name"),
		resource("application_environment_variable", "application>application name value").key("application", "name"),
		resource("application_profile", "application>application on__application>application activates__profile_name").
			key("application", "on__application", "activates__profile_name"),
		resource("application_tag", "application>application tag_key value").key("application", "tag_key"),
		resource("application_type", `slug name description supports_multicontainer:bool supports_web_url:bool supports_gateway_mode:bool
			requires_payment:bool is_legacy:bool needs__os_version_range maximum_device_count:int`).key("slug"),
		resource("build_environment_variable", "application>application name value").key("application", "name"),
		resource("cpu_architecture", "slug").key("slug"),
		device(),
		resource("device_config_variable", "device>device name value").key("device", "name"),
		resource("device_environment_variable", "device>device name value").key("device", "name"),
		resource("device_family", "slug name is_manufactured_by__device_manufacturer>device_manufacturer").key("slug"),
		resource("device_manufacturer", "slug name").key("slug"),
		resource("device_service_environment_variable", "service_install>service_install name value").key("service_install", "name"),
		resource("device_tag", "device>device tag_key value").key("device", "tag_key"),
		resource("device_type", `slug name is_of__cpu_architecture>cpu_architecture belongs_to__device_family>device_family logo contract:json`).
			key("slug").
			many(`device_type_alias=device_type_alias.device_type is_default_for__application=application.is_for__device_type
			describes__device=device.is_of__device_type`),
		resource("device_type_alias", "device_type>device_type is_referenced_by__alias").key("is_referenced_by__alias"),
		resource("image", `is_a_build_of__service>service is_stored_at__image_location:location content_hash contract:json status project_type
			error_message build_log dockerfile image_size:big start_timestamp:date end_timestamp:date push_timestamp:date`).
			key("is_stored_at__image_location").
			many(`release_image=image__is_part_of__release.image image__is_part_of__release=image__is_part_of__release.image
			image_install=image_install.installs__image`),
		resource("image__is_part_of__release", "image>image is_part_of__release>release").key("image", "is_part_of__release").
			alias("release", "is_part_of__release").
			many(`image_label=image_label.release_image image_environment_variable=image_environment_variable.release_image
			image_profile=image_profile.release_image`),
		resource("image_environment_variable", "release_image>image__is_part_of__release name value").key("release_image", "name"),
		resource("image_install", `device>device installs__image>image is_provided_by__release>release install_date:date status download_progress:int`).
			key("device", "installs__image").alias("image", "installs__image").alias("release", "is_provided_by__release"),
		resource("image_label", "release_image>image__is_part_of__release label_name value").key("release_image", "label_name"),
		resource("image_profile", "release_image>image__is_part_of__release profile_name").key("release_image", "profile_name"),
		resource("organization", "name handle").key("handle").
			many(`organization_membership=organization_membership.is_member_of__organization application=application.organization`),
		resource("organization_membership", "user>user is_member_of__organization>organization").key("user", "is_member_of__organization"),
		release(),
		resource("release_asset", "release>release asset_key asset:file").key("release", "asset_key"),
		resource("release_tag", "release>release tag_key value").key("release", "tag_key"),
		resource("service", "application>application service_name").key("application", "service_name").
			many(`is_built_by__image=image.is_a_build_of__service service_install=service_install.installs__service
			service_environment_variable=service_environment_variable.service service_label=service_label.service`),
		resource("service_environment_variable", "service>service name value").key("service", "name"),
		resource("service_install", "device>device installs__service>service").key("device", "installs__service").
			alias("service", "installs__service").
			many("device_service_environment_variable=device_service_environment_variable.service_install"),
		resource("service_instance", "service_type ip_address last_heartbeat:date").
			many("manages__device=device.is_managed_by__service_instance"),
		resource("service_label", "service>service label_name value").key("service", "label_name"),
		resource("user", "actor>actor username email").key("username").key("email").key("actor").
			many(`organization_membership=organization_membership.user is_member_of__organization=organization_membership.user
			user__has__public_key=user__has__public_key.user`),
		resource("user__has__public_key", "user>user title public_key"),
		elsewhere("application_invite"), elsewhere("device_history"), elsewhere("invitee__is_invited_to__application"),
		elsewhere("invitee__is_invited_to__organization"), elsewhere("organization_invite"), elsewhere("plan"),
		elsewhere("subscription"), elsewhere("team"), elsewhere("team_application_access"), elsewhere("team_membership"),
		elsewhere("user_application_membership"),
	}
}

// resource reads "a b:date c>device": fields with their kinds, Text when not
// said; "c>device" is a reference and the way to what it refers to.
func resource(name, list string) Resource {
	r := Resource{Name: name, Fields: []Field{{Name: "id", Kind: Integer}, {Name: "created_at", Kind: Date}, {Name: "modified_at", Kind: Date}}}
	for word := range strings.FieldsSeq(list) {
		if field, to, is := strings.Cut(word, ">"); is {
			r.Fields = append(r.Fields, Field{Name: field, Kind: Reference})
			r.Navs = append(r.Navs, Nav{Name: field, To: to, Local: field, Remote: "id"})
			continue
		}
		field, kind, _ := strings.Cut(word, ":")
		r.Fields = append(r.Fields, Field{Name: field, Kind: kindNamed(kind)})
	}
	return r
}

// elsewhere is a resource without rows.
func elsewhere(name string) Resource {
	r := resource(name, "")
	r.Elsewhere = true
	return r
}

func kindNamed(name string) FieldKind {
	kinds := map[string]FieldKind{"int": Integer, "big": BigInteger, "bool": Boolean, "date": Date, "json": JSON, "location": Location, "file": File, "": Text}
	kind, ok := kinds[name]
	if !ok {
		panic("resources: there is no kind " + name)
	}
	return kind
}

func (r Resource) key(fields ...string) Resource {
	r.Keys = append(r.Keys, fields)
	return r
}

func (r Resource) nav(n Nav) Resource {
	r.Navs = append(r.Navs, n)
	return r
}

// alias gives the way of a reference a second name.
func (r Resource) alias(name, reference string) Resource {
	n, ok := r.Nav(reference)
	if !ok {
		panic(fmt.Sprintf("resources: %s has no reference %s", r.Name, reference))
	}
	n.Name = name
	return r.nav(n)
}

// many reads "name=resource.reference": the ways back along references.
func (r Resource) many(list string) Resource {
	for word := range strings.FieldsSeq(list) {
		name, back, _ := strings.Cut(word, "=")
		to, reference, _ := strings.Cut(back, ".")
		r = r.nav(Nav{Name: name, To: to, Many: true, Local: "id", Remote: reference})
	}
	return r
}

func (r Resource) computed(name string, kind FieldKind, expression string) Resource {
	r.Fields = append(r.Fields, Field{Name: name, Kind: kind, Expression: expression})
	return r
}

func release() Resource {
	return resource("release", `belongs_to__application>application is_created_by__user>user commit composition:json contract:json status source
		start_timestamp:date end_timestamp:date update_timestamp:date build_log note known_issue_list is_passing_tests:bool is_invalidated:bool
		invalidation_reason is_finalized_at__date:date phase release_version semver_major:int semver_minor:int semver_patch:int
		semver_prerelease semver_build variant revision:int raw_version`).
		computed("is_final", Boolean, `t.revision IS NOT NULL`).
		computed("semver", Text, `CAST(t.semver_major AS TEXT) || '.' || CAST(t.semver_minor AS TEXT) || '.' || CAST(t.semver_patch AS TEXT)
			|| CASE WHEN t.semver_prerelease <> '' THEN '-' || t.semver_prerelease ELSE '' END
			|| CASE WHEN t.semver_build <> '' THEN '+' || t.semver_build ELSE '' END`).
		computed("version", Version, versionParts).
		many(`release_tag=release_tag.release release_asset=release_asset.release release_image=image__is_part_of__release.is_part_of__release
			contains__image=image__is_part_of__release.is_part_of__release image__is_part_of__release=image__is_part_of__release.is_part_of__release
			image_install=image_install.is_provided_by__release
			is_running_on__device=device.is_running__release is_pinned_to__device=device.is_pinned_on__release
			should_operate__device=device.should_be_operated_by__release should_manage__device=device.should_be_managed_by__release
			should_be_running_on__application=application.should_be_running__release`).
		key("belongs_to__application", "semver_major", "semver_minor", "semver_patch", "semver_prerelease", "variant", "revision")
}

func device() Resource {
	return resource("device", `uuid device_name note local_id actor>actor is_of__device_type>device_type belongs_to__application>application
		is_running__release>release is_pinned_on__release>release should_be_operated_by__release>release should_be_managed_by__release>release
		is_managed_by__service_instance>service_instance belongs_to__user>user is_managed_by__device>device
		api_heartbeat_state changed_api_heartbeat_state_on__date:date last_seen:date is_online:bool last_connectivity_event:date last_vpn_event:date
		is_locked_until__date:date is_frozen:bool is_active:bool is_web_accessible:bool is_accessible_by_support_until__date:date
		status os_version os_variant supervisor_version ip_address mac_address public_address vpn_address logs_channel api_port:int api_secret
		provisioning_progress:int provisioning_state download_progress:int
		memory_usage:int memory_total:int storage_block_device storage_usage:int storage_total:int cpu_usage:int cpu_temp:int
		is_undervolted:bool cpu_id location latitude longitude custom_latitude custom_longitude update_status last_update_status_event:date`).
		key("uuid").key("actor").
		computed("should_be_running__release", Reference, effectiveTarget).
		computed("is_connected_to_vpn", Boolean, connected).
		computed("overall_status", Text, overallStatus).
		computed("overall_progress", Integer, overallProgress).
		nav(Nav{Name: "should_be_running__release", To: "release", Local: "should_be_running__release", Remote: "id"}).
		many(`device_tag=device_tag.device device_config_variable=device_config_variable.device
			device_environment_variable=device_environment_variable.device service_install=service_install.device
			image_install=image_install.device manages__device=device.is_managed_by__device`).
		nav(Nav{Name: "device_service_environment_variable", To: "device_service_environment_variable", Many: true, Local: "id", Remote: "set_on__device",
			From: `(SELECT v.*, i.device AS set_on__device FROM device_service_environment_variable v
				JOIN service_install i ON i.id = v.service_install)`})
}
