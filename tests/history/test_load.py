"""Eight processes at twenty calls a second each say what one process says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fleet.py"


@pytest.mark.slow
@pytest.mark.server
def test_eight_processes_share_a_history() -> None:
    """Every one that was answered in time, as all are on a machine that has the cores for it."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--seconds", "8", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["measured"]
    assert measured["calls"] == 8 * 20 * 8
    assert measured["missed"] > 40
    # Nothing but the machine standing still for longer than a server is waited for: such calls were not answered.
    assert set(measured["errors"]) <= {"TimeoutError"}
    assert sum(measured["errors"].values()) <= 0.05 * measured["calls"]
    assert measured["false misses"] == 0
    assert measured["false misses, late calls"] == 0
    # A few requests are sent in the moment before another worker tells of its response.
    others = measured["other statuses"] + sum(measured["other reasons"].values())
    assert others <= max(5, 0.02 * measured["outcomes"]["answered"])
    assert measured["outcomes"]["answered"] > measured["calls"] / 10
