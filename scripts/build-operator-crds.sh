#!/usr/bin/env bash
# Fetch the OpenTelemetry Operator's resource definitions, which deploy/kubernetes is checked against, and print where
# they are. Same rules as build-collector.sh; exit 3: Go is missing.
set -euo pipefail

version=0.148.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/operator-crds-$version"
finished "$target"
need_go 1.21

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
folder=$(go mod download -json "github.com/open-telemetry/opentelemetry-operator@v$version" |
    sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p')
mkdir -p "$work/crds" "$tools"
cp "$folder"/config/crd/bases/*.yaml "$work/crds"
chmod -R u+w "$work/crds"
mv "$work/crds" "$target"
echo "$target"
