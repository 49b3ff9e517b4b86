#!/usr/bin/env bash
# Build every program that tests run, side by side: one computes while another waits for downloads.
# What cannot be built says so; the tests that need it fail in CI.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")" || exit
(./build-collector.sh; ./build-prometheus.sh) & # one beside Jaeger is enough for two processors
./build-jaeger.sh &
for what in kustomize grafana-types traceql operator-crds compose-spec phoenix; do
    "./build-$what.sh"
done
wait
