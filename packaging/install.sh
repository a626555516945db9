#!/usr/bin/env bash
# Installs deckhand on this machine out of dist/ and starts it with systemd.
# Run as root. DESTDIR=DIR lays the files out under DIR and starts nothing.
#
#   make dist && sudo packaging/install.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "$(uname -m)" in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
armv7l) arch=armv7 ;;
armv6l) arch=armv6 ;;
*)
	echo "install: no build for $(uname -m); there are amd64, arm64, armv7 and armv6" >&2
	exit 1
	;;
esac

binary=dist/deckhand-linux-$arch
if [ ! -f "$binary" ]; then
	echo "install: $binary is missing; run make dist first" >&2
	exit 1
fi

root=${DESTDIR:-}
install -D -m 755 "$binary" "$root/usr/local/bin/deckhand"
install -D -m 644 packaging/systemd/deckhand.service "$root/etc/systemd/system/deckhand.service"
if [ -z "$root" ]; then
	systemctl daemon-reload
	systemctl enable deckhand.service
	systemctl restart deckhand.service
	echo "install: deckhand is running; follow it with: journalctl -fu deckhand"
fi
