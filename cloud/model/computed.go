package model

import (
	"strconv"
	"strings"
)

// SQL of computed fields, over the alias t.
const (
	effectiveTarget = `coalesce(t.is_pinned_on__release,
		(SELECT a.should_be_running__release FROM application a WHERE a.id = t.belongs_to__application))`

	// There need not be a VPN: a device that asks for its state is as good as
	// connected.
	connected = `t.is_connected_to_vpn OR t.is_online`

	downloads = `EXISTS (SELECT 1 FROM image_install i WHERE i.device = t.id AND i.status = 'Downloading' AND i.download_progress IS NOT NULL)`
	alive     = `t.api_heartbeat_state IN ('online', 'timeout')`
	fetching  = alive + ` AND t.status = 'Downloading' AND t.download_progress IS NOT NULL`

	// The first that fits. A device that reports without being connected is not
	// degraded here: connected is true for it as soon as it asks.
	overallStatus = `CASE
		WHEN NOT t.is_active THEN 'inactive'
		WHEN t.provisioning_state = 'Post-Provisioning' THEN 'post-provisioning'
		WHEN NOT (` + connected + `) AND t.last_connectivity_event IS NULL AND t.api_heartbeat_state = 'unknown' THEN 'configuring'
		WHEN NOT (` + connected + `) AND t.api_heartbeat_state IN ('offline', 'unknown') THEN 'disconnected'
		WHEN ` + fetching + ` THEN 'updating'
		WHEN t.provisioning_progress IS NOT NULL THEN 'configuring'
		WHEN ` + alive + ` AND ` + downloads + ` THEN 'updating'
		WHEN t.api_heartbeat_state = 'timeout' OR (` + connected + `) AND t.api_heartbeat_state <> 'online' THEN 'reduced-functionality'
		ELSE 'operational' END`

	// The mean is over what is downloaded and over the target release; what has
	// no progress is done. Adding a half before cutting rounds it.
	overallProgress = `CASE
		WHEN NOT t.is_active THEN NULL
		WHEN t.provisioning_state = 'Post-Provisioning' THEN t.provisioning_progress
		WHEN NOT (` + connected + `) AND t.last_connectivity_event IS NULL AND t.api_heartbeat_state = 'unknown' THEN t.provisioning_progress
		WHEN NOT (` + connected + `) AND t.api_heartbeat_state IN ('offline', 'unknown') THEN NULL
		WHEN ` + fetching + ` THEN t.download_progress
		WHEN t.provisioning_progress IS NOT NULL THEN t.provisioning_progress
		WHEN ` + alive + ` AND ` + downloads + ` THEN (
			SELECT (2 * CAST(sum(coalesce(i.download_progress, 100)) AS BIGINT) + count(*)) / (2 * count(*)) FROM image_install i
			WHERE i.device = t.id AND i.status <> 'deleted'
			AND (i.status = 'Downloading' OR i.is_provided_by__release = ` + effectiveTarget + `))
		ELSE NULL END`

	// versionParts is what version is made of; variant is last, because it is
	// the only part that may contain a slash.
	versionParts = `t.raw_version || '/' || CAST(t.semver_major AS TEXT) || '/' || CAST(t.semver_minor AS TEXT) || '/' || CAST(t.semver_patch AS TEXT)
		|| '/' || t.semver_prerelease || '/' || CASE WHEN t.revision IS NULL THEN CAST(t.created_at AS TEXT) ELSE '' END`
)

// versionOf is the structure of a version, from versionParts.
func versionOf(parts string) map[string]any {
	all := strings.Split(parts, "/")
	// A variant with slashes is a part of raw_version, which comes first.
	n := len(all) - 5
	raw, all := strings.Join(all[:n], "/"), all[n:]
	number := func(s string) int64 {
		v, _ := strconv.ParseInt(s, 10, 64) // written by the database
		return v
	}
	core := strings.Join(all[:3], ".")
	var pre []any
	for id := range strings.SplitSeq(all[3], ".") {
		if id != "" {
			pre = append(pre, id)
		}
	}
	if all[4] != "" { // a draft has the time that it was made
		pre = append(pre, number(all[4]))
	}
	text, build, _ := strings.Cut(raw, "+")
	_, prerelease, is := strings.Cut(text, "-")
	v := map[string]any{"raw": raw, "major": number(all[0]), "minor": number(all[1]), "patch": number(all[2]),
		"version": core, "prerelease": []any{}, "build": []string{}}
	if is {
		v["version"], v["prerelease"] = core+"-"+prerelease, pre
	}
	if build != "" {
		v["build"] = strings.Split(build, ".")
	}
	return v
}
