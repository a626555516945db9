package model

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
)

// What decides the target of a device comes in three parts, each read by itself:
// what is the device's own, what is its fleet's, and the releases. Devices of a
// fleet share the last two, so whoever serves many keeps those and reads only the
// first for each.

// ReleaseTarget: what a release gives to those that run it changed; ID is the release.
// It comes beside the topics of fleets and devices, for who keeps releases.
const ReleaseTarget TopicKind = "release target"

// TargetDevice is what is a device's own among all that decides its target.
type TargetDevice struct {
	ID, Fleet  int64 // Fleet 0: none
	UUID, Name string
	Pinned     int64     // release that it stays on; 0: it follows its fleet
	Operated   TargetRef // release of its host OS
	Managed    TargetRef // release of its supervisor
	// Variables are its own; nil: it has none.
	Variables *TargetVariables
}

// TargetRef is a release and the app that it is of; zero: none.
type TargetRef struct{ App, Release int64 }

// TargetVariables are variables of one device.
type TargetVariables struct {
	Config, Environment map[string]string
	Services            map[int64]map[string]string // environment by service id
}

// Topics are all that decides the target: the device, and the apps it runs.
func (d TargetDevice) Topics() []Topic {
	topics := TargetTopics(d.ID, d.Fleet)
	for _, ref := range []TargetRef{d.Operated, d.Managed} {
		if ref.App != 0 && ref.App != d.Fleet {
			topics = append(topics, Topic{FleetTarget, ref.App})
		}
	}
	return topics
}

// TargetFleet is what an app gives to the targets of devices that run it, and to
// those of its fleet.
type TargetFleet struct {
	ID                  int64
	UUID, Name, Class   string
	IsHost              bool
	Release             int64     // that devices should run; 0: none
	Updater             TargetRef // the app that updates this one, and its release
	Config, Environment map[string]string
	// Profiles are the profiles that the fleet activates on images of other apps,
	// by the app's id.
	Profiles map[int64][]string
}

// Topics are all that decides this part.
func (f TargetFleet) Topics() []Topic {
	topics := []Topic{{FleetTarget, f.ID}}
	if f.Updater.App != 0 {
		topics = append(topics, Topic{FleetTarget, f.Updater.App})
	}
	return topics
}

// TargetRelease is a release as devices should run it.
type TargetRelease struct {
	ID, App     int64
	Commit      string
	Composition json.RawMessage
	Services    []TargetService // by name
}

// Topics are all that decides this part.
func (r TargetRef) Topics() []Topic {
	return []Topic{{FleetTarget, r.App}, {ReleaseTarget, r.Release}}
}

// TargetService is one service of a release. Variables of the image are overruled
// by those of the fleet, and these by those of the service.
type TargetService struct {
	ID, ImageID        int64
	Name               string
	Image              string // location@content hash
	Contract           json.RawMessage
	ImageEnvironment   map[string]string
	ServiceEnvironment map[string]string
	Labels             map[string]string // the service's over the image's
	Profiles           []string          // it belongs to these only; none: to all
}

// TargetDevice reads what is a device's own. ErrNotFound: there is none, or it is
// frozen; devices are to treat both alike.
func (db *DB) TargetDevice(ctx context.Context, uuid string) (TargetDevice, error) {
	var d TargetDevice
	err := db.read.QueryRowContext(ctx, `
		SELECT d.id, d.uuid, d.device_name, coalesce(d.belongs_to__application, 0), coalesce(d.is_pinned_on__release, 0),
		       coalesce(o.belongs_to__application, 0), coalesce(o.id, 0), coalesce(m.belongs_to__application, 0), coalesce(m.id, 0)
		FROM device d
		LEFT JOIN release o ON o.id = d.should_be_operated_by__release
		LEFT JOIN release m ON m.id = d.should_be_managed_by__release
		WHERE d.uuid = ? AND d.is_frozen = FALSE`, uuid).Scan(
		&d.ID, &d.UUID, &d.Name, &d.Fleet, &d.Pinned, &d.Operated.App, &d.Operated.Release, &d.Managed.App, &d.Managed.Release)
	if err != nil {
		return d, notFound(err, "device %s", uuid)
	}
	if d.Variables, err = db.targetVariables(ctx, d.ID); err != nil {
		return d, fmt.Errorf("variables of device %s: %w", uuid, err)
	}
	return d, nil
}

