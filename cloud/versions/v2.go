package versions

import (
	"context"
	"slices"

	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// v2 is the time of one container: an application has builds, of which it and each
// device run one, named by its commit. References had no verbs.
//
// Only what devices and clients of that time asked for is there. Services,
// releases and images of more than one container cannot be said in it.
func v2(four Version) Version {
	v := four.next("v2")
	v.only("application", "device", "device_environment_variable", "application_environment_variable", "release", "user", "device_type")
	v.of("device", func(r *model.Resource) {
		renamed(r, "belongs_to__application", "application")
		renamed(r, "device_name", "name")
		renamed(r, "is_on__commit", "commit")
		lacks(r, "should_be_running__release", "should_be_operated_by__release", "is_managed_by__service_instance")
		has(r, null("device"))
	})
	v.of("application", func(r *model.Resource) {
		lacks(r, "application_type", "is_of__class", "is_host", "should_track_latest_release")
		has(r, null("git_repository"))
	})
	v.of("release", func(r *model.Resource) {
		renamed(r, "belongs_to__application", "application")
		onlyFields(r, "id", "created_at", "application", "commit", "status", "build_log", "start_timestamp", "end_timestamp")
		r.Navs = slices.DeleteFunc(r.Navs, func(n model.Nav) bool { return n.Many })
		has(r, model.Field{Name: "is_successful", Kind: model.Boolean, Expression: `t.status = 'success'`})
	})
	v.rename("application_environment_variable", "environment_variable")
	v.rename("release", "build")
	v.writing("device", func(_ context.Context, _ Lookup, _ query.Request, f Fields) error {
		move(f, "application", "belongs_to__application")
		move(f, "name", "device_name")
		move(f, "commit", "is_on__commit")
		delete(f, "logs_channel") // a channel of a service that is gone
		return nil
	})
	v.writing("application", func(_ context.Context, _ Lookup, _ query.Request, f Fields) error {
		return onlyNull(f, "git_repository")
	})
	v.writing("build", func(context.Context, Lookup, query.Request, Fields) error {
		return refuse("Builds are made by the builder: push a project.")
	})
	return v
}
