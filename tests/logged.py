"""What was logged during a test."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What we logged: threads of earlier tests may have something to say, too."""
    return [record for record in caplog.records if record.name.startswith("otel_promptcache")]
