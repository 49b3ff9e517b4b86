"""The prices in force: the price data, and over it the price file that the settings name, re-read when it changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import Final

from otel_promptcache import pricing
from otel_promptcache.model import Observation, Usage
from otel_promptcache.settings import PREFIX, RECHECK_SECONDS, Settings

log = logging.getLogger("otel_promptcache")

SETTING: Final = PREFIX + "PRICE_FILE"
MAX_SENTENCES: Final = 3
"""Of what is wrong with a file, in a log; ``otel-promptcache doctor`` says it all."""


class PriceList:
    """Prices for calls. A file that cannot be used is logged once and counted, and those of before stay in force."""

    def __init__(self, later: Callable[[Callable[[], None]], object], count_trouble: Callable[[], None]) -> None:
        self._later = later
        self._count_trouble = count_trouble
        self._prices = pricing.LISTED
        self._path = ""
        """The file whose rows are in force, or that was tried."""
        self._stamp: tuple[int, int] | None = None
        self._next_check = 0.0
        self._said: set[str] = set()

    def ready(self, settings: Settings) -> bool:
        """Whether the file that the settings name has been looked at."""
        return self._path == settings.price_file

    def current(self, settings: Settings) -> pricing.Prices:
        """The prices as they are known now. Looks for a change of the file at most once a second, and has it read on
        the worker's thread."""
        path = settings.price_file
        if path or self._path:
            now = monotonic()
            if now >= self._next_check:
                self._next_check = now + RECHECK_SECONDS
                if path != self._path or _stamp(path) != self._stamp:
                    self._later(lambda: self.read(path))
        return self._prices

    def price(self, seen: Observation, settings: Settings) -> None:
        """Works out what a call cost, and what it lost. Raises PriceUnknownError."""
        usage, verdict = seen.usage, seen.diagnosis
        if usage is None or not usage.available:
            return
        seen.account = dict(seen.attribution.keys).get("account") or settings.account
        cost = seen.cost = pricing.cost(
            usage,
            seen.provider,
            (seen.response_model, seen.model),
            seen.at,
            seen.write_ttls,
            account=seen.account,
            prices=self.current(settings),
        )
        if verdict is not None and verdict.lost:
            seen.lost_usd = pricing.lost(verdict.lost, usage, cost)

    def knows(self, provider: str, models: tuple[str, ...], when: float) -> bool:
        """Whether there is a price for one of these models."""
        tariffs = (self._prices.tariff(provider, model, Usage(), when) for model in models if model)
        return any(found is not None and found.of_tokens for found in tariffs)

    def read(self, path: str) -> None:
        """Reads a file that is new or has changed; an empty path leaves only the price data."""
        stamp = _stamp(path)
        if path == self._path and stamp == self._stamp:
            return
        other = path != self._path
        try:
            self._prices = pricing.Prices(pricing.read(path)) if path else pricing.LISTED
        except pricing.PriceFileError as error:
            self._refuse(error.problems, other=other)
        except OSError as error:
            self._refuse([f"{os.path.basename(path)}: {error.strerror or type(error).__name__}"], other=other)
        except Exception as error:  # a file must not take the price data with it
            self._refuse([f"{os.path.basename(path)}: {type(error).__name__}"], other=other)
        self._path, self._stamp = path, stamp

    def _refuse(self, problems: list[str], *, other: bool) -> None:
        self._count_trouble()
        if other:
            self._prices = pricing.LISTED
        sentence = "; ".join(problems[:MAX_SENTENCES])
        if sentence in self._said or len(self._said) >= 100:
            return
        self._said.add(sentence)
        log.warning(
            "otel-promptcache: %s is not used: %s%s. %s",
            SETTING,
            sentence,
            f"; and {len(problems) - MAX_SENTENCES} more" if len(problems) > MAX_SENTENCES else "",
            "Costs are those of the price data" if other else "Costs are those of the file as it was before",
        )


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
