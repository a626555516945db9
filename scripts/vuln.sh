#!/usr/bin/env bash
# Looks for known vulnerabilities in what the programs really call. The
# database is on the network: where it is out of reach, this says so and fails
# nothing; a finding fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

limit=${VULN_TIMEOUT:-120}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Built first, so that the limit is for the check alone.
go tool -modfile=tools/go.mod govulncheck -version >"$log" 2>&1 || {
	cat "$log" >&2
	exit 1
}

# One small request tells whether it is worth the wait.
database=${GOVULNDB:-https://vuln.go.dev}
if command -v curl >/dev/null 2>&1 && [[ $database == http* ]] &&
	! curl -fsS --max-time 10 -o /dev/null "$database/index/db.json" 2>/dev/null; then
	echo "vuln: vulnerability database not reachable, not checked"
	exit 0
fi

status=0
timeout "$limit" go tool -modfile=tools/go.mod govulncheck ./... >"$log" 2>&1 </dev/null || status=$?
case $status in
0) echo "vuln: no known vulnerability is called" ;;
3)
	cat "$log"
	exit 3
	;;
124) echo "vuln: vulnerability database did not answer within ${limit} s, not checked" ;;
*)
	if grep -q -E 'fetching vulnerabilities|vuln\.go\.dev|dial tcp|no such host|Forbidden' "$log"; then
		echo "vuln: vulnerability database not reachable, not checked"
	else
		cat "$log" >&2
		exit "$status"
	fi
	;;
esac