func (db *DB) targetVariables(ctx context.Context, device int64) (*TargetVariables, error) {
	rows, err := db.read.QueryContext(ctx, `
		SELECT -2 AS kind, name, value FROM device_config_variable WHERE device = ?
		UNION ALL SELECT -1, name, value FROM device_environment_variable WHERE device = ?
		UNION ALL SELECT i.installs__service, v.name, v.value FROM service_install i
			JOIN device_service_environment_variable v ON v.service_install = i.id WHERE i.device = ?`, device, device, device)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all *TargetVariables
	for rows.Next() {
		var kind int64
		var name, value string
		if err := rows.Scan(&kind, &name, &value); err != nil {
			return nil, err
		}
		if all == nil {
			all = &TargetVariables{Config: map[string]string{}, Environment: map[string]string{}, Services: map[int64]map[string]string{}}
		}
		all.layer(kind)[name] = value
	}
	return all, rows.Err()
}

// layer is where a variable belongs: -2 the configuration, -1 the environment,
// else the environment of that service.
func (v *TargetVariables) layer(kind int64) map[string]string {
	switch kind {
	case -2:
		return v.Config
	case -1:
		return v.Environment
	}
	if v.Services[kind] == nil {
		v.Services[kind] = map[string]string{}
	}
	return v.Services[kind]
}

// TargetFleet reads an app's part.
func (db *DB) TargetFleet(ctx context.Context, id int64) (TargetFleet, error) {
	f := TargetFleet{ID: id, Config: map[string]string{}, Environment: map[string]string{}}
	err := db.read.QueryRowContext(ctx, `
		SELECT a.uuid, a.app_name, a.is_of__class, a.is_host, coalesce(a.should_be_running__release, 0), coalesce(u.id, 0), coalesce(u.should_be_running__release, 0)
		FROM application a LEFT JOIN application u ON u.id = a.is_updated_by__application WHERE a.id = ?`, id).Scan(
		&f.UUID, &f.Name, &f.Class, &f.IsHost, &f.Release, &f.Updater.App, &f.Updater.Release)
	if err != nil {
		return f, notFound(err, "fleet %d", id)
	}
	err = db.pairs(ctx, func(kind int64, name, value string) {
		switch kind {
		case 0:
			f.Config[name] = value
		case 1:
			f.Environment[name] = value
		}
	}, `SELECT 0 AS kind, name, value FROM application_config_variable WHERE application = ?
		UNION ALL SELECT 1, name, value FROM application_environment_variable WHERE application = ?`, id, id)
	if err != nil {
		return f, fmt.Errorf("variables of fleet %d: %w", id, err)
	}
	f.Profiles = map[int64][]string{}
	return f, db.pairs(ctx, func(app int64, name, _ string) { f.Profiles[app] = append(f.Profiles[app], name) },
		`SELECT on__application, activates__profile_name, '' FROM application_profile WHERE application = ? ORDER BY on__application, activates__profile_name`, id)
}

// TargetRelease reads a release as devices should run it.
func (db *DB) TargetRelease(ctx context.Context, id int64) (TargetRelease, error) {
	r := TargetRelease{ID: id}
	var composition string
	err := db.read.QueryRowContext(ctx, `SELECT belongs_to__application, "commit", composition FROM release WHERE id = ?`, id).Scan(&r.App, &r.Commit, &composition)
	if err != nil {
		return r, notFound(err, "release %d", id)
	}
	r.Composition = json.RawMessage(composition)
	if err := db.targetServices(ctx, &r); err != nil {
		return r, fmt.Errorf("services of release %s: %w", r.Commit, err)
	}
	return r, nil
}

