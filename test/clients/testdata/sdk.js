// Calls balena's SDK and prints one JSON object a line: the call, and what it gives
// or how it is refused. Numbers of rows, keys and times are left out: they differ
// from run to run.
//
//   node sdk.js idle|live URL TOKEN PASSWORD FLEET UUID COMMIT
'use strict';

const [story, apiUrl, token, password, fleet, uuid, commit] = process.argv.slice(2);
const { getSdk } = require('balena-sdk');
const sdk = getSdk({ apiUrl, builderUrl: apiUrl, dataDirectory: false });
const { models } = sdk;

// at finds a function by its path, with the object that it belongs to.
const at = (path) => path.split('.').reduce(([, o], name) => [o, o[name]], [null, sdk]);

// call makes one call; show picks from its result what is printed.
async function call(path, args = [], show = () => 'done') {
	const [owner, f] = at(path);
	const line = { call: path };
	let result;
	try {
		result = await f.apply(owner, args);
		line.gives = show(result);
	} catch (e) {
		line.refused = [e.code, e.statusCode, e.message].filter((x) => x != null);
	}
	console.log(JSON.stringify(line));
	return result;
}

const all = (x) => x;
const is = (test) => (x) => test(x);
const fields = (...names) => (x) => Array.isArray(x) ? x.map(fields(...names)) : Object.fromEntries(names.map((n) => [n, x[n]]));
const size = (x) => x.length;
const kind = (x) => typeof x;
const named = (list, name) => list.find((x) => x.name === name);

async function sessions() {
	await call('auth.login', [{ email: 'admin', password: 'wrong' }]);
	await call('auth.login', [{ email: 'admin', password }]);
	await call('auth.isLoggedIn', [], all);
	await call('auth.logout');
	await call('auth.isLoggedIn', [], all);
	await call('auth.authenticate', [{ email: 'admin', password }], kind);
	await call('auth.loginWithToken', [token]);
	await call('auth.whoami', [], fields('actorType', 'username'));
	await call('auth.getUserInfo', [], fields('username'));
	await call('auth.getActorId', [], kind);
	await call('auth.getToken', [], kind);
	await call('auth.twoFactor.isEnabled', [], all);
	await call('auth.twoFactor.isPassed', [], all);
	await call('settings.get', ['apiUrl'], kind);
}

async function organizations() {
	const [mine] = await call('models.organization.getAll', [], fields('name', 'handle'));
	await call('models.organization.get', ['admin'], fields('handle'));
	await call('models.organization.get', ['nobody']);
	await call('models.organization.membership.getAllByOrganization', ['admin'], size);
	await call('models.organization.membership.getAllByUser', ['admin'], size);
	await call('models.organization.create', [{ name: 'Kit Makers' }], fields('name', 'handle'));
	await call('models.organization.create', [{ name: 'Spare', handle: 'spare' }], fields('name', 'handle'));
	await call('models.organization.remove', ['spare']);
	await call('models.organization.get', ['spare']);
	await call('models.team.getAllByOrganization', [mine.id], size);
	await call('models.organization.invite.getAll', [], size);
	await call('models.organization.invite.getAllByOrganization', ['admin'], size);
}

