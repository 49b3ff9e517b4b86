#!/usr/bin/env bash
# Build Jaeger v2 and print its path. Same rules as build-collector.sh; exit 3: Go is missing or too old.
# Its web pages are a placeholder, because they are not part of the Go module: OTLP in and the query API work.
set -euo pipefail

version=2.13.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/jaeger-$version"
# A v2.* tag is no version of a path without /v2.
build_release jaeger "$target" 1.25 github.com/jaegertracing/jaeger@v1.76.0
