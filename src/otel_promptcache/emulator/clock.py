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

    __slots__ = ("_lock", "_skipped", "_source")

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._skipped = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """The present, in seconds."""
        return self._source() + self._skipped

    def advance(self, seconds: float) -> float:
        """Moves the present ``seconds`` ahead and returns it. Caches know no way back, so neither does the clock."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a clock is advanced by seconds >= 0, not {seconds!r}")
        with self._lock:
            self._skipped += seconds
        return self.now()
