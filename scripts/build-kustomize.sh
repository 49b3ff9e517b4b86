#!/usr/bin/env bash
# Build kustomize, which puts deploy/kubernetes together, and print its path. Same rules as build-collector.sh; exit 3:
# Go is missing or too old.
set -euo pipefail

version=5.7.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/kustomize-$version"
finished "$target"
need_go 1.24

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
GOBIN="$work" nice go install "sigs.k8s.io/kustomize/kustomize/v5@v$version" >&2
keep "$work/kustomize" "$target"
