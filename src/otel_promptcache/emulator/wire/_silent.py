"""Of an API that has no diagnostics of its own: it compares with nothing, and says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.diagnostics import Difference
from otel_promptcache.model import Prompt


def compared(_body: Mapping[str, Any]) -> str:
    return ""


def verdict(
    _body: Mapping[str, Any], _prompt: Prompt, _counts: Accounting, _difference: Difference | None
) -> Mapping[str, Any] | None:
    return None
