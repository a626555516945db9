package model

import "context"

// Who is told about what: each function announces a change to exactly the
// devices whose target it can be part of.

// tellFleet tells the devices of a fleet, and those whose operating system or
// supervisor it is.
func (t *txn) tellFleet(ctx context.Context, fleet int64) error {
	t.announce(Topic{FleetTarget, fleet})
	return t.tellDevices(ctx, `
		SELECT id FROM device WHERE should_be_operated_by__release IN (SELECT id FROM release WHERE belongs_to__application = ?)
			OR should_be_managed_by__release IN (SELECT id FROM release WHERE belongs_to__application = ?)`, fleet, fleet)
}

// tellService tells the devices that may run a service.
func (t *txn) tellService(ctx context.Context, service int64) error {
	return t.each(ctx, t.tellFleet, `SELECT application FROM service WHERE id = ?`, service)
}

// tellRelease tells the devices that are told to run a release: nobody while it
// is being built.
func (t *txn) tellRelease(ctx context.Context, release int64) error {
	t.announce(Topic{ReleaseTarget, release})
	if err := t.each(ctx, func(_ context.Context, fleet int64) error {
		t.announce(Topic{FleetTarget, fleet})
		return nil
	}, `SELECT id FROM application WHERE should_be_running__release = ?`, release); err != nil {
		return err
	}
	return t.tellDevices(ctx, `SELECT id FROM device WHERE is_pinned_on__release = ? OR should_be_operated_by__release = ? OR should_be_managed_by__release = ?`,
		release, release, release)
}

// tellReleaseOf tells those that run the release with this part.
func (t *txn) tellReleaseOf(ctx context.Context, part int64) error {
	return t.each(ctx, t.tellRelease, `SELECT is_part_of__release FROM image__is_part_of__release WHERE id = ?`, part)
}

// tellImage tells those that run a release with this image.
func (t *txn) tellImage(ctx context.Context, image int64) error {
	return t.each(ctx, t.tellRelease, `SELECT is_part_of__release FROM image__is_part_of__release WHERE image = ?`, image)
}

func (t *txn) tellDevices(ctx context.Context, query string, args ...any) error {
	return t.each(ctx, func(_ context.Context, device int64) error {
		t.announce(Topic{DeviceTarget, device})
		return nil
	}, query, args...)
}

// each does something with each id that a query finds.
func (t *txn) each(ctx context.Context, do func(context.Context, int64) error, query string, args ...any) error {
	ids, err := t.ids(ctx, query, args...)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := do(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// ids is what a query for one column of ids finds.
func (t *txn) ids(ctx context.Context, query string, args ...any) ([]int64, error) {
	return column[int64](t.QueryContext(ctx, query, args...))
}
