#!/usr/bin/env bash
# Build the Compose Specification's own reader, which deploy/compose is checked with, and print its path.
# Same rules as build-collector.sh; exit 3: Go is missing or too old.
set -euo pipefail

version=2.16.2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/compose-spec-$version"
finished "$target"
need_go 1.24

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
GOBIN="$work" nice go install "github.com/compose-spec/compose-go/v2/cmd@v$version" >&2
keep "$work/cmd" "$target"
