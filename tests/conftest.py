"""What many tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

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
