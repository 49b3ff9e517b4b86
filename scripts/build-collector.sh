#!/usr/bin/env bash
# Build the OpenTelemetry Collector that our configurations run on, and print its path.
# The binary is cached outside the repository; a second call returns at once.
# Exit 3: Go is missing or too old.
set -euo pipefail

version=0.159.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

manifest="$here/../deploy/collector/builder.yaml"
target="$tools/otelcol-$version"
if cmp -s "$manifest" "$target.yaml"; then finished "$target"; fi
need_go 1.26

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" # the builder's output path is relative to where it runs

echo "Building the Collector $version: some minutes the first time ..." >&2
nice go run "go.opentelemetry.io/collector/cmd/builder@v$version" \
    --config "$manifest" --ldflags="-s -w" >&2
keep build/otelcol "$target"
cp "$manifest" "$target.yaml" # other components in the manifest, another build
