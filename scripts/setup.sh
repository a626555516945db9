#!/usr/bin/env bash
# Installs what the given needs ask for and what is missing, from the packages
# of Debian or Ubuntu. Says nothing when there is nothing to do.
#
#   scripts/setup.sh engine bus browser node postgres certificates
#
# engine        dockerd, iptables and a static busybox: a private engine for
#               tests and for the demo; mkfs.ext4 and mount, for tests with a
#               disk of their own; ip, for tests with a network of their own
# bus           dbus-daemon: a private bus for the tests of reboots
# browser       Chromium, for the tests of the web pages
# node          npm, which installs the official clients; they bring their own Node
# postgres      PostgreSQL: tests start a private cluster of their own
# certificates  the certificate authorities that go into the images
set -euo pipefail

missing=()
missing_browser=false

has() { command -v "$1" >/dev/null 2>&1; }

# dockerd and iptables live in sbin, which is not on everyone's path.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

need_engine() {
	has dockerd || missing+=(docker.io)
	has iptables || missing+=(iptables)
	has ip || missing+=(iproute2)
	is_static busybox || missing+=(busybox-static)
	has mkfs.ext4 || missing+=(e2fsprogs)
	has mount || missing+=(mount)
}

# is_static says whether a program runs in an empty image: it loads no library.
is_static() {
	local path
	path=$(command -v "$1") || return 1
	! ldd "$path" 2>/dev/null | grep -q '=>'
}

need_bus() {
	has dbus-daemon || missing+=(dbus)
}

need_browser() {
	local name
	for name in chromium chromium-browser google-chrome google-chrome-stable headless-shell; do
		has "$name" && return
	done
	missing_browser=true
}

need_node() {
	# Packages from elsewhere have npm in nodejs.
	has npm || missing+=(nodejs npm)
}

need_postgres() {
	compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || has initdb || missing+=(postgresql)
}

need_certificates() {
	[ -d /usr/share/ca-certificates/mozilla ] || missing+=(ca-certificates)
}

# as_root runs a command with root's rights, or says how to do it by hand.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif has sudo && sudo -n true 2>/dev/null; then
		sudo "$@"
	elif has sudo && [ -t 0 ]; then
		sudo "$@"
	else
		echo "setup: needs root; run this as root and try again: $*" >&2
		return 1
	fi
}

updated=false

install_packages() {
	local log
	if ! has apt-get; then
		echo "setup: no apt-get here; install by other means: $*" >&2
		return 1
	fi
	echo "setup: installing $*"
	log=$(mktemp)
	if ! $updated; then
		# An old list may still do; the install below tells.
		as_root apt-get update >"$log" 2>&1 || true
		updated=true
	fi
	if ! as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		echo "setup: cannot install $*; see the lines above" >&2
		return 1
	fi
	rm -f "$log"
}

for need in "$@"; do
	case "$need" in
	engine) need_engine ;;
	bus) need_bus ;;
	browser) need_browser ;;
	node) need_node ;;
	postgres) need_postgres ;;
	certificates) need_certificates ;;
	*)
		echo "setup: unknown need $need; one of engine, bus, browser, node, postgres, certificates" >&2
		exit 2
		;;
	esac
done

if [ ${#missing[@]} -gt 0 ]; then
	install_packages "${missing[@]}"
fi
if $missing_browser; then
	# Ubuntu has it under another name, and not on every machine: the other
	# tests are worth running without it.
	install_packages chromium || install_packages chromium-browser ||
		echo "setup: no browser; the tests of the web pages will not pass" >&2
fi
