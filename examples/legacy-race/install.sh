#!/bin/sh
# Installs what package-lock.json pins (sql.js, and nothing else) below DIR, once, and prints where: the value for NODE_PATH.
# The lock names versions and checksums but no host, so that whatever registry npm is set up with serves.
#
#   sh install.sh DIR     exits with 77 where it cannot be had: without node or npm, or out of reach of a registry
set -eu
readonly UNAVAILABLE=77

here=$(cd "$(dirname "$0")" && pwd)
for tool in node npm; do
  if ! command -v "$tool" >/dev/null; then
    echo "there is no $tool here" >&2
    exit "$UNAVAILABLE"
  fi
done

# Another lock is another directory: what was installed before is never taken for what is pinned now.
place=$1/node-$(cksum <"$here/package-lock.json" | tr ' ' '-')
if [ ! -d "$place" ]; then
  mkdir -p "$1"
  building=$(mktemp -d "$1/node-building-XXXXXX")
  trap 'rm -rf "$building"' EXIT
  cp "$here/package.json" "$here/package-lock.json" "$building"
  if ! npm ci --prefix "$building" --ignore-scripts --no-audit --no-fund --fetch-retries=1 >"$building/npm.log" 2>&1; then
    cat "$building/npm.log" >&2
    if grep -q EINTEGRITY "$building/npm.log"; then
      exit 1
    fi
    echo 'npm could not fetch sql.js: is a registry within reach?' >&2
    exit "$UNAVAILABLE"
  fi
  # Whoever else installs at this moment does the same; the first rename stands.
  mv -T "$building" "$place" 2>/dev/null || [ -d "$place" ]
fi
echo "$place/node_modules"
