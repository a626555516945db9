package model

import (
	"context"
	"regexp"
	"strings"

	"deckhand/cloud/access"
)

func deviceRules() rules {
	return rules{
		required: "uuid device_name actor is_of__device_type",
		// Connections are the cloud's to see; the rest is kept beside other fields.
		server: `actor api_heartbeat_state changed_api_heartbeat_state_on__date last_seen is_online last_connectivity_event
			is_connected_to_vpn last_vpn_event last_update_status_event is_managed_by__service_instance`,
		fixed: "uuid",
		lengths: map[string][2]int{
			"note": {0, 1_000_000}, "status": {0, 50}, "os_version": {0, 70}, "supervisor_version": {0, 20}, "ip_address": {0, 2000},
			"mac_address": {0, 900}, "public_address": {0, 50}, "api_secret": {0, 64},
		},
		words:  map[string][]string{"os_variant": {"prod", "dev"}, "update_status": UpdateStatuses()},
		long:   "note",
		secret: "api_secret",
		create: newDevice,
		update: changedDevice,
		remove: leavingDevice,
		after:  afterDevice,
	}
}

var deviceUUIDRule = regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{62})$`)

func newDevice(ctx context.Context, t *txn, w *write) error {
	if w.text("uuid") == "" {
		w.set["uuid"] = randomHex(16)
	}
	if !deviceUUIDRule.MatchString(w.text("uuid")) {
		return invalid("uuid", "Device UUID must be a 32 or 62 character long lower case hex string.")
	}
	if w.text("device_name") == "" {
		w.set["device_name"] = randomName()
	}
	if err := checkDeviceName(w.text("device_name")); err != nil {
		return err
	}
	if err := t.checkPin(ctx, w); err != nil {
		return err
	}
	if err := t.followVersions(ctx, w); err != nil {
		return err
	}
	actor, err := t.newActor(ctx)
	w.set["actor"] = actor
	return err
}

func checkDeviceName(name string) error {
	switch {
	case strings.ContainsAny(name, "\r\n"):
		return invalid("device_name", "Device name cannot contain any newline characters.")
	case name == "" || len([]rune(name)) > 255:
		return invalid("device_name", "A device name is one line of 1 to 255 characters.")
	}
	return nil
}

func changedDevice(ctx context.Context, t *txn, w *write) error {
	if w.sets("device_name") {
		if err := checkDeviceName(w.text("device_name")); err != nil {
			return err
		}
	}
	if w.changes("belongs_to__application") {
		if err := t.movable(ctx, w); err != nil {
			return err
		}
		// The old fleet's releases are not the new one's.
		w.put("is_pinned_on__release", nil)
	}
	if err := t.checkPin(ctx, w); err != nil {
		return err
	}
	if w.changes("is_of__device_type") {
		w.put("should_be_operated_by__release", nil)
	}
	if err := t.checkSystemTargets(ctx, w); err != nil {
		return err
	}
	if w.changes("update_status") {
		w.set["last_update_status_event"] = t.now
	}
	if w.changes("is_connected_to_vpn") {
		w.set["is_online"], w.set["last_vpn_event"], w.set["last_connectivity_event"] = w.set["is_connected_to_vpn"], t.now, t.now
	}
	return t.followVersions(ctx, w)
}

// checkPin refuses a release that the device could never run.
func (t *txn) checkPin(ctx context.Context, w *write) error {
	pin := w.ref("is_pinned_on__release")
	if pin == 0 || !w.changes("is_pinned_on__release", "belongs_to__application") {
		return nil
	}
	ok, err := t.runnable(ctx, pin, w.ref("belongs_to__application"))
	if err == nil && !ok {
		err = invalid("is_pinned_on__release", "A device can only be pinned on a successful release of its own fleet.")
	}
	return err
}

// movable refuses a fleet that the caller cannot see, or that the device's
// operating system is too old for.
func (t *txn) movable(ctx context.Context, w *write) error {
	fleet := w.ref("belongs_to__application")
	if fleet == 0 {
		return nil
	}
	table, _ := ResourceNamed("application")
	seen, err := t.may(ctx, w.by.Caller, table, access.Read, fleet)
	if err != nil {
		return err
	}
	seen = seen || w.by.cloud
	if !seen {
		return &MissingError{Reason: "Application doesn't exist or you have no access to it."}
	}
	var wanted, name string
	if err := t.QueryRowContext(ctx, `
		SELECT coalesce(y.needs__os_version_range, ''), y.name FROM application a JOIN application_type y ON y.id = a.application_type
		WHERE a.id = ?`, fleet).Scan(&wanted, &name); err != nil {
		return err
	}
	if os := w.text("os_version"); !inRange(os, wanted) {
		return &RefusedError{Reason: "The device runs " + os + "; fleets of type " + name + " need an operating system " + wanted + "."}
	}
	return nil
}

func leavingDevice(_ context.Context, t *txn, w *write) error {
	t.announce(Topic{DeviceTarget, w.id})
	return nil
}

func afterDevice(ctx context.Context, t *txn, w *write) error {
	switch {
	case w.verb == access.Delete:
		return t.dropActor(ctx, w.was["actor"])
	case w.verb == access.Create:
		return t.installServices(ctx, `d.id = ?`, w.id)
	case len(w.set) == 0:
		return nil
	}
	if w.changes("belongs_to__application") {
		if err := t.leaveFleet(ctx, w); err != nil {
			return err
		}
	}
	if w.changes("belongs_to__application", "is_pinned_on__release") {
		if err := t.installServices(ctx, `d.id = ?`, w.id); err != nil {
			return err
		}
	}
	if w.changes("belongs_to__application", "is_pinned_on__release", "device_name", "is_frozen",
		"should_be_operated_by__release", "should_be_managed_by__release") {
		t.announce(Topic{DeviceTarget, w.id})
	}
	return nil
}

// leaveFleet clears what the device had of its old fleet.
func (t *txn) leaveFleet(ctx context.Context, w *write) error {
	if _, err := t.ExecContext(ctx, `UPDATE image_install SET status = 'deleted', download_progress = NULL WHERE device = ? AND status <> 'deleted'`, w.id); err != nil {
		return err
	}
	_, err := t.ExecContext(ctx, `
		DELETE FROM service_install WHERE device = ? AND installs__service IN (SELECT id FROM service WHERE application = ?)`, w.id, w.was["belongs_to__application"])
	return err
}

func imageInstallRules() rules {
	return rules{
		required: "device installs__image is_provided_by__release install_date status",
		fixed:    "device installs__image",
		words:    map[string][]string{"status": installStatuses()},
		create: func(_ context.Context, t *txn, w *write) error {
			w.put("install_date", t.now)
			return nil
		},
	}
}

func serviceInstallRules() rules {
	return rules{required: "device installs__service", fixed: "device installs__service", after: tellDeviceOfInstall}
}

// tellDeviceOfInstall: only with its variables does an install decide anything,
// and they go with it.
func tellDeviceOfInstall(_ context.Context, t *txn, w *write) error {
	if w.verb == access.Delete {
		t.announce(Topic{DeviceTarget, w.ref("device")})
	}
	return nil
}
