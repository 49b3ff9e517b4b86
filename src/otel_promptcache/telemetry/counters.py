"""Counters as one table of sums, read when metrics are collected.

A synchronous counter costs more for a call than the span does; adding to a row of this table costs next to nothing.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from otel_promptcache.model import Observation
from otel_promptcache.semconv import OVERFLOW

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram

MAX_LABEL_VALUES: Final = 100
COST_CLASSES: Final = ("read", "write", "uncached", "output")


class Row:
    """Sums of all calls with the same labels: calls, tokens, USD."""

    calls = no_usage = unpriced = priced = 0
    input = output = read = write = lost_tokens = 0
    cost_read = cost_write = cost_uncached = cost_output = without_cache = lost_cost = 0.0


class Table:
    """All counters: one dictionary from labels to sums, one look-up a call."""

    def __init__(self) -> None:
        self._clear()
        if hasattr(os, "register_at_fork"):
            # What happened before the fork is exported by the parent.
            os.register_at_fork(after_in_child=self._clear)

    def _clear(self) -> None:
        self.lock = threading.Lock()
        self.rows: dict[tuple[tuple[str, ...], str, str, str], Row] = {}
        self.unread: dict[tuple[tuple[str, ...], str], float] = {}
        self.errors: dict[str, int] = {}

    def add(self, labels: tuple[str, ...], seen: Observation) -> None:
        """Adds one finished call."""
        verdict, usage, cost = seen.diagnosis, seen.usage, seen.cost
        status = verdict.status.value if verdict is not None else ""
        reason = verdict.reason.value if verdict is not None and verdict.reason is not None else ""
        key = (labels, status, reason, "text" if seen.text_only else "unknown")
        with self.lock:
            row = self.rows.get(key)
            if row is None:
                row = self.rows[key] = Row()
            row.calls += 1
            if usage is None:
                row.no_usage += not seen.error_type
                return
            row.input += usage.input_total or 0
            row.output += usage.output or 0
            row.read += usage.read or 0
            row.write += usage.write or 0
            if cost is None:
                row.unpriced += 1
                return
            row.priced += 1
            row.cost_read += float(cost.read)
            row.cost_write += float(cost.write)
            row.cost_uncached += float(cost.uncached)
            row.cost_output += float(cost.output)
            row.without_cache += float(cost.without_cache)
            if verdict is not None and verdict.lost:
                row.lost_tokens += verdict.lost
                row.lost_cost += float(seen.lost_usd or 0)


class Pending:
    """Histogram records, written when metrics are collected.

    A record costs a fifth of all that we do for a call; written together they cost a third of that, and on the
    thread that exports. At most ``capacity`` wait.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._waiting: deque[tuple[Histogram, float, dict[str, Any], Context]] = deque()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._waiting.clear)

    def record(self, histogram: Histogram, value: float, labels: dict[str, Any], where: Context) -> None:
        self._waiting.append((histogram, value, labels, where))
        if len(self._waiting) >= self._capacity:
            self.flush()

    def flush(self) -> None:
        while self._waiting:
            try:
                histogram, value, labels, where = self._waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            histogram.record(value, labels, context=where)


class Limiter:
    """Keeps each label at its first hundred values; everything later is one value."""

    def __init__(self) -> None:
        self._values: dict[str, set[str]] = {}
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def limit(self, names: Sequence[str], values: tuple[str, ...]) -> tuple[str, ...]:
        found = self._known.get(values)
        if found is None:
            found = tuple(self._one(name, value) for name, value in zip(names, values, strict=True))
            if len(self._known) < 10_000:
                self._known[values] = found
        return found

    def _one(self, name: str, value: str) -> str:
        seen = self._values.setdefault(name, set())
        if value in seen or not value:
            return value
        if len(seen) >= MAX_LABEL_VALUES:
            return OVERFLOW
        seen.add(value)
        return value

    @property
    def overflowing(self) -> list[str]:
        """Labels that have reached their limit."""
        return sorted(name for name, values in self._values.items() if len(values) >= MAX_LABEL_VALUES)
