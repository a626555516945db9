package compose

import "fmt"

// Treatment says what is done with an attribute.
type Treatment string

// The treatments.
const (
	Apply  Treatment = "applied"
	Ignore Treatment = "ignored"
	Refuse Treatment = "rejected"
)

// Class says what a change of an attribute does to a running service.
type Class string

// The classes. Only applied attributes have one.
const (
	Replace  Class = "replace"  // a new container, network or volume is made
	InPlace  Class = "in place" // the engine changes the running container
	Metadata Class = "metadata" // nothing on the engine is touched
	Injected Class = "injected" // takes effect when the container is next made
)

// Attribute is one row of the table: an attribute of the compose specification
// and how it is treated. A row that is ignored or rejected speaks for all
// attributes beneath it; an applied row does so only when it has no rows beneath.
type Attribute struct {
	Path   string    // with * for any name and [] for any list item
	Treat  Treatment // how it is treated
	Class  Class     // what a change of it does
	MinAPI string    // engine API that has it, when newer than 1.41
	Beyond bool      // not in the compose specification
	Why    string    // why it is not applied, for the owner
	InFile Treatment // another treatment in a compose file than in a release

	form form // checks the value and gives it one spelling
}

// floorAPI is the oldest engine API that is supported. An engine that old does
// not refuse an attribute of a newer API: it loses it.
const floorAPI = "1.41"

// why is the sentence a Problem carries.
func (a *Attribute) why() string {
	if a.MinAPI != "" {
		return fmt.Sprintf("%s (needs engine API %s; the oldest supported one is %s)", a.Why, a.MinAPI, floorAPI)
	}
	return a.Why
}

// treat is the treatment for one kind of document.
func (a *Attribute) treat(file bool) Treatment {
	if file && a.InFile != "" {
		return a.InFile
	}
	return a.Treat
}

// Sentences that several rows share.
const (
	whyFlat    = "one self-contained document is expected; write it with: docker compose config"
	whySwarm   = "there is no swarm on a device"
	whyHost    = "use a label io.balena.features.* for access to the host"
	whyNames   = "names are given by the supervisor, so that apps cannot collide"
	whyWindows = "only for Windows containers"
	whySingle  = "each service is one container"
	whyOnce    = "how services are updated is said by labels io.balena.update.*"
	whyStore   = "there is no store beside the release; use content or environment"
	whyBeside  = "a release has no files beside it; use content or environment"
	whyContent = "only the content counts"
)

