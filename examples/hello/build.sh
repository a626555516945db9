#!/usr/bin/env bash
# Builds the static programs of this project, each beside its Dockerfile.
#
#   build.sh              release 1, here
#   build.sh 2 DIR        release 2 as a project of its own in DIR: other images
#                         of web, counter and worker, another greeting of web
#
# GOARCH and GOARM choose the device, as for any Go program.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=${1:-1}
to=${2:-$here}

if [ "$to" != "$here" ]; then
	mkdir -p "$to"
	to=$(cd "$to" && pwd)
fi
for service in front web counter worker; do
	flags="-s -w"
	if [ "$service" != front ]; then
		flags="$flags -X main.version=$version"
	fi
	# Same input, same bytes: an unchanged service keeps its image.
	(cd "$here" && CGO_ENABLED=0 GOOS=linux go build -buildvcs=false -trimpath -tags nethttpomithttp2 \
		-ldflags "$flags" -o "$to/$service/$service" "./$service")
	if [ "$to" != "$here" ]; then
		cp "$here/$service/Dockerfile" "$to/$service/"
	fi
done

if [ "$to" != "$here" ]; then
	greeting=Hello
	if [ "$version" != 1 ]; then
		greeting="Hello from release $version"
	fi
	sed "s/^\( *GREETING:\).*/\1 \"$greeting\"/" "$here/docker-compose.yml" >"$to/docker-compose.yml"
fi
