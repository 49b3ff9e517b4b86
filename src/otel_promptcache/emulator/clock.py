"""The time an emulator lives in: any clock, moved forward at will."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Clock:
    """Seconds since the epoch by ``source``, plus what has been skipped. ``lambda: 0.0`` makes a clock that stands.

    Thread-safe: a test moves it while the server runs in its own thread.
    """

    __slots__ = ("_latest", "_lock", "_skipped", "_source")

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._skipped = 0.0
        self._latest = -math.inf
        self._lock = threading.Lock()

    @classmethod
    def standing(cls, at: float) -> Clock:
        """A clock that only moves when it is told to, from ``at`` seconds since the epoch."""
        return cls(lambda: at)

    def now(self) -> float:
        """The present, in seconds. Stands still where the source goes back, as a corrected system clock does."""
        with self._lock:
            self._latest = max(self._latest, self._source() + self._skipped)
            return self._latest

    def advance(self, seconds: float) -> float:
        """Moves the present ``seconds`` ahead and returns it. Caches know no way back, so neither does the clock."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a clock is advanced by seconds >= 0, not {seconds!r}: it does not go back")
        with self._lock:
            self._skipped += seconds
        return self.now()

    def set(self, at: float) -> float:
        """Moves the present to ``at`` seconds since the epoch, which must not be past, and returns it."""
        now = self.now()
        if not (math.isfinite(at) and at >= now):
            raise ValueError(f"the clock stands at {now!r} and does not go back to {at!r}")
        return self.advance(at - now)
