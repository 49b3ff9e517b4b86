"""Tells destructors from ordinary code.

A collection of garbage begins wherever memory is asked for, also with any lock held, ours or somebody else's. What a
destructor does in it must take none. Code cannot see whether it runs in a collection, but the interpreter says so.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from threading import get_ident
from typing import Any

_collector = 0
"""Identity of the thread that collects; there is at most one at a time."""


def _told(phase: str, _: Mapping[str, Any]) -> None:
    global _collector
    _collector = get_ident() if phase == "start" else 0


def collecting() -> bool:
    """Whether this code was called by a collection of garbage, in the middle of something unknown."""
    return _collector != 0 and _collector == get_ident()


def watch_collections() -> None:
    """Begins to watch, unless it has begun already."""
    if _told not in gc.callbacks:
        gc.callbacks.append(_told)


def ignore_collections() -> None:
    """Watches no longer."""
    if _told in gc.callbacks:
        gc.callbacks.remove(_told)
