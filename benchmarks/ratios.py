"""Ratios of one run of the peers' benchmark: ours to each peer, case by case.

    python benchmarks/ratios.py bench.jsonl

A figure below zero or within the spread of the uninstrumented control is noise, and is shown as such.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    rows = {row["peer"]: row["cases"] for row in map(json.loads, Path(path).read_text().splitlines())}
    ours, control = rows.pop("promptcache"), rows.pop("none", {})
    peers = list(rows)
    print("| case | ours, µs | " + " | ".join(f"{peer}, µs | ours / {peer}" for peer in peers) + " |")
    print("|---" * (2 + 2 * len(peers)) + "|")
    for case, mine in ours.items():
        noise = abs(control.get(case, {}).get("added_us", 0.0))
        cells = [case, _micros(mine)]
        for peer in peers:
            theirs = rows[peer][case]
            cells.append(_micros(theirs))
            added, other = mine.get("added_us"), theirs.get("added_us")
            usable = added is not None and other is not None and other > noise
            cells.append(f"{added / other:.2f}" if usable else "noise")
        print("| " + " | ".join(cells) + " |")


def _micros(case: dict[str, float]) -> str:
    return f"{case['added_us']:+.0f}" if "added_us" in case else "failed"


if __name__ == "__main__":
    main(sys.argv[1])
