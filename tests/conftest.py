"""What many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
