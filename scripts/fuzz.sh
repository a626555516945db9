#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other.
#
#   FUZZTIME=60s scripts/fuzz.sh
#
# A failing input is kept by go test under testdata/fuzz; commit it with the fix.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${FUZZTIME:-60s}
targets=0

# grep finds the packages quickly, go test knows the targets.
while read -r dir; do
	while read -r target; do
		targets=$((targets + 1))
		echo "fuzz: $dir $target for $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir"
	done < <(go test -list '^Fuzz' "$dir" | grep '^Fuzz' || true)
done < <(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u)

echo "fuzz: $targets targets, nothing found"
