package model

import (
	"context"

	"deckhand/cloud/access"
)

func imageRules() rules {
	return rules{
		required: "is_a_build_of__service is_stored_at__image_location status start_timestamp",
		server:   "is_stored_at__image_location",
		fixed:    "is_a_build_of__service",
		lengths: map[string][2]int{
			"content_hash": {0, 71}, "project_type": {0, 64}, "error_message": {0, maxErrorMessage}, "build_log": {0, maxImageLog}, "dockerfile": {0, maxDocument},
		},
		words: map[string][]string{"status": buildStatuses()},
		long:  "error_message build_log dockerfile contract",
		create: func(_ context.Context, _ *txn, w *write) error {
			w.set["is_stored_at__image_location"] = "v2/" + randomHex(16)
			return checkImage(w)
		},
		update: func(_ context.Context, _ *txn, w *write) error { return checkImage(w) },
		remove: func(ctx context.Context, t *txn, w *write) error { return t.tellImage(ctx, w.id) },
		after: each(func(ctx context.Context, t *txn, w *write) error {
			if w.verb == access.Update && w.changes("content_hash", "contract") {
				return t.tellImage(ctx, w.id)
			}
			return nil
		}),
	}
}

func checkImage(w *write) error {
	if w.text("status") == StatusSuccess && w.is("push_timestamp") == nil {
		return invalid("push_timestamp", `It is necessary that each image that has a status that is equal to "success", has a push timestamp.`)
	}
	return checkObject(w, "contract")
}

func releaseImageRules() rules {
	return rules{
		required: "image is_part_of__release",
		fixed:    "image is_part_of__release",
		after: each(func(ctx context.Context, t *txn, w *write) error {
			return t.tellRelease(ctx, w.ref("is_part_of__release"))
		}),
	}
}

// imagePartRules are those of labels and environment variables of an image in a
// release. Line breaks are allowed: the values come from compose files.
func imagePartRules(name string, longestName, longestValue int) rules {
	return rules{
		required: "release_image value " + name,
		fixed:    "release_image",
		lengths:  map[string][2]int{name: {1, longestName}, "value": {0, longestValue}},
		secret:   map[string]string{"name": "value"}[name],
		after: each(func(ctx context.Context, t *txn, w *write) error {
			if w.idle() {
				return nil
			}
			return t.tellReleaseOf(ctx, w.ref("release_image"))
		}),
	}
}

func imageProfileRules() rules {
	return rules{
		required: "release_image profile_name",
		fixed:    "release_image",
		lengths:  map[string][2]int{"profile_name": {2, 100}},
		after: each(func(ctx context.Context, t *txn, w *write) error {
			return t.tellReleaseOf(ctx, w.ref("release_image"))
		}),
	}
}

func serviceRules() rules {
	return rules{
		required: "application service_name",
		fixed:    "application",
		lengths:  map[string][2]int{"service_name": {1, 63}},
		remove:   func(ctx context.Context, t *txn, w *write) error { return t.tellService(ctx, w.id) },
		after: each(func(ctx context.Context, t *txn, w *write) error {
			if w.verb == access.Update && w.changes("service_name") {
				return t.tellService(ctx, w.id)
			}
			return nil
		}),
	}
}

func serviceLabelRules() rules {
	return rules{
		required: "service label_name value",
		fixed:    "service",
		lengths:  map[string][2]int{"label_name": {1, 1000}, "value": {0, 300}},
		after: each(func(ctx context.Context, t *txn, w *write) error {
			if w.idle() {
				return nil
			}
			return t.tellService(ctx, w.ref("service"))
		}),
	}
}
