"""What many tests share."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow at times; that is no property of ours.
settings.register_profile("promptcache", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("promptcache")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell starts in the background ignores Ctrl-C, and so would everything that is started from here.
    signal.signal(signal.SIGINT, signal.default_int_handler)

BESIDE = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data that is not ours to redistribute: ``PROMPTCACHE_SHARED``, else ``shared`` beside the clone."""
    folder = Path(os.environ.get("PROMPTCACHE_SHARED") or BESIDE)
    if (folder / "data").is_dir():
        return folder
    message = f"no recorded data in {folder}; PROMPTCACHE_SHARED names the folder that has it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def recorded(shared: Path) -> Path:
    """Traffic that others have recorded: cassettes, sessions, bills."""
    return shared / "data" / "recorded"


@cache
def group_of(file: str) -> str:
    """The group that a module of tests says it is."""
    path = Path(__file__).parents[1] / file
    found = re.search(r'^pytestmark = .*xdist_group\("(\w+)"\)', path.read_text(), re.MULTILINE)
    return found[1] if found else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Modules of one group go to one worker. pytest-xdist's own scheduler writes the group into node ids, to which
    nothing can be written since pytest 9.2: everything that modules share would be started by each worker."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class Grouped(LoadGroupScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0]) or str(super()._split_scope(nodeid))

    return Grouped(config, log)


VERIFIES = "verifies"


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Reports have no marks, so what a test verifies goes along as a property, from other processes too."""
    for item in items:
        item.user_properties += [(VERIFIES, mark.args[0]) for mark in item.iter_markers(VERIFIES)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much of what is shipped in deploy/ the real programs have been asked about, and how much was left out."""
    found: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, what in getattr(report, "user_properties", ()):
                if name == VERIFIES:
                    found.setdefault(what, Counter())[outcome] += 1
    if found:
        terminalreporter.section("verified with the real programs")
        for what, counts in sorted(found.items()):
            amiss = [f"{number} {outcome}" for outcome, number in counts.items() if outcome != "passed"]
            terminalreporter.write_line(f"{counts['passed']:6} {what}{' - ' if amiss else ''}{', '.join(amiss)}")
