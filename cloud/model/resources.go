package model

import (
	"context"
	"database/sql"
	"strings"
	"time"
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
// shown: the password of a user has none.
type Resource struct {
	Name string
	// Table is the table's name when it differs from Name.
	Table  string
	Fields []Field
	// Navs lead to other resources.
	Navs []Nav
	// Keys are the natural keys: fields that together name one row.
	Keys [][]string
	// Users is the SQL condition for what a user sees (one ?: the user's id);
	// "" when every user sees all rows.
	Users string
	// Devices is the same for a device (one ?: the device's id); "" when
	// devices see nothing.
	Devices string
}

// Nav is a way from the rows of one resource, alias t, to those of another,
// alias u: the rows with t.Local = u.Remote. It has a row for each name that it
// goes by.
type Nav struct {
	Name string
	To   string // the resource
	Many bool   // an array of rows, also when there can be one only
	// Local and Remote are columns. Local may be an expression over t.
	Local, Remote string
	// Where limits the rows by more than the columns: SQL over u; empty: no.
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

// fields reads "a b:date c:ref": names with their kinds, Text when not said.
func fields(list string) []Field {
	kinds := map[string]FieldKind{"int": Integer, "big": BigInteger, "bool": Boolean, "date": Date, "ref": Reference, "json": JSON, "location": Location, "": Text}
	all := []Field{{Name: "id", Kind: Integer}, {Name: "created_at", Kind: Date}}
	for word := range strings.FieldsSeq(list) {
		name, kind, _ := strings.Cut(word, ":")
		all = append(all, Field{Name: name, Kind: kinds[kind]})
	}
	return all
}

const (
	ownFleets   = `SELECT a.id FROM application a JOIN organization_membership m ON m.is_member_of__organization = a.organization WHERE m."user" = ?`
	ownDevices  = `SELECT d.id FROM device d WHERE d.belongs_to__application IN (` + ownFleets + `)`
	ownServices = `SELECT s.id FROM service s WHERE s.application IN (` + ownFleets + `)`
	ownReleases = `SELECT r.id FROM release r WHERE r.belongs_to__application IN (` + ownFleets + `)`
	ownParts    = `SELECT p.id FROM image__is_part_of__release p WHERE p.is_part_of__release IN (` + ownReleases + `)`
	ownInstalls = `SELECT i.id FROM service_install i WHERE i.device IN (` + ownDevices + `)`
	self        = `SELECT d.id FROM device d WHERE d.id = ? AND d.is_frozen = FALSE` // for devices
	ownOrgs     = `SELECT m.is_member_of__organization FROM organization_membership m WHERE m."user" = ?`
)

// Resources are all resources, by name. To show a new table, add a row.
func Resources() []Resource {
	return []Resource{
		{Name: "api_key", Fields: fields("name description expiry_date:date is_of__actor:ref"),
			Users: `t.is_of__actor IN (SELECT u.actor FROM "user" u WHERE u.id = ?)`},
		{Name: "application", Users: `t.id IN (` + ownFleets + `)`,
			Devices: `t.id IN (SELECT o.belongs_to__application FROM device o WHERE o.id IN (` + self + `))`,
			Fields:  fields("app_name slug uuid actor:ref organization:ref is_for__device_type:ref is_of__class is_host:bool is_archived:bool is_public:bool should_track_latest_release:bool should_be_running__release:ref")},
		variable(FleetConfig, ownFleets),
		variable(FleetEnvironment, ownFleets),
		{Name: "cpu_architecture", Fields: fields("slug")},
		{Name: "device", Fields: deviceFields(), Users: `t.id IN (` + ownDevices + `)`, Devices: `t.id = ? AND t.is_frozen = FALSE`},
		visibleToItself(variable(DeviceConfig, ownDevices)),
		variable(DeviceEnvironment, ownDevices),
		variable(DeviceServiceEnvironment, ownInstalls),
		visibleToItself(Resource{Name: "device_tag", Fields: fields("device:ref tag_key value"), Users: `t.device IN (` + ownDevices + `)`}),
		{Name: "device_type", Fields: fields("slug name is_of__cpu_architecture:ref")},
		{Name: "image", Users: `t.is_a_build_of__service IN (` + ownServices + `)`,
			Fields: fields("is_a_build_of__service:ref is_stored_at__image_location:location content_hash contract:json status project_type error_message build_log dockerfile image_size:big start_timestamp:date end_timestamp:date push_timestamp:date")},
		{Name: "image__is_part_of__release", Users: `t.is_part_of__release IN (` + ownReleases + `)`, Fields: fields("image:ref is_part_of__release:ref")},
		{Name: "image_environment_variable", Users: `t.release_image IN (` + ownParts + `)`, Fields: fields("release_image:ref name value")},
		{Name: "image_install", Users: `t.device IN (` + ownDevices + `)`,
			Fields: fields("device:ref installs__image:ref is_provided_by__release:ref install_date:date status download_progress:int")},
		{Name: "image_label", Users: `t.release_image IN (` + ownParts + `)`, Fields: fields("release_image:ref label_name value")},
		{Name: "organization", Users: `t.id IN (` + ownOrgs + `)`, Fields: fields("name handle")},
		{Name: "organization_membership", Users: `t.is_member_of__organization IN (` + ownOrgs + `)`, Fields: fields("user:ref is_member_of__organization:ref")},
		{Name: "release", Fields: releaseFields(), Users: `t.belongs_to__application IN (` + ownFleets + `)`,
			Devices: `EXISTS (SELECT 1 FROM device o WHERE o.id IN (` + self + `)
				AND (t.belongs_to__application = o.belongs_to__application OR t.id = o.is_pinned_on__release))`},
		{Name: "service", Users: `t.application IN (` + ownFleets + `)`, Fields: fields("application:ref service_name")},
		variable(ServiceEnvironment, ownServices),
		{Name: "service_install", Users: `t.device IN (` + ownDevices + `)`, Fields: fields("device:ref installs__service:ref")},
		{Name: "service_label", Users: `t.service IN (` + ownServices + `)`, Fields: fields("service:ref label_name value")},
		{Name: "user", Users: `t.id IN (SELECT o."user" FROM organization_membership o WHERE o.is_member_of__organization IN (` + ownOrgs + `))`,
			Fields: fields("actor:ref username email")},
	}
}

func variable(kind VariableKind, parents string) Resource {
	return Resource{Name: string(kind), Fields: fields(kind.Parent() + ":ref name value"), Users: `t."` + kind.Parent() + `" IN (` + parents + `)`}
}

// visibleToItself shows a device the rows of a resource that hang on it.
func visibleToItself(r Resource) Resource {
	r.Devices = `t.device IN (` + self + `)`
	return r
}

func deviceFields() []Field {
	return append(fields(`uuid device_name note local_id actor:ref is_of__device_type:ref belongs_to__application:ref
		is_running__release:ref is_pinned_on__release:ref should_be_operated_by__release:ref should_be_managed_by__release:ref
		api_heartbeat_state changed_api_heartbeat_state_on__date:date last_seen:date is_online:bool last_connectivity_event:date is_frozen:bool is_web_accessible:bool
		status os_version os_variant supervisor_version ip_address mac_address public_address api_port:int api_secret
		provisioning_progress:int provisioning_state download_progress:int
		memory_usage:int memory_total:int storage_block_device storage_usage:int storage_total:int cpu_usage:int cpu_temp:int
		is_undervolted:bool cpu_id update_status last_update_status_event:date`),
		Field{Name: "should_be_running__release", Kind: Reference, Expression: `coalesce(t.is_pinned_on__release,
			(SELECT a.should_be_running__release FROM application a WHERE a.id = t.belongs_to__application))`},
		// There is no VPN: a device that asks for its state is as good as connected.
		Field{Name: "is_connected_to_vpn", Kind: Boolean, Expression: `t.is_online`},
		Field{Name: "overall_status", Kind: Text, Expression: `CASE
			WHEN t.provisioning_state = 'Post-Provisioning' THEN 'post-provisioning'
			WHEN t.api_heartbeat_state = 'unknown' THEN 'configuring'
			WHEN t.api_heartbeat_state = 'offline' THEN 'disconnected'
			WHEN t.status = 'Downloading' AND t.download_progress IS NOT NULL THEN 'updating'
			WHEN t.provisioning_progress IS NOT NULL THEN 'configuring'
			WHEN EXISTS (SELECT 1 FROM image_install i WHERE i.device = t.id AND i.status = 'Downloading' AND i.download_progress IS NOT NULL) THEN 'updating'
			WHEN t.api_heartbeat_state = 'timeout' THEN 'reduced-functionality'
			ELSE 'operational' END`},
	)
}

const (
	sqlCore = `CAST(t.semver_major AS TEXT) || '.' || CAST(t.semver_minor AS TEXT) || '.' || CAST(t.semver_patch AS TEXT)
		|| CASE WHEN t.semver_prerelease <> '' THEN '-' || t.semver_prerelease ELSE '' END`
	sqlBuild = `CASE WHEN t.semver_build <> '' THEN '.' || t.semver_build ELSE '' END
		|| CASE WHEN t.revision > 0 THEN '.rev' || CAST(t.revision AS TEXT) ELSE '' END
		|| CASE WHEN t.variant <> '' THEN '.' || t.variant ELSE '' END`
)

func releaseFields() []Field {
	return append(fields(`belongs_to__application:ref is_created_by__user:ref commit composition:json contract:json status source
		start_timestamp:date end_timestamp:date update_timestamp:date build_log note is_passing_tests:bool is_invalidated:bool invalidation_reason
		is_finalized_at__date:date semver_major:int semver_minor:int semver_patch:int semver_prerelease semver_build variant revision:int`),
		Field{Name: "is_final", Kind: Boolean, Expression: `t.revision IS NOT NULL`},
		Field{Name: "semver", Kind: Text, Expression: sqlCore + ` || CASE WHEN t.semver_build <> '' THEN '+' || t.semver_build ELSE '' END`},
		// The same as version.raw, so that it can be compared and sorted by.
		Field{Name: "raw_version", Kind: Text, Expression: sqlCore + `
			|| CASE WHEN t.revision IS NULL THEN CASE WHEN t.semver_prerelease = '' THEN '-' ELSE '.' END || CAST(t.created_at AS TEXT) ELSE '' END
			|| CASE WHEN t.semver_build <> '' OR coalesce(t.revision, 0) > 0 OR t.variant <> '' THEN '+' || substr(` + sqlBuild + `, 2) ELSE '' END`},
	)
}

// Rows reads the given fields of a resource's rows. The condition is SQL over
// the alias t; it must come from Resource and Field, with values as arguments.
// Values are nil, int64, string, bool or time.Time; a Location is complete.
func (db *DB) Rows(ctx context.Context, resource Resource, fields []Field, condition string, args ...any) ([][]any, error) {
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.SQL()
	}
	rows, err := db.read.QueryContext(ctx, `SELECT `+strings.Join(list, ", ")+` FROM "`+resource.Name+`" t `+condition, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(row interface{ Scan(...any) error }) ([]any, error) { return db.scanFields(row, fields) })
}

// Count counts a resource's rows.
func (db *DB) Count(ctx context.Context, resource Resource, condition string, args ...any) (int64, error) {
	var n int64
	err := db.read.QueryRowContext(ctx, `SELECT count(*) FROM "`+resource.Name+`" t `+condition, args...).Scan(&n)
	return n, err
}

func (db *DB) scanFields(row interface{ Scan(...any) error }, fields []Field) ([]any, error) {
	targets := make([]any, len(fields))
	for i, f := range fields {
		switch f.Kind {
		case Integer, BigInteger, Date, Reference:
			targets[i] = new(sql.NullInt64)
		case Boolean:
			targets[i] = new(sql.NullBool)
		case Text, JSON, Location:
			targets[i] = new(sql.NullString)
		}
	}
	if err := row.Scan(targets...); err != nil {
		return nil, err
	}
	values := make([]any, len(fields))
	for i, f := range fields {
		values[i] = db.value(f, targets[i])
	}
	return values, nil
}

func (db *DB) value(f Field, scanned any) any {
	switch v := scanned.(type) {
	case *sql.NullInt64:
		if v.Valid && f.Kind == Date {
			return time.UnixMilli(v.Int64).UTC()
		}
		if v.Valid {
			return v.Int64
		}
	case *sql.NullBool:
		if v.Valid {
			return v.Bool
		}
	case *sql.NullString:
		if v.Valid && f.Kind == Location {
			return db.location(v.String)
		}
		if v.Valid {
			return v.String
		}
	}
	return nil
}
