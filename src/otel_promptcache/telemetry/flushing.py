"""Having what providers hold exported now."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from threading import Thread
from time import monotonic
from typing import Any, Final

_MOST_PARTS: Final = 1_000


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


def forget_connections(providers: Iterable[Any]) -> None:
    """Closes the pools of connections of exporters over HTTP. Nothing is sent by that: a parent's connections stay."""
    for exporter in _parts(providers):
        session = getattr(exporter, "_session", None)
        if session is not None:
            with contextlib.suppress(Exception):
                session.close()


def _parts(whole: Iterable[Any]) -> Iterator[Any]:
    """Providers and everything of OpenTelemetry's that they are made of: processors, readers, exporters."""
    seen: set[int] = set()
    found = deque(whole)
    while found and len(seen) < _MOST_PARTS:
        part = found.popleft()
        if isinstance(part, (list, tuple, set, frozenset)):
            found.extend(part)
        elif id(part) not in seen and type(part).__module__.startswith("opentelemetry."):
            seen.add(id(part))
            yield part
            found.extend(list(getattr(part, "__dict__", {}).values()))


def _flush(provider: Any, seconds: float) -> None:
    with contextlib.suppress(Exception):  # exporters say themselves what they could not send
        provider.force_flush(int(seconds * 1000))
