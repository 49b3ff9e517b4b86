"""A process says everything before it ends, and ends as it would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")]

KILLED = -signal.SIGTERM
ENDS: dict[str, tuple[int, list[str]]] = {
    # How it ends, and what has arrived.
    "nobody_handles_it": (KILLED, ["call"]),
    "somebody_handles_it": (7, []),
    "somebody_passes_it_on": (7, ["call", "later"]),
    "nobody_answers": (KILLED, []),
    "everything_is_locked": (KILLED, ["call"]),
    "it_is_left": (KILLED, []),
    "on_another_thread": (7, []),
    "forked_child": (0, ["child"]),
    "terminated_pool": (0, ["one", "two"]),
    "in_a_child": (0, ["child"]),
    "asked": (7, ["call"]),
    "asked_in_vain": (7, []),
}


@pytest.mark.parametrize("scenario", ENDS)
def test_what_has_arrived(scenario: str, tmp_path: Path) -> None:
    program = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("endings.py")), scenario]
    arrived = tmp_path / "spans"
    began = time.monotonic()
    done = subprocess.run([*program, str(arrived)], capture_output=True, text=True, timeout=60, check=False)
    code, names = ENDS[scenario]
    assert done.returncode == code, done.stderr
    assert sorted(arrived.read_text().split() if arrived.exists() else []) == names
    assert "Traceback" not in done.stderr
    print(f"{scenario}: {time.monotonic() - began:.1f} s")


def test_it_can_be_left_by_a_setting(tmp_path: Path) -> None:
    program = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("endings.py")), "nobody_handles_it"]
    arrived = tmp_path / "spans"
    environment = {**os.environ, "OTEL_PROMPTCACHE_FLUSH_AT_END": "false"}
    done = subprocess.run([*program, str(arrived)], env=environment, timeout=60, check=False)
    assert done.returncode == KILLED
    assert not arrived.exists()
