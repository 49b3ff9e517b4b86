"""Counters as one table of sums, read when metrics are collected.

A synchronous counter costs more for a call than the span does; adding to a row of this table costs next to nothing.
"""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import Histogram
from opentelemetry.metrics import Observation as Point

from otel_promptcache import semconv
from otel_promptcache.model import Observation
from otel_promptcache.semconv import OVERFLOW

if TYPE_CHECKING:
    from opentelemetry.context import Context

MAX_LABEL_VALUES: Final = 100
COST_CLASSES: Final = ("read", "write", "uncached", "output")

_TAKES_CONTEXT: Final = "context" in inspect.signature(Histogram.record).parameters
"""Whether the API is new enough (1.30) to be told which span an exemplar is of."""

Labels = tuple[str, ...]
"""Names of labels, then as many values. Names are part of it because settings may change while we run."""


@lru_cache(maxsize=64)
def label_names(keys: tuple[str, ...]) -> Labels:
    """The common labels and those of the attribution keys."""
    return (*semconv.COMMON_LABELS, *(f"{semconv.ATTRIBUTION}.{key}" for key in keys))


def label_attributes(labels: Labels) -> dict[str, Any]:
    """Labels as the attributes of a point; what is empty is left out."""
    half = len(labels) // 2
    return {name: value for name, value in zip(labels[:half], labels[half:], strict=True) if value}


class Row:
    """Sums of all calls with the same labels: calls, tokens, USD."""

    calls = no_usage = unpriced = priced = 0
    input = output = read = write = lost_tokens = 0
    cost_read = cost_write = cost_uncached = cost_output = without_cache = lost_cost = 0.0


class Table:
    """All counters: one dictionary from labels to sums, one look-up a call."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begins anew, with a lock that nobody holds."""
        self.lock = threading.RLock()
        self.rows: dict[tuple[Labels, str, str, str, str], Row] = {}
        self._unread: dict[tuple[Labels, str], float] = {}
        self._errors: dict[str, int] = {}
        self._lookups: dict[str, int] = {}
        self._mismatches = 0
        self._native: dict[tuple[Labels, str, str, str], int] = {}

    def add(self, labels: Labels, seen: Observation, *, unpriced: bool) -> None:
        """Adds one finished call."""
        verdict, usage, cost = seen.diagnosis, seen.usage, seen.cost
        status = verdict.status.value if verdict is not None else ""
        reason = verdict.reason.value if verdict is not None and verdict.reason is not None else ""
        key = (labels, status, reason, "text" if seen.text_only else "unknown", seen.operation)
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
            row.unpriced += unpriced
            if verdict is not None:
                row.lost_tokens += verdict.lost
            if cost is None:
                return
            row.priced += 1
            row.cost_read += float(cost.read)
            row.cost_write += float(cost.write)
            row.cost_uncached += float(cost.uncached)
            row.cost_output += float(cost.output)
            row.without_cache += float(cost.without_cache)
            row.lost_cost += float(seen.lost_usd or 0)

    def add_native(self, labels: Labels, reason: str, theirs: str, agreement: str) -> None:
        """Adds a verdict of the provider's own and how it goes with ours."""
        key = (labels, reason, theirs, agreement)
        with self.lock:
            self._native[key] = self._native.get(key, 0) + 1

    def add_unread(self, labels: Labels, ttl: str, premium: float) -> None:
        """Adds what was paid for a write that nobody has read."""
        with self.lock:
            self._unread[labels, ttl] = self._unread.get((labels, ttl), 0.0) + premium

    def add_error(self, where: str) -> None:
        """Adds an error of ours."""
        with self.lock:
            self._errors[where] = self._errors.get(where, 0) + 1

    def add_lookup(self, outcome: str) -> None:
        """Adds a look-up in the shared history."""
        with self.lock:
            self._lookups[outcome] = self._lookups.get(outcome, 0) + 1

    def add_mismatch(self) -> None:
        """Adds workers that have another hash key."""
        with self.lock:
            self._mismatches += 1

    # --- reading --------------------------------------------------------------------------------------------

    def column(self, name: str, extra: tuple[str, ...], *, zeros: bool) -> Iterator[Point]:
        """One counter: the rows summed over every label it does not have."""
        sums: dict[tuple[Labels, tuple[str, ...]], float] = {}
        with self.lock:
            for (labels, status, reason, modality, operation), row in self.rows.items():
                known = {
                    semconv.STATUS: status,
                    semconv.REASON: reason,
                    semconv.TOKEN_MODALITY: modality,
                    semconv.OPERATION: operation,
                }
                key = (labels, tuple(known[label] for label in extra))
                sums[key] = sums.get(key, 0) + getattr(row, name)
        for (labels, values), total in sums.items():
            if total or zeros:
                more = {label: value for label, value in zip(extra, values, strict=True) if value}
                yield Point(total, label_attributes(labels) | more)

    def costs(self) -> Iterator[Point]:
        """Money by token class, for calls whose price is known."""
        sums: dict[tuple[Labels, str], float] = {}
        with self.lock:
            for (labels, *_), row in self.rows.items():
                if row.priced:
                    for kind in COST_CLASSES:
                        sums[labels, kind] = sums.get((labels, kind), 0.0) + getattr(row, f"cost_{kind}")
        for (labels, kind), total in sums.items():
            yield Point(total, label_attributes(labels) | {semconv.COST_CLASS: kind})

    def unread(self) -> Iterator[Point]:
        """Money for writes that expired unread, by lifetime."""
        with self.lock:
            unread = list(self._unread.items())
        for (labels, ttl), premium in unread:
            yield Point(premium, label_attributes(labels) | {semconv.TTL: ttl})

    def native(self) -> Iterator[Point]:
        """Calls with a verdict of the provider's own, by ours, theirs, and how the two go together."""
        with self.lock:
            found = list(self._native.items())
        names = (semconv.REASON, semconv.NATIVE_VERDICT, semconv.NATIVE_AGREEMENT)
        for (labels, *values), count in found:
            more = {name: value for name, value in zip(names, values, strict=True) if value}
            yield Point(count, label_attributes(labels) | more)

    def errors(self) -> Iterator[Point]:
        """Errors of ours, by room."""
        with self.lock:
            errors = list(self._errors.items())
        for where, count in errors:
            yield Point(count, {semconv.WHERE: where})

    def lookups(self) -> Iterator[Point]:
        """Look-ups in the shared history, by outcome."""
        with self.lock:
            found = list(self._lookups.items())
        for outcome, count in found:
            yield Point(count, {semconv.LOOKUP: outcome})

    def mismatches(self) -> Iterator[Point]:
        """Workers seen with another hash key."""
        if self._mismatches:
            yield Point(self._mismatches)


