"""Requests a minute of all workers, where a provider limits how many of them one machine takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otel_promptcache.history.sharing import Command, Mine
from otel_promptcache.providers.rules import MINUTE, rules_for


def rate(own: Mine, now: float) -> list[Command]:
    """Counts this request with those of its minute, and asks for those of the minute before."""
    if not rules_for(own.scope.provider, own.scope.model).machine_rate:
        return []
    minute = int(now // MINUTE)
    this, before = (own.realm.name("n", own.chains[0] + str(one).encode()) for one in (minute, minute - 1))
    return [("INCR", this), ("EXPIRE", this, 3 * MINUTE), ("GET", before)]


def rated(replies: Sequence[Any], now: float) -> int:
    """Requests in the minute before this one."""
    try:
        this, before = int(replies[0]), int(replies[2] or 0)
    except (TypeError, ValueError, IndexError):
        return 0
    return int(max(0, this - 1) + before * (1 - now % MINUTE / MINUTE))
