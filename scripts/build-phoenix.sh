#!/usr/bin/env bash
# Install Arize Phoenix into a virtual environment of its own, outside the checkout, and print the environment's folder.
# 650 MB. Start it in a network namespace only (tests/servers/phoenix.py): its gRPC port listens on every interface.
# Exit 3: it cannot be installed here.
set -euo pipefail

version=20.26.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/go-tools.sh"

target="$tools/phoenix-$version"
finished "$target"

python=${PYTHON:-$here/../.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3) || cannot "Python is not installed"

mkdir -p "$tools"
work=$(mktemp -d -p "$tools") # on one file system: nobody ever sees half an environment
trap 'rm -rf "$work"' EXIT

echo "Installing Phoenix $version: a minute or two the first time ..." >&2
if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then
    uv venv -q --allow-existing -p "$python" "$work" >&2
    uv pip install -q -p "$work/bin/python" "arize-phoenix==$version" >&2
else
    "$here/create-venv.sh" "$python" "$work" >&2
    "$work/bin/python" -m pip install -q --disable-pip-version-check "arize-phoenix==$version" >&2
fi
chmod 755 "$work"
mv -T "$work" "$target" # its python finds its packages beside itself; the scripts in bin/ do not
trap - EXIT
echo "$target"
