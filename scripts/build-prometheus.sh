#!/usr/bin/env bash
# Build Prometheus 3 and print its path. Same rules as build-collector.sh; exit 3: Go is missing or too old.
# Without its web pages, which are not part of the Go module, and without what finds targets in clouds.
set -euo pipefail

version=3.13.2 # of the release that the Collector's receiver is from
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/prometheus-$version"
# A v3.* tag is no version of a path without /v3.
build_release prometheus "$target" 1.25 github.com/prometheus/prometheus@v0.313.2 -tags remove_all_sd
