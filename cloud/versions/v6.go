package versions

import (
	"context"
	"encoding/json"
	"strconv"

	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// v6 is what v7 changed.
func v6(seven Version) Version {
	v := seven.next("v6")
	v.Written = `"OK"`
	for _, resource := range []string{"application", "device", "user"} {
		v.of(resource, func(r *model.Resource) { as(r, "actor", model.Integer) })
	}
	v.of("device", deviceSix)
	v.of("application", func(r *model.Resource) { has(r, null("depends_on__application")) })
	mine := v.Resources["application"]
	mine.Only = `EXISTS (SELECT 1 FROM organization_membership o WHERE o.is_member_of__organization = t.organization AND o."user" = ?)`
	v.Resources["my_application"] = mine
	v.of("release", func(r *model.Resource) {
		has(r, model.Field{Name: "release_type", Kind: model.Text, Expression: `CASE WHEN t.revision IS NULL THEN 'draft' ELSE 'final' END`})
		as(r, "contract", model.Text)
	})
	v.of("image", func(r *model.Resource) { as(r, "image_size", model.Integer) })
	v.drop("release_asset")
	v.Resources["gateway_download"] = model.Resource{Name: "gateway_download", Elsewhere: true,
		Fields: []model.Field{{Name: "id", Kind: model.Integer}}}

	v.writing("device", func(ctx context.Context, l Lookup, _ query.Request, f Fields) error {
		move(f, "should_be_running__release", "is_pinned_on__release")
		if err := onlyNull(f, "logs_channel", "vpn_address", "is_managed_by__device"); err != nil {
			return err
		}
		return typeBySlug(ctx, l, f, "device_type", "is_of__device_type")
	})
	v.writing("application", func(ctx context.Context, l Lookup, _ query.Request, f Fields) error {
		if err := onlyNull(f, "depends_on__application"); err != nil {
			return err
		}
		return typeBySlug(ctx, l, f, "device_type", "is_for__device_type")
	})
	v.writing("release", func(_ context.Context, _ Lookup, _ query.Request, f Fields) error { return releaseSix(f) })
	return v
}

// deviceSix: should_be_running__release was the pin, and the words for the state of
// a device were fewer.
func deviceSix(r *model.Resource) {
	status, _ := r.Field("overall_status")
	status.Expression = `CASE (` + status.Expression + `) WHEN 'disconnected' THEN 'offline' WHEN 'reduced-functionality' THEN 'idle'
		WHEN 'operational' THEN 'idle' ELSE (` + status.Expression + `) END`
	has(r, status)
	lacks(r, "should_be_running__release", "should_be_managed_by__release", "changed_api_heartbeat_state_on__date")
	renamed(r, "is_pinned_on__release", "should_be_running__release")
	for _, name := range []string{"logs_channel", "vpn_address", "is_managed_by__device"} {
		has(r, null(name))
	}
}

// releaseSix: a release had a type, and its contract was a text.
func releaseSix(f Fields) error {
	kind, ok, err := text(f, "release_type")
	if err != nil {
		return err
	}
	if ok {
		if kind != "final" && kind != "draft" {
			return refuse("release_type must be final or draft.")
		}
		delete(f, "release_type")
		f["is_final"] = json.RawMessage(strconv.FormatBool(kind == "final"))
	}
	if raw := f["contract"]; len(raw) > 0 && raw[0] == '"' {
		contract, _, err := text(f, "contract")
		if err != nil {
			return err
		}
		if !json.Valid([]byte(contract)) {
			return refuse("contract must be a JSON document.")
		}
		f["contract"] = json.RawMessage(contract)
	}
	return nil
}

// typeBySlug accepts the slug of a device type in the place of its id.
func typeBySlug(ctx context.Context, l Lookup, f Fields, from, to string) error {
	slug, ok, err := text(f, from)
	if err != nil || !ok {
		return err
	}
	id, err := l.DeviceType(ctx, slug)
	if err != nil {
		return err
	}
	if id == 0 {
		return refuse("Unknown device type " + slug)
	}
	delete(f, from)
	f[to] = json.RawMessage(strconv.FormatInt(id, 10))
	return nil
}
