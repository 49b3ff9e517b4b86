#!/usr/bin/env bash
# create-venv.sh PYTHON DIRECTORY
# Debian ships Python without ensurepip, and then "python -m venv" leaves half an environment behind.
set -euo pipefail

python=${1:-}
directory=$2

if [ -z "$python" ]; then
    echo "No working Python 3.11 or newer found: install one, or run 'make PYTHON=/path/to/python3 ...'." >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "Installing $package ..."
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null
    else
        echo "$python cannot create virtual environments: install them, on Debian and Ubuntu with" >&2
        echo "    sudo apt-get install $package" >&2
        exit 1
    fi
fi

"$python" -m venv --clear "$directory"
# pip 25.1 is the first that installs dependency groups.
"$directory/bin/python" -m pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
