"""When diagnosis pauses by itself."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

log = logging.getLogger("otel_promptcache")

STRIKES: Final = 5
STRIKE_WINDOW: Final = 60.0
PAUSE: Final = 60.0
GROSS_OVERRUN: Final = 10.0
"""A call over the budget is one strike; one this many times over it opens the breaker alone."""


class Breaker:
    """Falls back to counting tokens when diagnosis fails or takes too long too often.

    It has no lock: a strike more or less between threads does not matter, a lock held across a fork would.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._strikes: deque[float] = deque(maxlen=STRIKES)
        self._open_until = 0.0
        self._said = False

    def strike(self, why: str, weight: int = 1) -> None:
        now = self._clock()
        self._strikes.extend([now] * weight)
        if len(self._strikes) < STRIKES or now - self._strikes[0] > STRIKE_WINDOW:
            return
        self._strikes.clear()
        self._open_until = now + PAUSE
        if not self._said:
            self._said = True
            log.warning(
                "otel-promptcache: diagnosis pauses for %d s (%s); tokens and cost go on. "
                "OTEL_PROMPTCACHE_BUDGET_MS sets the limit, OTEL_PROMPTCACHE_MODE=tokens turns diagnosis off",
                PAUSE,
                why,
            )

    @property
    def open(self) -> bool:
        return self._open_until > 0.0 and self._clock() < self._open_until
