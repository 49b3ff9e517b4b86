"""What each instrumentation adds to a call, as a share of the bare call, and ours against the others.

    python benchmarks/ratios.py bench.jsonl

A machine's clock changes from one process to the next by more than what is measured, so every figure is first
divided by the uninstrumented call of the same process; of several runs the median counts. A share within that of a
control that instruments nothing is noise, and a ratio to it is shown as such.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

OURS = "promptcache"
CONTROL = "none"


def main(path: str) -> None:
    shares, micros = measured(path)
    peers = [peer for peer in shares if peer not in (OURS, CONTROL)]
    print("| case | ours | " + " | ".join(f"{peer} | ours / {peer}" for peer in peers) + " |")
    print("|---" * (2 + 2 * len(peers)) + "|")
    for case, mine in shares[OURS].items():
        noise = abs(shares[CONTROL].get(case, 0.0))
        cells = [case, f"{mine:+.1%} ({micros[OURS][case]:+.0f} µs)"]
        for peer in peers:
            theirs = shares[peer].get(case)
            if theirs is None:
                cells += ["failed", ""]
            else:
                ratio = f"{mine / theirs:.2f}" if theirs > max(noise, 0.01) else "noise"
                cells += [f"{theirs:+.1%} ({micros[peer][case]:+.0f} µs)", ratio]
        print("| " + " | ".join(cells) + " |")


def measured(path: str) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Medians over all runs, by peer and case: the share of the bare call that is added, and microseconds."""
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    micros: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in map(json.loads, Path(path).read_text().splitlines()):
        for case, found in row["cases"].items():
            if "error" not in found:
                shares[row["peer"]][case].append(found["added_us"] / found["base_us"])
                micros[row["peer"]][case].append(found["added_us"])
    return _medians(shares), _medians(micros)


def _medians(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {peer: {case: median(values) for case, values in cases.items()} for peer, cases in found.items()}


if __name__ == "__main__":
    main(sys.argv[1])
