#!/usr/bin/env bash
# Installs balena's own CLI and SDK into test/interop, in the versions of its
# lock file. Says and does nothing when they are there. No script of a package
# runs meanwhile.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../test/interop"

# The npm of Debian 12 cannot read the lock file: it stumbles over a dependency
# that is overridden because it comes from no registry.
npm_version=10.9.4

stamp=node_modules/.installed # the lock file that they were installed from
! cmp -s package-lock.json "$stamp" || exit 0

"$here/setup.sh" node
echo "setup: installing balena's CLI and SDK into test/interop, 600 MB"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# quietly runs a command and shows the end of what it said if it fails.
quietly() {
	"$@" >"$work/log" 2>&1 </dev/null && return
	tail -n 20 "$work/log" >&2
	echo "setup: cannot install balena's CLI and SDK; see the lines above" >&2
	return 1
}

quietly npm install --prefix "$work" --ignore-scripts --no-audit --no-fund "npm@$npm_version"
quietly node "$work/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund
# They run on the Node that came with them, whatever else there is; npm makes
# this link in some versions only.
for node in node_modules/node-linux-*/bin/node; do
	ln -sf "../${node#node_modules/}" node_modules/.bin/node
done
cp package-lock.json "$stamp"
