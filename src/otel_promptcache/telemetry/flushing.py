"""Having what providers hold exported now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from threading import Thread
from time import monotonic
from typing import Any


def flush(providers: Iterable[Any], seconds: float) -> bool:
    """Has each provider of an SDK export what it holds, side by side: one that has nobody to send to keeps none of the
    others waiting. False when time ran out first."""
    deadline = monotonic() + seconds
    threads = [
        Thread(target=_flush, args=(provider, seconds), name="otel-promptcache-flush", daemon=True)
        for provider in providers
        if hasattr(provider, "force_flush")  # of an SDK
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _flush(provider: Any, seconds: float) -> None:
    with contextlib.suppress(Exception):  # exporters say themselves what they could not send
        provider.force_flush(int(seconds * 1000))
