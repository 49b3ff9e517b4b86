#!/usr/bin/env bash
# Install the Debian packages that the tests run for real. Where that is impossible the tests that need
# them are skipped with a reason, but not in CI: there it is a failure.
set -euo pipefail

if [ "$(command -v prometheus promtool prometheus-alertmanager amtool | wc -l)" -eq 4 ]; then
    exit 0
fi

without() {
    echo "$1 The tests that need Prometheus or Alertmanager cannot run." >&2
    [ "${CI:-}" = true ] && exit 1
    exit 0
}

command -v apt-get >/dev/null || without "Prometheus is missing and there is no apt-get to install it with."

root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || without "Prometheus is missing and installing it needs root or sudo."
    root=(sudo)
fi

echo "Installing Debian's prometheus and prometheus-alertmanager ..."
install() {
    "${root[@]}" apt-get update -qq &&
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends prometheus prometheus-alertmanager >/dev/null
}
install || without "Installing Debian's packages failed."

# The tests start their own on a loopback port; Debian's services would listen on every interface.
if [ -d /run/systemd/system ]; then
    "${root[@]}" systemctl disable --quiet --now prometheus.service prometheus-alertmanager.service
fi
