#!/usr/bin/env bash
# Build Prometheus 3 and print its path. Same rules as build-collector.sh; exit 3: Go is missing or too old.
# Without its web pages, which are not part of the Go module, and without what finds targets in clouds.
set -euo pipefail

version=3.13.2 # of the release that the Collector's receiver is from
module=github.com/prometheus/prometheus@v0.313.2 # the same release; a v3.* tag is no version of a path without /v3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/prometheus-$version"
finished "$target"
need_go 1.25

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

echo "Building Prometheus $version: some minutes the first time ..." >&2
go mod download "$module" >&2
cd "$(go list -m -f '{{.Dir}}' "$module")" # inside its module, so that its go.sum counts
GOWORK=off nice go build -tags remove_all_sd -ldflags="-s -w" -o "$work/prometheus" ./cmd/prometheus >&2
keep "$work/prometheus" "$target"
