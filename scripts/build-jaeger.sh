#!/usr/bin/env bash
# Build Jaeger v2 and print its path. Same rules as build-collector.sh; exit 3: Go is missing or too old.
# Its web pages are a placeholder, because they are not part of the Go module: OTLP in and the query API work.
set -euo pipefail

version=2.13.0
module=github.com/jaegertracing/jaeger@v1.76.0 # the same release; a v2.* tag is no version of a path without /v2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/jaeger-$version"
finished "$target"
need_go 1.25

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

echo "Building Jaeger $version: some minutes the first time ..." >&2
# Not "go install": that obeys neither Jaeger's go.sum nor its replace directive. Inside its module both count.
go mod download "$module" >&2
cd "$(go list -m -f '{{.Dir}}' "$module")"
nice go build -ldflags="-s -w" -o "$work/jaeger" ./cmd/jaeger >&2
keep "$work/jaeger" "$target"