func (db *DB) targetServices(ctx context.Context, r *TargetRelease) error {
	rows, err := db.read.QueryContext(ctx, `
		SELECT p.id, s.id, i.id, s.service_name, i.is_stored_at__image_location, coalesce(i.content_hash, ''), i.contract
		FROM image__is_part_of__release p
		JOIN image i ON i.id = p.image
		JOIN service s ON s.id = i.is_a_build_of__service
		WHERE p.is_part_of__release = ? ORDER BY s.service_name, p.id`, r.ID)
	if err != nil {
		return err
	}
	parts, err := collect(rows, func(row interface{ Scan(...any) error }) (targetPart, error) {
		var p targetPart
		var repository, hash string
		var contract sql.NullString
		err := row.Scan(&p.id, &p.ID, &p.ImageID, &p.Name, &repository, &hash, &contract)
		p.Image = imageName(db.location(repository), hash)
		if contract.Valid {
			p.Contract = json.RawMessage(contract.String)
		}
		p.ImageEnvironment, p.ServiceEnvironment, p.Labels = map[string]string{}, map[string]string{}, map[string]string{}
		return p, err
	})
	if err != nil {
		return err
	}
	if err := db.decorate(ctx, r.ID, parts); err != nil {
		return err
	}
	for _, p := range parts {
		r.Services = append(r.Services, p.TargetService)
	}
	return nil
}

func imageName(location, hash string) string {
	if hash != "" {
		location += "@" + hash
	}
	return strings.ToLower(location)
}

type targetPart struct {
	id int64 // in image__is_part_of__release
	TargetService
}

// decorate reads variables, labels and profiles of all parts of a release.
func (db *DB) decorate(ctx context.Context, release int64, parts []targetPart) error {
	for _, layer := range []struct {
		add   func(p *targetPart, name, value string)
		query string
	}{
		{func(p *targetPart, name, value string) { p.ImageEnvironment[name] = value }, `SELECT p.id, v.name, v.value FROM image_environment_variable v JOIN image__is_part_of__release p ON p.id = v.release_image WHERE p.is_part_of__release = ?`},
		{func(p *targetPart, name, value string) { p.ServiceEnvironment[name] = value }, `SELECT p.id, v.name, v.value FROM image__is_part_of__release p JOIN image i ON i.id = p.image
			JOIN service_environment_variable v ON v.service = i.is_a_build_of__service WHERE p.is_part_of__release = ?`},
		{func(p *targetPart, name, value string) { p.Labels[name] = value }, `SELECT p.id, v.label_name, v.value FROM image_label v JOIN image__is_part_of__release p ON p.id = v.release_image WHERE p.is_part_of__release = ?`},
		{func(p *targetPart, name, value string) { p.Labels[name] = value }, `SELECT p.id, v.label_name, v.value FROM image__is_part_of__release p JOIN image i ON i.id = p.image
			JOIN service_label v ON v.service = i.is_a_build_of__service WHERE p.is_part_of__release = ?`},
		{func(p *targetPart, name, _ string) { p.Profiles = append(p.Profiles, name) }, `SELECT p.id, v.profile_name, '' FROM image_profile v JOIN image__is_part_of__release p ON p.id = v.release_image
			WHERE p.is_part_of__release = ? ORDER BY v.profile_name`},
	} {
		err := db.pairs(ctx, func(id int64, name, value string) {
			for i := range parts {
				if parts[i].id == id {
					layer.add(&parts[i], name, value)
				}
			}
		}, layer.query, release)
		if err != nil {
			return err
		}
	}
	return nil
}

// pairs reads rows of a number and two texts.
func (db *DB) pairs(ctx context.Context, add func(id int64, name, value string), query string, args ...any) error {
	rows, err := db.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var name, value string
		if err := rows.Scan(&id, &name, &value); err != nil {
			return err
		}
		add(id, name, value)
	}
	return rows.Err()
}

// FleetByUUID is the id of the fleet with that uuid, and the id of its successful
// release with a commit; "" gives the release that it should run. ErrNotFound:
// there is no such fleet or release.
func (db *DB) FleetByUUID(ctx context.Context, uuid, commit string) (fleet, release int64, err error) {
	query, args := `SELECT a.id, coalesce(a.should_be_running__release, 0) FROM application a WHERE a.uuid = ?`, []any{uuid}
	if commit != "" {
		query, args = `SELECT a.id, r.id FROM application a JOIN release r ON r.belongs_to__application = a.id
			WHERE a.uuid = ? AND r."commit" = ? AND r.status = 'success'`, []any{uuid, commit}
	}
	err = db.read.QueryRowContext(ctx, query, args...).Scan(&fleet, &release)
	if err == nil && release == 0 {
		err = sql.ErrNoRows
	}
	return fleet, release, notFound(err, "fleet %s", uuid)
}
