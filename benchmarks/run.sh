#!/usr/bin/env bash
# What we add to a call, beside OpenTelemetry's own instrumentation, in one run; then the core alone.
#
#   make bench                    native, official and ours
#   PEERS="official openinference" make bench
#   RUNS=9 make bench             more runs of every process, steadier medians
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
peers=${PROMPTCACHE_SHARED:-../shared}/peers

echo "== The core alone =="
.venv/bin/python benchmarks/core.py

if [ ! -d "$peers" ]; then
    echo "The peers' benchmark scripts are not here (PROMPTCACHE_SHARED names the folder that holds peers/); left out."
    exit 0
fi
command -v uv >/dev/null || export PATH="$root/.venv/bin:$PATH"
command -v uv >/dev/null || .venv/bin/python -m pip install -q uv

export PEERS_HOME=${PEERS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-promptcache/peers}
export PEERS_OUT=$PEERS_HOME/out BENCH_OUT=$PEERS_HOME/out/bench.jsonl PROMPTCACHE_VENV=$root/.venv
mkdir -p "$PEERS_OUT"
rm -f "$BENCH_OUT"
wanted=${PEERS:-official}
# shellcheck disable=SC2086
bash "$peers/setup.sh" $wanted

echo
echo "== CPU time added to a call, as a share of the bare call: medians of ${RUNS:-3} runs =="
cd "$peers"
for _ in $(seq "${RUNS:-3}"); do
    # shellcheck disable=SC2086
    ROUNDS=${ROUNDS:-3} bash ./run.sh none native $wanted promptcache >/dev/null 2>&1
done
cd "$root"
.venv/bin/python benchmarks/ratios.py "$BENCH_OUT"