// Attributes is the table. A new attribute is one row here and one field in
// package state; a test fails while the specification has an attribute that no
// row claims.
var Attributes = []Attribute{
	// The document.
	{Path: "name", Treat: Apply, Class: Replace, form: text},
	{Path: "version", Treat: Ignore, Why: "obsolete; the current specification is always used"},
	{Path: "include", Treat: Ignore, InFile: Refuse, Why: whyFlat},
	{Path: "configs", Treat: Apply, form: named},
	{Path: "secrets", Treat: Apply, form: named},
	{Path: "models", Treat: Ignore, Why: "there is no model runner on a device"},
	{Path: "jobs", Treat: Ignore, Why: "use a service with restart: no"},
	{Path: "services", Treat: Apply, form: named},
	{Path: "networks", Treat: Apply, form: named},
	{Path: "volumes", Treat: Apply, form: named},

	// What runs.
	{Path: "services.*", Treat: Apply, form: object},
	{Path: "services.*.image", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.command", Treat: Apply, Class: Replace, form: command},
	{Path: "services.*.entrypoint", Treat: Apply, Class: Replace, form: command},
	{Path: "services.*.user", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.working_dir", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.environment", Treat: Apply, Class: Replace, form: environment},
	{Path: "services.*.labels", Treat: Apply, Class: Replace, form: mapping},
	{Path: "services.*.build", Treat: Ignore, Why: "images are built before a release is made; the image is used"},
	{Path: "services.*.env_file", Treat: Refuse, Why: whyFlat},
	{Path: "services.*.label_file", Treat: Ignore, InFile: Refuse, Why: whyFlat},
	{Path: "services.*.extends", Treat: Ignore, InFile: Refuse, Why: whyFlat},
	{Path: "services.*.provider", Treat: Ignore, Why: "a service is a container made from an image"},
	{Path: "services.*.develop", Treat: Ignore, Why: "only for development on a workstation"},
	{Path: "services.*.attach", Treat: Ignore, Why: "only for a terminal"},
	{Path: "services.*.profiles", Treat: Ignore, Why: "every service of a release is started"},
	{Path: "services.*.scale", Treat: Ignore, Why: whySingle, form: notOne},
	{Path: "services.*.container_name", Treat: Ignore, Why: whyNames},
	{Path: "services.*.platform", Treat: Ignore, Why: "the image of a release is already the one for the device", form: platform},
	{Path: "services.*.pull_policy", Treat: Ignore, Why: "the update strategy decides when images are fetched"},
	{Path: "services.*.pull_refresh_after", Treat: Ignore, Why: "images are fetched once for each release"},
	{Path: "services.*.annotations", Treat: Refuse, MinAPI: "1.43", Why: "they would be lost; use labels"},
	{Path: "services.*.models", Treat: Ignore, Why: "there is no model runner on a device"},

	// When it runs.
	{Path: "services.*.restart", Treat: Apply, Class: Replace, form: restart},
	{Path: "services.*.stop_signal", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.stop_grace_period", Treat: Apply, Class: Replace, form: duration},
	{Path: "services.*.depends_on", Treat: Apply, Class: Metadata, form: namesToMap},
	{Path: "services.*.depends_on.*", Treat: Apply, Class: Metadata, form: dependency},
	{Path: "services.*.depends_on.*.condition", Treat: Apply, Class: Metadata, form: text},
	{Path: "services.*.depends_on.*.required", Treat: Apply, Class: Metadata, form: boolean},
	{Path: "services.*.depends_on.*.restart", Treat: Apply, Class: Metadata, form: boolean},
	{Path: "services.*.healthcheck", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.healthcheck.test", Treat: Apply, Class: Replace, form: healthTest},
	{Path: "services.*.healthcheck.disable", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.healthcheck.interval", Treat: Apply, Class: Replace, form: duration},
	{Path: "services.*.healthcheck.timeout", Treat: Apply, Class: Replace, form: duration},
	{Path: "services.*.healthcheck.start_period", Treat: Apply, Class: Replace, form: duration},
	{Path: "services.*.healthcheck.retries", Treat: Apply, Class: Replace, form: natural},
	{Path: "services.*.healthcheck.start_interval", Treat: Ignore, MinAPI: "1.44", Why: "the interval is used from the beginning"},
	{Path: "services.*.pre_start", Treat: Ignore, Why: "use a service with restart: no and depends_on"},
	{Path: "services.*.post_start", Treat: Ignore, Why: "hooks are not supported; do it in the service's own start"},
	{Path: "services.*.pre_stop", Treat: Ignore, Why: "hooks are not supported; handle the stop signal"},

	// Its network.
	{Path: "services.*.hostname", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.domainname", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.mac_address", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.network_mode", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.networks", Treat: Apply, Class: Replace, form: namesToMap},
	{Path: "services.*.networks.*", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.networks.*.aliases", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.networks.*.ipv4_address", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.networks.*.ipv6_address", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.networks.*.link_local_ips", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.networks.*.priority", Treat: Apply, Class: Replace, form: integer},
	{Path: "services.*.networks.*.gw_priority", Treat: Ignore, MinAPI: "1.48", Why: "the engine chooses the default gateway"},
	{Path: "services.*.networks.*.interface_name", Treat: Ignore, MinAPI: "1.49", Why: "the engine names interfaces"},
	{Path: "services.*.networks.*.mac_address", Treat: Ignore, MinAPI: "1.44", Why: "use mac_address of the service"},
	{Path: "services.*.networks.*.driver_opts", Treat: Apply, Class: Replace, form: mapping},
	{Path: "services.*.networks.*.use_service_name_alias", Treat: Ignore, Why: "a service can always be reached by its name"},
	{Path: "services.*.ports", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.ports.[]", Treat: Apply, Class: Replace, form: portForm},
	{Path: "services.*.ports.[].target", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.ports.[].published", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.ports.[].host_ip", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.ports.[].protocol", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.ports.[].mode", Treat: Ignore, Why: whySwarm},
	{Path: "services.*.ports.[].name", Treat: Ignore, Why: "only a comment"},
	{Path: "services.*.ports.[].app_protocol", Treat: Ignore, Why: "only a comment"},
	{Path: "services.*.expose", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.extra_hosts", Treat: Apply, Class: Replace, form: hosts},
	{Path: "services.*.dns", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.dns_search", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.dns_opt", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.links", Treat: Ignore, Why: "services of one network reach each other by name; for another name use networks.*.aliases, for an order depends_on"},
	{Path: "services.*.external_links", Treat: Ignore, Why: "containers outside the app cannot be reached by name"},

	// Its files.
	{Path: "services.*.volumes", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.volumes.[]", Treat: Apply, Class: Replace, form: volumeForm},
	{Path: "services.*.volumes.[].type", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.volumes.[].source", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.volumes.[].target", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.volumes.[].read_only", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.volumes.[].consistency", Treat: Ignore, Why: "has no effect on Linux"},
	{Path: "services.*.volumes.[].bind", Treat: Ignore, Why: whyHost},
	{Path: "services.*.volumes.[].image", Treat: Refuse, MinAPI: "1.48", Why: "images cannot be mounted"},
	{Path: "services.*.volumes.[].volume", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.volumes.[].volume.nocopy", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.volumes.[].volume.labels", Treat: Ignore, Why: "set labels where the volume is declared"},
	{Path: "services.*.volumes.[].volume.subpath", Treat: Refuse, MinAPI: "1.45", Why: "the whole volume would be mounted instead"},
	{Path: "services.*.volumes.[].tmpfs", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.volumes.[].tmpfs.size", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.volumes.[].tmpfs.mode", Treat: Apply, Class: Replace, form: fileMode},
	{Path: "services.*.tmpfs", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.volumes_from", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.configs", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.configs.[]", Treat: Apply, Class: Replace, form: fileForm},
	{Path: "services.*.configs.[].source", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.configs.[].target", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.configs.[].uid", Treat: Apply, Class: Replace, form: natural},
	{Path: "services.*.configs.[].gid", Treat: Apply, Class: Replace, form: natural},
	{Path: "services.*.configs.[].mode", Treat: Apply, Class: Replace, form: fileMode},
	{Path: "services.*.secrets", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.secrets.[]", Treat: Apply, Class: Replace, form: fileForm},
	{Path: "services.*.secrets.[].source", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.secrets.[].target", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.secrets.[].uid", Treat: Apply, Class: Replace, form: natural},
	{Path: "services.*.secrets.[].gid", Treat: Apply, Class: Replace, form: natural},
	{Path: "services.*.secrets.[].mode", Treat: Apply, Class: Replace, form: fileMode},
	{Path: "services.*.read_only", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.storage_opt", Treat: Apply, Class: Replace, form: mapping},

	// What it may do.
	{Path: "services.*.privileged", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.cap_add", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.cap_drop", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.group_add", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.security_opt", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.devices", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.devices.[]", Treat: Apply, Class: Replace, form: deviceForm},
	{Path: "services.*.devices.[].source", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.devices.[].target", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.devices.[].permissions", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.device_cgroup_rules", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.gpus", Treat: Apply, Class: Replace, form: gpus},
	{Path: "services.*.gpus.[]", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.gpus.[].capabilities", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.gpus.[].driver", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.gpus.[].count", Treat: Apply, Class: Replace, form: deviceCount},
	{Path: "services.*.gpus.[].device_ids", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.gpus.[].options", Treat: Apply, Class: Replace, form: mapping},
	{Path: "services.*.use_api_socket", Treat: Ignore, Why: whyHost},
	{Path: "services.*.credential_spec", Treat: Refuse, Why: whyWindows},
	{Path: "services.*.isolation", Treat: Refuse, Why: whyWindows, form: notDefault},
	{Path: "services.*.pid", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.ipc", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.userns_mode", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.uts", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.cgroup", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.cgroup_parent", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.runtime", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.sysctls", Treat: Apply, Class: Replace, form: mapping},
	{Path: "services.*.ulimits", Treat: Apply, Class: Replace, form: named},
	{Path: "services.*.ulimits.*", Treat: Apply, Class: Replace, form: ulimitForm},
	{Path: "services.*.ulimits.*.soft", Treat: Apply, Class: Replace, form: integer},
	{Path: "services.*.ulimits.*.hard", Treat: Apply, Class: Replace, form: integer},
	{Path: "services.*.umask", Treat: Ignore, Why: "the engine has no such setting; call umask in the service"},
	{Path: "services.*.init", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.tty", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.stdin_open", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.logging", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.logging.driver", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.logging.options", Treat: Apply, Class: Replace, form: mapping},

	// How much it may use.
	{Path: "services.*.cpus", Treat: Apply, Class: Replace, form: decimal},
	{Path: "services.*.cpu_shares", Treat: Apply, Class: Replace, form: natural},
	{Path: "services.*.cpu_quota", Treat: Apply, Class: Replace, form: integer},
	{Path: "services.*.cpuset", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.cpu_count", Treat: Ignore, Why: whyWindows},
	{Path: "services.*.cpu_percent", Treat: Ignore, Why: whyWindows},
	{Path: "services.*.cpu_period", Treat: Apply, Class: Replace, form: integer},
	{Path: "services.*.cpu_rt_period", Treat: Apply, Class: Replace, form: microseconds},
	{Path: "services.*.cpu_rt_runtime", Treat: Apply, Class: Replace, form: microseconds},
	{Path: "services.*.blkio_config", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.blkio_config.weight", Treat: Apply, Class: Replace, form: weight},
	{Path: "services.*.blkio_config.weight_device", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.blkio_config.weight_device.[]", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.blkio_config.weight_device.[].path", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.blkio_config.weight_device.[].weight", Treat: Apply, Class: Replace, form: weight},
	{Path: "services.*.blkio_config.device_read_bps", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.blkio_config.device_read_bps.[]", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.blkio_config.device_read_bps.[].path", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.blkio_config.device_read_bps.[].rate", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.blkio_config.device_write_bps", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.blkio_config.device_write_bps.[]", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.blkio_config.device_write_bps.[].path", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.blkio_config.device_write_bps.[].rate", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.blkio_config.device_read_iops", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.blkio_config.device_read_iops.[]", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.blkio_config.device_read_iops.[].path", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.blkio_config.device_read_iops.[].rate", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.blkio_config.device_write_iops", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.blkio_config.device_write_iops.[]", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.blkio_config.device_write_iops.[].path", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.blkio_config.device_write_iops.[].rate", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.mem_limit", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.mem_reservation", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.memswap_limit", Treat: Apply, Class: Replace, form: swapSize},
	{Path: "services.*.mem_swappiness", Treat: Apply, Class: Replace, form: swappiness},
	{Path: "services.*.shm_size", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.pids_limit", Treat: Apply, Class: Replace, form: integer},
	{Path: "services.*.oom_score_adj", Treat: Apply, Class: Replace, form: integer},
	{Path: "services.*.oom_kill_disable", Treat: Apply, Class: Replace, form: boolean},
	{Path: "services.*.deploy", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.deploy.resources", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.deploy.resources.limits", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.deploy.resources.limits.cpus", Treat: Apply, Class: Replace, form: decimal},
	{Path: "services.*.deploy.resources.limits.memory", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.deploy.resources.limits.pids", Treat: Apply, Class: Replace, form: integer},
	{Path: "services.*.deploy.resources.reservations", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.deploy.resources.reservations.cpus", Treat: Ignore, Why: "the engine reserves no CPUs for a container; use cpu_shares"},
	{Path: "services.*.deploy.resources.reservations.memory", Treat: Apply, Class: Replace, form: size},
	{Path: "services.*.deploy.resources.reservations.generic_resources", Treat: Ignore, Why: whySwarm},
	{Path: "services.*.deploy.resources.reservations.devices", Treat: Apply, Class: Replace, form: list},
	{Path: "services.*.deploy.resources.reservations.devices.[]", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.deploy.resources.reservations.devices.[].capabilities", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.deploy.resources.reservations.devices.[].driver", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.deploy.resources.reservations.devices.[].count", Treat: Apply, Class: Replace, form: deviceCount},
	{Path: "services.*.deploy.resources.reservations.devices.[].device_ids", Treat: Apply, Class: Replace, form: textList},
	{Path: "services.*.deploy.resources.reservations.devices.[].options", Treat: Apply, Class: Replace, form: mapping},
	{Path: "services.*.deploy.restart_policy", Treat: Apply, Class: Replace, form: object},
	{Path: "services.*.deploy.restart_policy.condition", Treat: Apply, Class: Replace, form: text},
	{Path: "services.*.deploy.restart_policy.max_attempts", Treat: Apply, Class: Replace, form: natural},
	{Path: "services.*.deploy.restart_policy.delay", Treat: Ignore, Why: "the engine waits longer after each restart, from 100ms to 1m"},
	{Path: "services.*.deploy.restart_policy.window", Treat: Ignore, Why: "a restart counts as successful when the service ran for 10s"},
	{Path: "services.*.deploy.replicas", Treat: Ignore, Why: whySingle, form: notOne},
	{Path: "services.*.deploy.mode", Treat: Ignore, Why: whySwarm},
	{Path: "services.*.deploy.endpoint_mode", Treat: Ignore, Why: whySwarm},
	{Path: "services.*.deploy.placement", Treat: Ignore, Why: whySwarm},
	{Path: "services.*.deploy.labels", Treat: Ignore, Why: "use labels of the service"},
	{Path: "services.*.deploy.update_config", Treat: Ignore, Why: whyOnce},
	{Path: "services.*.deploy.rollback_config", Treat: Ignore, Why: whyOnce},

	// Networks.
	{Path: "networks.*", Treat: Apply, form: ownOrExternal},
	{Path: "networks.*.driver", Treat: Apply, Class: Replace, form: text},
	{Path: "networks.*.driver_opts", Treat: Apply, Class: Replace, form: mapping},
	{Path: "networks.*.enable_ipv6", Treat: Apply, Class: Replace, form: boolean},
	{Path: "networks.*.enable_ipv4", Treat: Ignore, MinAPI: "1.48", Why: "IPv4 is always on"},
	{Path: "networks.*.internal", Treat: Apply, Class: Replace, form: boolean},
	{Path: "networks.*.labels", Treat: Apply, Class: Replace, form: mapping},
	{Path: "networks.*.ipam", Treat: Apply, Class: Replace, form: object},
	{Path: "networks.*.ipam.driver", Treat: Apply, Class: Replace, form: text},
	{Path: "networks.*.ipam.config", Treat: Apply, Class: Replace, form: list},
	{Path: "networks.*.ipam.config.[]", Treat: Apply, Class: Replace, form: object},
	{Path: "networks.*.ipam.config.[].subnet", Treat: Apply, Class: Replace, form: text},
	{Path: "networks.*.ipam.config.[].gateway", Treat: Apply, Class: Replace, form: text},
	{Path: "networks.*.ipam.config.[].ip_range", Treat: Apply, Class: Replace, form: text},
	{Path: "networks.*.ipam.config.[].aux_addresses", Treat: Apply, Class: Replace, form: mapping},
	{Path: "networks.*.ipam.options", Treat: Apply, Class: Replace, form: mapping},
	{Path: "networks.*.external", Treat: Apply, Class: Replace, form: text},
	{Path: "networks.*.name", Treat: Ignore, Why: whyNames + "; with external it is the engine's name"},
	{Path: "networks.*.attachable", Treat: Apply, Class: Replace, form: boolean},

	// Volumes.
	{Path: "volumes.*", Treat: Apply, form: ownOrExternal},
	{Path: "volumes.*.driver", Treat: Apply, Class: Replace, form: text},
	{Path: "volumes.*.driver_opts", Treat: Apply, Class: Replace, form: mapping},
	{Path: "volumes.*.labels", Treat: Apply, Class: Replace, form: mapping},
	{Path: "volumes.*.external", Treat: Apply, Class: Replace, form: text},
	{Path: "volumes.*.name", Treat: Ignore, Why: whyNames + "; with external it is the engine's name"},

	// Secrets and configs.
	{Path: "secrets.*", Treat: Apply, form: object},
	{Path: "secrets.*.content", Treat: Apply, Class: Replace, Beyond: true, form: text},
	{Path: "secrets.*.environment", Treat: Apply, Class: Replace, form: text},
	{Path: "secrets.*.file", Treat: Refuse, InFile: Apply, Why: whyBeside, form: text},
	{Path: "secrets.*.external", Treat: Refuse, Why: whyStore, form: falseOrRefused},
	{Path: "secrets.*.name", Treat: Ignore, Why: whyContent},
	{Path: "secrets.*.labels", Treat: Ignore, Why: whyContent},
	{Path: "secrets.*.driver", Treat: Refuse, Why: whyStore},
	{Path: "secrets.*.driver_opts", Treat: Ignore, Why: whyContent},
	{Path: "secrets.*.template_driver", Treat: Refuse, Why: "contents are delivered as they are"},
	{Path: "configs.*", Treat: Apply, form: object},
	{Path: "configs.*.content", Treat: Apply, Class: Replace, form: text},
	{Path: "configs.*.environment", Treat: Apply, Class: Replace, form: text},
	{Path: "configs.*.file", Treat: Refuse, InFile: Apply, Why: whyBeside, form: text},
	{Path: "configs.*.external", Treat: Refuse, Why: whyStore, form: falseOrRefused},
	{Path: "configs.*.name", Treat: Ignore, Why: whyContent},
	{Path: "configs.*.labels", Treat: Ignore, Why: whyContent},
	{Path: "configs.*.template_driver", Treat: Refuse, Why: "contents are delivered as they are"},
}
