// Uploads and downloads files of a release with balena's SDK, and prints what it gets.
//
//   node asset.js URL TOKEN COMMIT FILE
'use strict';

const [apiUrl, token, commit, file] = process.argv.slice(2);
const { getSdk } = require('balena-sdk');
const sdk = getSdk({ apiUrl, dataDirectory: false });
const { asset } = sdk.models.release;

async function read(stream) {
	const parts = [];
	for await (const part of stream) {
		parts.push(Buffer.from(part));
	}
	return Buffer.concat(parts).toString();
}

async function keys() {
	const all = await asset.getAllByRelease(commit);
	console.log('keys', all.map((x) => x.asset_key).sort().join());
}

(async () => {
	await sdk.auth.loginWithToken(token);
	const { id: release } = await sdk.models.release.get(commit, { $select: 'id' });
	const small = await asset.upload({ release, asset_key: 'small', asset: new File(['hello'], 'small.txt', { type: 'text/plain' }) });
	const large = await asset.upload({ release, asset_key: 'large', asset: file });
	for (const { id } of [small, large]) {
		const { asset: got } = await asset.get(id, { $select: 'asset' });
		console.log('uploaded', got.filename, got.size);
	}
	console.log('downloaded', await read(await asset.download({ release, asset_key: 'small' })));
	console.log('downloaded', (await read(await asset.download({ release, asset_key: 'large' }))).length);
	await keys();
	await asset.remove({ release, asset_key: 'small' });
	await keys();
})().catch((e) => {
	console.error(e);
	process.exit(1);
});
