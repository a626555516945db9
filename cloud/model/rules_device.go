package model

import (
	"context"
	"maps"
	"regexp"
	"slices"
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
		after:  afterDevices,
		// Devices refer to each other, but decide nothing for each other.
		together: true,
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

// runnableOn asks whether a fleet may run a release.
type runnableOn struct{ release, fleet int64 }

// checkPin refuses a release that the device could never run.
func (t *txn) checkPin(ctx context.Context, w *write) error {
	pin := w.ref("is_pinned_on__release")
	if pin == 0 || !w.changes("is_pinned_on__release", "belongs_to__application") {
		return nil
	}
	target := runnableOn{pin, w.ref("belongs_to__application")}
	ok, err := fact(w, target, func() (bool, error) { return t.runnable(ctx, target.release, target.fleet) })
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
	to, err := fact(w, destination(fleet), func() (fleetType, error) { return t.destination(ctx, w.by, fleet) })
	if err != nil {
		return err
	}
	if os := w.text("os_version"); !inRange(os, to.os) {
		return &RefusedError{Reason: "The device runs " + os + "; fleets of type " + to.name + " need an operating system " + to.os + "."}
	}
	return nil
}

// destination asks about a fleet that devices are moved to.
type destination int64

// fleetType is a kind of fleets, with the range of operating systems that it needs.
type fleetType struct{ os, name string }

func (t *txn) destination(ctx context.Context, by writer, fleet int64) (to fleetType, err error) {
	table, _ := ResourceNamed("application")
	seen := by.cloud
	if !seen {
		if seen, err = t.may(ctx, by.Caller, table, access.Read, fleet); err != nil {
			return to, err
		}
	}
	if !seen {
		return to, &MissingError{Reason: "Application doesn't exist or you have no access to it."}
	}
	err = t.QueryRowContext(ctx, `
		SELECT coalesce(y.needs__os_version_range, ''), y.name FROM application a JOIN application_type y ON y.id = a.application_type
		WHERE a.id = ?`, fleet).Scan(&to.os, &to.name)
	return to, err
}

func leavingDevice(_ context.Context, t *txn, w *write) error {
	t.announce(Topic{DeviceTarget, w.id})
	return nil
}

func afterDevices(ctx context.Context, t *txn, rows []*write) error {
	switch rows[0].verb {
	case access.Delete:
		return t.dropActors(ctx, refsOf(rows, "actor"))
	case access.Create:
		return t.installOn(ctx, idsOf(rows, nil))
	}
	if err := t.leaveFleets(ctx, rows); err != nil {
		return err
	}
	if err := t.installOn(ctx, idsOf(rows, func(w *write) bool { return w.changes("belongs_to__application", "is_pinned_on__release") })); err != nil {
		return err
	}
	for _, w := range rows {
		if w.changes("belongs_to__application", "is_pinned_on__release", "device_name", "is_frozen",
			"should_be_operated_by__release", "should_be_managed_by__release") {
			t.announce(Topic{DeviceTarget, w.id})
		}
	}
	return nil
}

// leaveFleets clears what devices had of their old fleets.
func (t *txn) leaveFleets(ctx context.Context, rows []*write) error {
	left := map[int64][]int64{}
	for _, w := range rows {
		if w.changes("belongs_to__application") {
			fleet, _ := w.was["belongs_to__application"].(int64)
			left[fleet] = append(left[fleet], w.id)
		}
	}
	for _, fleet := range slices.Sorted(maps.Keys(left)) {
		devices := t.among("device", left[fleet])
		if _, err := t.ExecContext(ctx, `UPDATE image_install SET status = 'deleted', download_progress = NULL WHERE `+devices.SQL+` AND status <> 'deleted'`, devices.Args...); err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, `
			DELETE FROM service_install WHERE `+devices.SQL+` AND installs__service IN (SELECT id FROM service WHERE application = ?)`, append(devices.Args, fleet)...); err != nil {
			return err
		}
	}
	return nil
}

// installOn makes the missing service installs of devices.
func (t *txn) installOn(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	devices := t.among("d.id", ids)
	return t.installServices(ctx, devices.SQL, devices.Args...)
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
		together: true,
	}
}

func serviceInstallRules() rules {
	return rules{required: "device installs__service", fixed: "device installs__service", after: tellDevicesOfInstalls, together: true}
}

// tellDevicesOfInstalls: only with its variables does an install decide anything,
// and they go with it.
func tellDevicesOfInstalls(_ context.Context, t *txn, rows []*write) error {
	if rows[0].verb != access.Delete {
		return nil
	}
	for _, device := range refsOf(rows, "device") {
		t.announce(Topic{DeviceTarget, device})
	}
	return nil
}
