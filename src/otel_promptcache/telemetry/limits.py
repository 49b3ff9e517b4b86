"""Rate limits as metrics: what providers say of them, what was refused, and what misses spent of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import Observation as Point

from otel_promptcache import semconv
from otel_promptcache.providers.limits import Header, Measure, parsed
from otel_promptcache.telemetry.counters import Labels, label_attributes

if TYPE_CHECKING:
    from otel_promptcache.model import Observation

STALE: Final = 120.0
"""Seconds after which what is left of a limit is nobody's knowledge: limits are of a minute."""
MAX_GAUGES: Final = 1000


class Limits:
    """The last word of each provider and model, and counts that only grow."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Begins anew, with a lock that nobody holds."""
        self.lock = threading.RLock()
        self._said: dict[tuple[Labels, Measure, str], tuple[float, float]] = {}
        self._refused: Counter[tuple[Labels, str]] = Counter()
        self._malformed: Counter[Labels] = Counter()
        self._lost: Counter[Labels] = Counter()

    def heard(self, labels: Labels, headers: Sequence[Header], at: float) -> None:
        """Notes what the headers of one response say; ``at`` in POSIX seconds."""
        whose = _whose(labels)
        found, malformed = parsed(headers)
        with self.lock:
            if malformed:
                self._malformed[whose] += malformed
            for told, amount in found.items():
                key = whose, told.measure, told.kind
                if key in self._said or len(self._said) < MAX_GAUGES:
                    self._said[key] = amount, at

    def counted(self, labels: Labels, seen: Observation, lost: int) -> None:
        """Adds what a call that is over was refused, and ``lost`` tokens that it need not have spent."""
        with self.lock:
            if seen.refused:
                status = seen.diagnosis.status.value if seen.diagnosis is not None else ""
                self._refused[labels, status] += seen.refused
            if lost:
                self._lost[labels] += lost

    # --- reading --------------------------------------------------------------------------------------------

    def gauge(self, measure: Measure) -> Iterator[Point]:
        """What providers said last, as long as it means anything."""
        oldest = self._clock() - STALE if measure is not Measure.LIMIT else float("-inf")
        with self.lock:
            said = list(self._said.items())
        for (whose, what, kind), (amount, at) in said:
            if what is measure and at >= oldest:
                yield Point(amount, label_attributes(whose) | ({semconv.LIMIT_KIND: kind} if kind else {}))

    def refused(self) -> Iterator[Point]:
        """Responses that said "too many", by what became of the call in the end."""
        with self.lock:
            found = list(self._refused.items())
        for (labels, status), count in found:
            yield Point(count, label_attributes(labels) | ({semconv.STATUS: status} if status else {}))

    def lost(self) -> Iterator[Point]:
        """Tokens that counted against a limit, and would not have, had they been read."""
        yield from self._points(self._lost)

    def malformed(self) -> Iterator[Point]:
        """Headers that said no number."""
        yield from self._points(self._malformed)

    def _points(self, counts: Mapping[Labels, int]) -> Iterator[Point]:
        with self.lock:
            found = list(counts.items())
        for labels, count in found:
            yield Point(count, label_attributes(labels))


def _whose(labels: Labels) -> Labels:
    """Provider and model of a call's labels: limits are not of a route."""
    half = len(labels) // 2
    return labels[:2] + labels[half : half + 2]
