"""A process says everything before it ends, and ends as it would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
    "idle_child": (0, []),
    "interrupted_pool": (0, []),
    "terminated_pool": (0, ["one", "two"]),
    "busy_pool": (0, []),
    "a_child_is_terminated": (0, []),
    "in_a_child": (0, ["child"]),
    "asked": (7, ["call"]),
    "asked_in_vain": (7, []),
}


def run(scenario: str, folder: Path, **settings: str) -> tuple[int, list[str], str]:
    """How it ended, what arrived, and what it said."""
    program = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("endings.py")), scenario]
    arrived = folder / "spans"
    environment = {**os.environ, **{f"OTEL_PROMPTCACHE_{name}": value for name, value in settings.items()}}
    done = subprocess.run(
        [*program, str(arrived)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, sorted(arrived.read_text().split() if arrived.exists() else []), done.stderr


@pytest.mark.parametrize("scenario", ENDS)
def test_what_has_arrived(scenario: str, tmp_path: Path) -> None:
    code, names, said = run(scenario, tmp_path, FLUSH_ON_SIGTERM="true")
    assert (code, names) == ENDS[scenario], said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("scenario", "settings"),
    [("nobody_handles_it", {}), ("forked_child", {"FLUSH_AT_END": "false", "FLUSH_ON_SIGTERM": "true"})],
)
def test_settings(scenario: str, settings: dict[str, str], tmp_path: Path) -> None:
    """A signal is handled only if asked for, and nothing is done where it is not wanted."""
    assert run(scenario, tmp_path, **settings)[:2] == (ENDS[scenario][0], [])
