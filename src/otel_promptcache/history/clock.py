"""How far a server's clock is ahead of ours, from what it said, when it was asked and when it was heard."""

from __future__ import annotations

from math import inf
from typing import Final

HOLDS: Final = 600.0
"""Seconds that what was heard holds: clocks drift."""
_ROUNDING: Final = 0.001
"""Seconds by which answers may contradict each other and no clock was set."""


class Offset:
    """Each answer bounds it: the server read its clock after it was asked and before it was heard. Answers together
    bound it closer than the quickest one; one that contradicts them says that a clock was set."""

    def __init__(self) -> None:
        self._low, self._high = -inf, inf
        self._heard = -inf

    def known(self, now: float) -> bool:
        """Whether it has been heard of late. ``now``: seconds of a clock that nobody sets."""
        return now - self._heard < HOLDS

    def heard(self, told: float, asked: float, took: float, now: float) -> None:
        """``told``: what the server's clock said; ``asked``: what ours said when it was asked; ``took``: seconds until
        the answer was there."""
        low, high = told - asked - took, told - asked
        if low > self._high + _ROUNDING or high < self._low - _ROUNDING or not self.known(now):
            self._low, self._high = low, high
        else:
            self._low, self._high = max(low, self._low), min(high, self._high)
        self._heard = now

    def unheard(self, now: float) -> None:
        """The server does not say: the clocks are taken to agree until it does."""
        self._low = self._high = 0.0
        self._heard = now

    @property
    def seconds(self) -> float:
        """What could as well be the way there and back is no difference of clocks."""
        return 0.0 if self._low <= 0.0 <= self._high else (self._low + self._high) / 2
