package model

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"deckhand/cloud/access"
)

// VPNEvent is that devices came to a VPN server, or left it.
type VPNEvent struct {
	UUIDs     []string
	Service   int64 // of the server, a row of service_instance
	Connected bool
}

// NoteVPN notes who is connected to a VPN server. UUIDs of no device are passed over, and
// so are devices that left one server when they are at another by now. ErrNotFound: there
// is no such server.
func (db *DB) NoteVPN(ctx context.Context, by access.Caller, e VPNEvent) error {
	where, permitted, ok := access.Rows(by, "device", access.Connect)
	if !ok {
		return fmt.Errorf("connect devices: %w", ErrForbidden)
	}
	return db.update(ctx, func(t *txn) error {
		known, err := t.exists(ctx, `SELECT 1 FROM service_instance WHERE id = ?`, e.Service)
		if err == nil && !known {
			err = fmt.Errorf("service instance %d: %w", e.Service, ErrNotFound)
		}
		if err != nil {
			return err
		}
		change, first := left, []any{millis(t.now), millis(t.now), e.Service}
		if e.Connected {
			change, first = arrived, []any{e.Service, millis(t.now), millis(t.now)}
		}
		for some := range slices.Chunk(e.UUIDs, 200) {
			args := slices.Clone(first)
			for _, uuid := range some {
				args = append(args, uuid)
			}
			n, err := t.affected(ctx, change+` AND id IN (SELECT t.id FROM device t WHERE t.uuid IN (?`+strings.Repeat(", ?", len(some)-1)+`) AND (`+where+`))`,
				append(args, permitted...)...)
			if err != nil {
				return err
			}
			if n > 0 {
				t.announce(OverviewTopic())
			}
		}
		return nil
	})
}

// arrived takes the server and twice the time, left twice the time and the server.
const (
	arrived = `
		UPDATE device SET is_managed_by__service_instance = ?,
			last_connectivity_event = CASE WHEN is_online THEN last_connectivity_event ELSE CAST(? AS BIGINT) END,
			last_vpn_event = CASE WHEN is_connected_to_vpn THEN last_vpn_event ELSE CAST(? AS BIGINT) END,
			is_online = TRUE, is_connected_to_vpn = TRUE
		WHERE TRUE`
	// A device that is heard without the VPN stays online.
	left = `
		UPDATE device SET is_managed_by__service_instance = NULL,
			last_connectivity_event = CASE WHEN api_heartbeat_state = 'online' THEN last_connectivity_event ELSE CAST(? AS BIGINT) END,
			last_vpn_event = CASE WHEN api_heartbeat_state = 'online' THEN last_vpn_event ELSE CAST(? AS BIGINT) END,
			is_online = (api_heartbeat_state = 'online'), is_connected_to_vpn = (api_heartbeat_state = 'online')
		WHERE is_managed_by__service_instance = ?`
)

func serviceInstanceRules() rules {
	return rules{
		required: "service_type ip_address last_heartbeat",
		fixed:    "service_type",
		words:    map[string][]string{"service_type": {"vpn"}},
		create: func(_ context.Context, t *txn, w *write) error {
			if w.is("last_heartbeat") == nil {
				w.set["last_heartbeat"] = t.now
			}
			return checkAddress(w)
		},
		update: func(_ context.Context, _ *txn, w *write) error { return checkAddress(w) },
	}
}

func checkAddress(w *write) error {
	if _, err := netip.ParseAddr(w.text("ip_address")); w.changes("ip_address") && err != nil {
		return invalid("ip_address", "ip_address must be an IP address.")
	}
	return nil
}