async function catalogue() {
	await call('models.deviceType.getAll', [], (x) => x.length > 5);
	await call('models.deviceType.getAllSupported', [], size);
	await call('models.deviceType.get', ['generic-amd64'], fields('slug', 'name'));
	await call('models.deviceType.get', ['toaster']);
	await call('models.deviceType.getBySlugOrName', ['Generic x86_64 (GPT)'], fields('slug'));
	await call('models.deviceType.getName', ['generic-amd64'], all);
	await call('models.deviceType.getSlugByName', ['Generic x86_64 (GPT)'], all);
	for (const { slug } of await models.deviceType.getAll()) {
		await call('models.deviceType.getInstructions', [slug], (x) => [slug, x.length, x.every((step) => step && !/\{\{|undefined|  /.test(step))]);
	}
	await call('models.config.getAll', [], (x) => Object.keys(x).length > 3);
	await call('models.config.getDeviceTypes', [], (x) => x.length > 5);
	await call('models.config.getDeviceTypeManifestBySlug', ['generic-amd64'], fields('slug', 'arch', 'state'));
	await call('models.config.getDeviceOptions', ['generic-amd64'], (x) => x.map((q) => q.name));
	await call('models.config.getConfigVarSchema', ['generic-amd64'], (x) => x.reservedNames);
	await call('models.os.getAvailableOsVersions', ['generic-amd64'], size);
	await call('models.os.getAllOsVersions', ['generic-amd64'], size);
	await call('models.os.getMaxSatisfyingVersion', ['generic-amd64', 'latest'], all);
	await call('models.os.getDownloadSize', ['generic-amd64', '6.0.0']);
	await call('models.os.getSupervisorReleasesForCpuArchitecture', ['amd64'], size);
	await call('models.os.isArchitectureCompatibleWith', ['aarch64', 'armv7hf'], all);
	await call('models.os.getConfig', [fleet, { version: '6.0.0', network: 'ethernet' }], fields('deviceType', 'listenPort', 'appUpdatePollInterval'));
}

async function applications() {
	await call('models.application.getAll', [], is((x) => x.some((a) => a.slug === fleet)));
	await call('models.application.getAllDirectlyAccessible', [], is((x) => x.some((a) => a.slug === fleet)));
	await call('models.application.getAllByOrganization', ['admin'], is((x) => x.some((a) => a.slug === fleet)));
	const app = await call('models.application.get', [fleet], fields('app_name', 'slug', 'is_of__class', 'is_public', 'is_host', 'is_archived', 'should_track_latest_release'));
	await call('models.application.get', [app.id, { $select: 'slug', $expand: { is_for__device_type: { $select: 'slug' } } }], all);
	await call('models.application.get', [app.uuid], fields('slug'));
	await call('models.application.get', ['admin/nope']);
	await call('models.application.get', [999999]);
	await call('models.application.getDirectlyAccessible', [fleet], fields('slug'));
	await call('models.application.getAppByName', ['toolkit'], fields('slug'));
	await call('models.application.getWithDeviceServiceDetails', [fleet], (x) => x.owns__device.map((d) => Object.keys(d.current_services)));
	await call('models.application.has', [fleet], all);
	await call('models.application.has', ['admin/nope'], all);
	await call('models.application.hasAny', [], all);
	await call('models.application.getDashboardUrl', [app.id], kind);
	await call('models.application.willTrackNewReleases', [fleet], all);
	await call('models.application.isTrackingLatestRelease', [fleet], all);
	await call('models.application.getTargetReleaseHash', [fleet], (x) => x === commit);
	await call('models.application.pinToRelease', [fleet, commit]);
	await call('models.application.willTrackNewReleases', [fleet], all);
	await call('models.application.trackLatestRelease', [fleet]);
	await call('models.application.isTrackingLatestRelease', [fleet], all);
	await call('models.application.generateProvisioningKey', [{ slugOrUuidOrId: fleet, keyExpiryDate: null, keyName: 'for images' }], (x) => x.length);
	await call('models.application.create', [{ name: 'spare-part', deviceType: 'raspberrypi4-64', organization: 'admin' }], fields('slug', 'should_track_latest_release'));
	await call('models.application.create', [{ name: 'spare-part', deviceType: 'raspberrypi4-64', organization: 'admin' }]);
	await call('models.application.create', [{ name: 'kit-block', deviceType: 'raspberrypi4-64', organization: 'admin', applicationClass: 'block' }], fields('is_of__class'));
	await call('models.application.rename', ['admin/spare-part', 'other-part']);
	await call('models.application.get', ['admin/other-part'], fields('app_name'));
	await call('models.application.remove', ['admin/other-part']);
	await call('models.application.remove', ['admin/other-part']);
	await call('models.application.grantSupportAccess', [fleet, Date.now() + 3600e3]);
	await call('models.application.revokeSupportAccess', [fleet]);
	await call('models.application.enableDeviceUrls', [fleet]);
	await call('models.application.disableDeviceUrls', [fleet]);
	await call('models.application.membership.getAllByApplication', [fleet], size);
	await call('models.application.invite.getAllByApplication', [fleet], size);
	await call('models.application.restart', [fleet]);
	await call('models.application.purge', [app.id]);
}

// variables and tags of one parent: set, set again, read, list, remove, read.
async function pairs(path, parent, list, name, extra = []) {
	const id = [parent, ...extra, name];
	await call(`${path}.set`, [...id, 'one']);
	await call(`${path}.set`, [...id, 'two']);
	if (!path.endsWith('tags')) {
		await call(`${path}.get`, id, all);
	}
	for (const [method, arg] of list) {
		await call(`${path}.${method}`, [arg], (x) => x.map((v) => [v.name ?? v.tag_key, v.value]));
	}
	await call(`${path}.remove`, id);
	await call(`${path}.${list[0][0]}`, [list[0][1]], size);
}

async function pairsOfAll(service) {
	const config = 'BALENA_SUPERVISOR_POLL_INTERVAL';
	await pairs('models.application.envVar', fleet, [['getAllByApplication', fleet]], 'A');
	await pairs('models.application.configVar', fleet, [['getAllByApplication', fleet]], config);
	await pairs('models.application.buildVar', fleet, [['getAllByApplication', fleet]], 'B');
	await pairs('models.application.tags', fleet, [['getAllByApplication', fleet]], 'k');
	await pairs('models.device.envVar', uuid, [['getAllByDevice', uuid], ['getAllByApplication', fleet]], 'A');
	await pairs('models.device.configVar', uuid, [['getAllByDevice', uuid], ['getAllByApplication', fleet]], config);
	await pairs('models.device.tags', uuid, [['getAllByDevice', uuid], ['getAllByApplication', fleet]], 'k');
	await pairs('models.device.serviceVar', uuid, [['getAllByDevice', uuid], ['getAllByApplication', fleet]], 'S', ['web']);
	await pairs('models.service.var', service, [['getAllByService', service], ['getAllByApplication', fleet]], 'S');
	await pairs('models.release.tags', commit, [['getAllByRelease', commit], ['getAllByApplication', fleet]], 'k');
	await call('models.application.envVar.set', [fleet, '1ST', 'x']);
	await call('models.application.configVar.set', [fleet, 'PLAIN', 'x']);
	await call('models.application.tags.set', [fleet, 'two words', 'x']);
	await call('models.device.envVar.set', [uuid, 'LINES', 'a\nb']);
}

async function devices() {
	await call('models.device.rename', [uuid, 'hall']);
	const d = await call('models.device.get', [uuid], fields('device_name', 'uuid', 'is_online', 'overall_status', 'os_version'));
	await call('models.device.get', ['0'.repeat(32)]);
	await call('models.device.get', [uuid.slice(0, 8)], fields('uuid'));
	await call('models.device.getByName', [d.device_name], (x) => x.length);
	await call('models.device.getName', [uuid], all);
	await call('models.device.getApplicationName', [uuid], all);
	await call('models.device.has', [uuid], all);
	await call('models.device.has', ['0'.repeat(32)], all);
	await call('models.device.getAllByApplication', [fleet], (x) => x.map((d) => d.uuid));
	await call('models.device.getAllByOrganization', ['admin'], is((x) => x.some((d) => d.uuid === uuid)));
	await call('models.device.getWithServiceDetails', [uuid], (x) => Object.fromEntries(Object.entries(x.current_services).map(([name, list]) => [name, list.map(fields('status', 'commit', 'raw_version'))])));
	await call('models.device.getMetrics', [uuid], fields('memory_usage', 'memory_total', 'cpu_temp', 'is_undervolted'));
	await call('models.device.getStatus', [uuid], all);
	await call('models.device.getProgress', [uuid], all);
	await call('models.device.isOnline', [uuid], all);
	await call('models.device.lastOnline', [d], kind);
	await call('models.device.getLocalIPAddresses', [uuid], all);
	await call('models.device.getMACAddresses', [uuid], all);
	await call('models.device.getOsVersion', [d], all);
	await call('models.device.getTargetReleaseHash', [uuid], (x) => x === commit);
	await call('models.device.isTrackingApplicationRelease', [uuid], all);
	await call('models.device.pinToRelease', [uuid, commit]);
	await call('models.device.isTrackingApplicationRelease', [uuid], all);
	await call('models.device.trackApplicationRelease', [uuid]);
	await call('models.device.setNote', [uuid, 'next to the door']);
	await call('models.device.setCustomLocation', [uuid, { latitude: 41.38, longitude: 2.18 }]);
	await call('models.device.get', [uuid], fields('device_name', 'note', 'custom_latitude', 'custom_longitude'));
	await call('models.device.unsetCustomLocation', [uuid]);
	await call('models.device.hasDeviceUrl', [uuid], all);
	await call('models.device.enableDeviceUrl', [uuid]);
	await call('models.device.hasDeviceUrl', [uuid], all);
	await call('models.device.disableDeviceUrl', [uuid]);
	await call('models.device.getDeviceUrl', [uuid]);
	await call('models.device.isInLocalMode', [uuid], all);
	await call('models.device.enableLocalMode', [uuid]);
	await call('models.device.isInLocalMode', [uuid], all);
	await call('models.device.disableLocalMode', [uuid]);
	await call('models.device.enableLockOverride', [uuid]);
	await call('models.device.hasLockOverride', [uuid], all);
	await call('models.device.disableLockOverride', [uuid]);
	await call('models.device.grantSupportAccess', [uuid, Date.now() + 3600e3]);
	await call('models.device.revokeSupportAccess', [uuid]);
	await call('models.device.getSupervisorTargetState', [uuid], (x) => Object.keys(x.local.apps).length);
	await call('models.device.getSupervisorTargetState', [uuid, 3], (x) => Object.keys(x[uuid].apps).length);
	await call('models.device.getSupervisorTargetStateForApp', [fleet], (x) => Object.keys(Object.values(x)[0].apps).length);
	await call('models.device.getDashboardUrl', [uuid], kind);
	await call('models.device.generateDeviceKey', [uuid, 'name', 'text'], size);
	await call('models.device.history.getAllByDevice', [uuid], size);
	await call('models.device.ping', ['f0'.repeat(16)]);
	await call('logs.history', [uuid, { count: 2 }], size);

	const other = models.device.generateUniqueKey();
	await call('models.device.register', [fleet, other, 'generic-amd64'], (x) => x.uuid === other);
	await call('models.device.register', [fleet, other, 'generic-amd64']);
	await call('models.device.identify', [other]);
	const home = await call('models.application.create', [{ name: 'new-home', deviceType: 'generic-amd64', organization: 'admin' }], fields('slug'));
	await call('models.device.move', [other, home.id]);
	await call('models.device.getApplicationName', [other], all);
	await call('models.device.deactivate', [other]);
	await call('models.device.remove', [other]);
	await call('models.device.has', [other], all);
	await call('models.application.remove', [home.slug]);
}

async function releases() {
	const r = await call('models.release.get', [commit], fields('status', 'source', 'is_final', 'raw_version', 'semver', 'is_invalidated', 'is_passing_tests'));
	await call('models.release.get', [999999]);
	await call('models.release.get', ['deadbeef']);
	await call('models.release.get', [{ application: fleet, rawVersion: '1.2.3' }], (x) => x.commit === commit);
	await call('models.release.get', [r.id], (x) => x.commit === commit);
	await call('models.release.getAllByApplication', [fleet], size);
	await call('models.release.getLatestByApplication', [fleet], (x) => x.commit === commit);
	await call('models.release.getWithImageDetails', [commit], (x) => [x.images.map((i) => i.service_name), x.user.username]);
	await call('models.release.setNote', [commit, 'good']);
	await call('models.release.setKnownIssueList', [commit, 'none']);
	await call('models.release.setIsInvalidated', [commit, true]);
	await call('models.release.setIsInvalidated', [commit, false]);
	await call('models.release.finalize', [commit]);
	await call('models.release.get', [commit], fields('note', 'known_issue_list', 'is_invalidated'));
	await call('models.release.asset.getAllByRelease', [commit], size);
	const [{ release_image }] = await sdk.pine.get({ resource: 'release', options: { $filter: { commit }, $expand: { release_image: { $expand: 'image' } } } });
	await call('models.image.get', [release_image[0].image[0].id], fields('status', 'project_type'));
	await call('models.image.getLogs', [release_image[0].image[0].id], (x) => x.includes('FROM'));
	const services = await call('models.service.getAllByApplication', [fleet], (x) => x.map((s) => s.service_name));
	return services[0].id;
}

async function keys() {
	await call('models.apiKey.create', [{ name: 'robot', expiryDate: null }], size);
	const list = await call('models.apiKey.getAll', [], is((x) => named(x, 'robot') !== undefined));
	await call('models.apiKey.getAllNamedUserApiKeys', [], is((x) => named(x, 'robot') !== undefined));
	await call('models.apiKey.update', [named(list, 'robot').id, { name: 'android', description: 'text' }]);
	await call('models.apiKey.getAllNamedUserApiKeys', [], (x) => named(x, 'android')?.description);
	await call('models.apiKey.revoke', [named(list, 'robot').id]);
	await call('models.apiKey.getAllNamedUserApiKeys', [], (x) => named(x, 'android') === undefined);
	await call('models.apiKey.getProvisioningApiKeysByApplication', [fleet], (x) => x.length > 0);
	await call('models.apiKey.getDeviceApiKeysByDevice', [uuid], (x) => x.length > 0);
	const key = await call('models.key.create', ['laptop', 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop me'], fields('title'));
	await call('models.key.getAll', [], is((x) => x.some((k) => k.title === 'laptop')));
	await call('models.key.get', [key.id], fields('title'));
	await call('models.key.remove', [key.id]);
	await call('models.key.get', [key.id]);
}

// fromURL has the cloud fetch a project; ARCHIVE says where it is.
async function fromURL() {
	const url = process.env.ARCHIVE;
	const id = await call('models.release.createFromUrl', ['admin/fetched', { url, shouldFlatten: true }], kind);
	let status = 'running';
	while (id && status === 'running') {
		await new Promise((later) => setTimeout(later, 100));
		({ status } = await models.release.get(id));
	}
	console.log(JSON.stringify({ call: 'models.release.get: when it is built', gives: status }));
	await call('models.release.createFromUrl', ['admin/fetched', { url: url + '/nothing', shouldFlatten: true }]);
	await call('models.release.createFromUrl', ['admin/fetched', { url: 'http://169.254.169.254/', shouldFlatten: true }]);
}

// live is what only a device that is connected answers.
async function live() {
	await call('auth.loginWithToken', [token]);
	const app = await models.application.get(fleet);
	await call('models.device.ping', [uuid]);
	await call('models.device.identify', [uuid]);
	await call('models.device.isOnline', [uuid], all);
	await call('models.device.getSupervisorState', [uuid], fields('status', 'update_pending', 'update_downloaded'));
	await call('models.device.update', [uuid, { force: true }]);
	await call('models.device.restartApplication', [uuid]);
	const { current_services } = await models.device.getWithServiceDetails(uuid);
	const [{ image_id }] = current_services.web;
	await call('models.device.restartService', [uuid, image_id]);
	await call('models.device.stopService', [uuid, image_id]);
	await call('models.device.startService', [uuid, image_id]);
	await call('models.application.restart', [app.id]);
	await call('logs.history', [uuid, { count: 5 }], size);
	const stream = await call('logs.subscribe', [uuid, { count: 1 }], kind);
	const message = await new Promise((found, failed) => {
		stream.on('line', (line) => line.message.startsWith('here is') && found(line.message));
		stream.on('error', failed);
	});
	stream.unsubscribe();
	console.log(JSON.stringify({ call: 'logs.subscribe: a line', gives: message }));
}

async function idle() {
	await sessions();
	await organizations();
	await catalogue();
	await applications();
	const service = await releases();
	await devices();
	await pairsOfAll(service);
	await keys();
	await fromURL();
}

({ idle, live })[story]().then(() => process.exit(0), (e) => {
	console.error(e);
	process.exit(1);
});
