#!/usr/bin/env bash
# Fetch Grafana's own parser of TraceQL, and print the folder. Exit 3: npm is missing.
set -euo pipefail

version=1.0.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/traceql-$version"
finished "$target"
npm_folder "$target" "@grafana/lezer-traceql@$version" @lezer/lr@1.4.5
