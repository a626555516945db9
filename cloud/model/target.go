package model

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
)

// Target is all that decides what a device should run, read at one moment.
type Target struct {
	Device Device
	Fleet  *TargetFleet // nil: the device has no fleet
	// Config holds the configuration variables, the device's over the fleet's.
	Config map[string]string
}

// TargetFleet is the device's fleet and what it should run of it.
type TargetFleet struct {
	Fleet
	Release *TargetRelease // nil: nothing yet
}

// TargetRelease is a release as a device should run it.
type TargetRelease struct {
	ID          int64
	Commit      string
	Composition json.RawMessage
	Services    []TargetService // by name
}

// TargetService is one service with its variables and labels merged, the
// more particular over the more general.
type TargetService struct {
	ID, ImageID int64
	Name        string
	Image       string // location@content hash
	Contract    json.RawMessage
	Environment map[string]string
	Labels      map[string]string
}

// Target reads what a device should run.
func (db *DB) Target(ctx context.Context, uuid string) (Target, error) {
	tx, err := db.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // one moment for all queries
	if err != nil {
		return Target{}, err
	}
	defer tx.Rollback() //nolint:errcheck // it only read
	t, err := (&targetReader{db: db, tx: tx}).read(ctx, uuid)
	if err != nil {
		return Target{}, fmt.Errorf("read target of device %s: %w", uuid, err)
	}
	return t, nil
}

type targetReader struct {
	db *DB
	tx *sql.Tx
}

func (r *targetReader) read(ctx context.Context, uuid string) (Target, error) {
	var t Target
	var err error
	if t.Device, err = scanDevice(r.tx.QueryRowContext(ctx, deviceQuery+` WHERE d.uuid = ?`, uuid)); err != nil {
		return t, notFound(err, "device %s", uuid)
	}
	t.Config = map[string]string{}
	if err := r.pairs(ctx, t.Config, `SELECT name, value FROM application_config_variable WHERE application = ?`, t.Device.Fleet); err != nil {
		return t, err
	}
	if err := r.pairs(ctx, t.Config, `SELECT name, value FROM device_config_variable WHERE device = ?`, t.Device.ID); err != nil {
		return t, err
	}
	if t.Device.Fleet == 0 {
		return t, nil
	}
	fleet, err := scanFleet(r.tx.QueryRowContext(ctx, fleetQuery+` WHERE a.id = ?`, t.Device.Fleet))
	if err != nil {
		return t, err
	}
	t.Fleet = &TargetFleet{Fleet: fleet}
	wanted := t.Device.PinnedRelease
	if wanted == 0 {
		wanted = fleet.TargetRelease
	}
	if wanted != 0 {
		t.Fleet.Release, err = r.release(ctx, t.Device, wanted)
	}
	return t, err
}

func (r *targetReader) release(ctx context.Context, d Device, id int64) (*TargetRelease, error) {
	release := &TargetRelease{ID: id}
	var composition string
	err := r.tx.QueryRowContext(ctx, `SELECT "commit", composition FROM release WHERE id = ?`, id).Scan(&release.Commit, &composition)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	release.Composition = json.RawMessage(composition)
	rows, err := r.tx.QueryContext(ctx, `
		SELECT p.id, s.id, i.id, s.service_name, i.is_stored_at__image_location, coalesce(i.content_hash, ''), i.contract
		FROM image__is_part_of__release p
		JOIN image i ON i.id = p.image
		JOIN service s ON s.id = i.is_a_build_of__service
		WHERE p.is_part_of__release = ? ORDER BY s.service_name, p.id`, id)
	if err != nil {
		return nil, err
	}
	parts, err := collect(rows, r.part)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := r.decorate(ctx, d, &p); err != nil {
			return nil, err
		}
		release.Services = append(release.Services, p.TargetService)
	}
	return release, nil
}

type targetPart struct {
	releaseImage int64
	TargetService
}

func (r *targetReader) part(row interface{ Scan(...any) error }) (targetPart, error) {
	var p targetPart
	var repository, hash string
	var contract sql.NullString
	err := row.Scan(&p.releaseImage, &p.ID, &p.ImageID, &p.Name, &repository, &hash, &contract)
	p.Image = r.db.location(repository)
	if hash != "" {
		p.Image += "@" + hash
	}
	if contract.Valid {
		p.Contract = json.RawMessage(contract.String)
	}
	return p, err
}

// decorate merges variables and labels, low to high.
func (r *targetReader) decorate(ctx context.Context, d Device, p *targetPart) error {
	p.Environment, p.Labels = map[string]string{}, map[string]string{}
	for _, layer := range []struct {
		into  map[string]string
		query string
		args  []any
	}{
		{p.Environment, `SELECT name, value FROM image_environment_variable WHERE release_image = ?`, []any{p.releaseImage}},
		{p.Environment, `SELECT name, value FROM application_environment_variable WHERE application = ?`, []any{d.Fleet}},
		{p.Environment, `SELECT name, value FROM service_environment_variable WHERE service = ?`, []any{p.ID}},
		{p.Environment, `SELECT name, value FROM device_environment_variable WHERE device = ?`, []any{d.ID}},
		{p.Environment, `SELECT v.name, v.value FROM device_service_environment_variable v JOIN service_install i ON i.id = v.service_install
			WHERE i.device = ? AND i.installs__service = ?`, []any{d.ID, p.ID}},
		{p.Labels, `SELECT label_name, value FROM image_label WHERE release_image = ?`, []any{p.releaseImage}},
		{p.Labels, `SELECT label_name, value FROM service_label WHERE service = ?`, []any{p.ID}},
	} {
		if err := r.pairs(ctx, layer.into, layer.query, layer.args...); err != nil {
			return err
		}
	}
	return nil
}

func (r *targetReader) pairs(ctx context.Context, into map[string]string, query string, args ...any) error {
	rows, err := r.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		into[name] = value
	}
	return rows.Err()
}
