#!/usr/bin/env bash
# Fetch Grafana's own parser of TraceQL, and print the folder. Exit 3: npm is missing.
set -euo pipefail

version=1.0.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/traceql-$version"
finished "$target"
command -v npm >/dev/null || cannot "npm is not installed"

mkdir -p "$tools"
work=$(mktemp -d -p "$tools") # on one file system: nobody ever sees half a folder
npm install --silent --no-audit --no-fund --prefix "$work" "@grafana/lezer-traceql@$version" @lezer/lr@1.4.5 >&2
chmod 755 "$work"
mv -T "$work" "$target"
echo "$target"
