"""Tells destructors from ordinary code.

A collection of garbage begins wherever memory is asked for, also with any lock held, ours or somebody else's. What a
destructor does in it must take none. Code cannot see whether it runs in a collection, but the interpreter says so.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from threading import get_ident
from time import thread_time
from typing import Any, Final

_FULL: Final = 2
"""The generation whose collection looks at all objects of the process, and takes as long as there are many."""

_collector = 0
"""Identity of the thread that collects; there is at most one at a time."""
_begun = 0.0
_spent = 0.0


def _told(phase: str, info: Mapping[str, Any]) -> None:
    global _collector, _begun, _spent
    if phase == "start":
        _collector = get_ident()
        _begun = thread_time() if info["generation"] == _FULL else 0.0
    else:
        _collector = 0
        if _begun:
            _spent += thread_time() - _begun


def collected() -> float:
    """CPU seconds that full collections have taken so far. Where one begins is chance: the time is nobody's who
    happened to ask for memory at that moment."""
    return _spent


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
