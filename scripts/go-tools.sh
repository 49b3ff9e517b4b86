# Shared by the build-*.sh scripts: where built programs are kept, how Go builds them, and what npm brings.
# shellcheck shell=bash

# shellcheck disable=SC2034 # the scripts that source this read it
tools="${OTEL_PROMPTCACHE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-promptcache/tools}"

# Exit 3 means "cannot be built here", which tests take as a reason to skip.
cannot() {
    echo "$(basename "$0"): $*" >&2
    exit 3
}

# need_go MAJOR.MINOR
need_go() {
    local found
    command -v go >/dev/null || cannot "Go is not installed (need $1 or newer)"
    found=$(GOTOOLCHAIN=local go env GOVERSION) || cannot "'go env GOVERSION' fails"
    found=${found#go}
    [ "$(printf '%s\n' "$1" "$found" | sort -V | head -n 1)" = "$1" ] ||
        cannot "Go $found is too old (need $1 or newer)"
}

# finished BINARY: an earlier run built it, so say where it is and stop.
finished() {
    [ -x "$1" ] || return 0
    echo "$1"
    exit 0
}

# keep BUILT TARGET: rename within one file system, so that nobody ever sees half a program.
keep() {
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.$$"
    mv "$2.$$" "$2"
    echo "$2"
}

# build_release NAME TARGET GO TAG [ARGUMENT...]: build ./cmd/NAME of a release, and say where it is. Not "go install":
# that obeys neither the module's go.sum nor its replace directives. Inside the module both count.
build_release() {
    local name=$1 target=$2 go=$3 tag=$4 work
    shift 4
    finished "$target"
    need_go "$go"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    cd "$work" || exit
    echo "Building $(basename "$target"): some minutes the first time ..." >&2
    go mod download "$tag" >&2
    cd "$(go list -m -f '{{.Dir}}' "$tag")" || exit
    GOWORK=off nice go build -ldflags="-s -w" -o "$work/$name" "$@" "./cmd/$name" >&2
    keep "$work/$name" "$target"
}

# npm_folder TARGET PACKAGE...: a folder with these packages of npm's.
npm_folder() {
    local target=$1 work
    shift
    command -v npm >/dev/null || cannot "npm is not installed"
    mkdir -p "$tools"
    work=$(mktemp -d -p "$tools") # on one file system: nobody ever sees half a folder
    npm install --silent --no-audit --no-fund --prefix "$work" "$@" >&2
    chmod 755 "$work"
    mv -T "$work" "$target"
    echo "$target"
}