class Pending:
    """What is counted later: when metrics are collected, or by the worker once ``capacity`` calls wait.

    Adding to the table and to three histograms is a fifth of all that we do for a call, and done for many calls in a
    row it costs a third of that.
    """

    def __init__(self, trouble: Callable[[], None], capacity: int = 128) -> None:
        self._trouble = trouble
        self._capacity = capacity
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.later: Callable[[Callable[[], None]], bool] = lambda _: False
        """Has a job done on another thread; False when it cannot be."""

    def add(self, count: Callable[..., None], *seen: Any) -> None:
        """Has ``count(*seen)`` called later, once."""
        self._waiting.append((count, seen))
        waiting = len(self._waiting)
        # Asked once, as the mark is passed; where nobody comes for twice as many, it is done here.
        if (waiting == self._capacity and not self.later(self.flush)) or waiting >= 2 * self._capacity:
            self.flush()

    def flush(self) -> None:
        """Counts everything that waits."""
        while self._waiting:
            try:
                count, seen = self._waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                count(*seen)
            except Exception:  # what is wrong with one call is no reason to lose the others
                self._trouble()

    def clear(self) -> None:
        self._waiting.clear()


def record(histogram: Histogram, value: float, labels: dict[str, Any], where: Context) -> None:
    """Records a value as of a context, whose span becomes its exemplar."""
    if _TAKES_CONTEXT:
        histogram.record(value, labels, context=where)
    else:
        histogram.record(value, labels)


class Limiter:
    """Keeps each label at its first hundred values; everything later is one value."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begins anew, with a lock that nobody holds."""
        self._lock = threading.RLock()
        self._values: dict[str, set[str]] = {}
        self._known: dict[Labels, Labels] = {}

    def limit(self, names: Labels, values: tuple[str, ...]) -> Labels:
        asked = names + values
        found = self._known.get(asked)
        if found is None:
            with self._lock:
                found = names + tuple(map(self._one, names, values))
            if len(self._known) < 10_000:
                self._known[asked] = found
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
