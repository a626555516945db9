#!/usr/bin/env bash
# Makes sure that a private engine can be started on this machine: installs
# dockerd and what it needs, and mounts control groups where nobody did.
#
#   scripts/setup-engine.sh                   always
#   scripts/setup-engine.sh --unless-running  only if no engine answers yet
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# answers says whether an engine is behind a socket.
answers() {
	[ -S "$1" ] && [ -w "$1" ] || return 1
	if command -v curl >/dev/null 2>&1; then
		curl -fsS --max-time 5 --unix-socket "$1" http://engine/_ping >/dev/null 2>&1
	elif command -v docker >/dev/null 2>&1; then
		docker -H "unix://$1" version >/dev/null 2>&1
	else
		return 1
	fi
}

if [ "${1:-}" = --unless-running ]; then
	[ -z "${DOCKER_HOST:-}" ] || exit 0
	for socket in /run/balena-engine.sock /var/run/balena-engine.sock /var/run/docker.sock; do
		! answers "$socket" || exit 0
	done
fi

"$here/setup.sh" engine

# A container or a small virtual machine may come without control groups, and
# then no engine starts.
if [ "$(id -u)" -eq 0 ] && ! grep -q ' cgroup2\? ' /proc/mounts; then
	mkdir -p /sys/fs/cgroup
	mount -t cgroup2 cgroup2 /sys/fs/cgroup ||
		echo "setup: no control groups here; the engine may not start" >&2
fi
