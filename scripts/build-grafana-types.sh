#!/usr/bin/env bash
# Fetch the TypeScript types of Grafana's dashboards and a compiler to check against, and print the folder.
# Exit 3: npm is missing.
set -euo pipefail

version=11.6.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/grafana-types-$version"
finished "$target"
npm_folder "$target" "@grafana/schema@$version" typescript@5.9.3
