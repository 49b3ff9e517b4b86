"""The life of one call, and the wall between the host application and us.

A ``Call`` is told what happens (prepared, answered, finished, failed, abandoned) by the hooks, in any order that
reality offers, and assembles the ``Observation`` that telemetry writes. Nothing raises through it: every entry
point is walled, errors are counted by room and logged once. Sync and async clients use the same object.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Final

from otel_promptcache import pricing
from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import History
from otel_promptcache.journal import Journal
from otel_promptcache.observer.background import Background, Retrieval
from otel_promptcache.observer.batches import Batches
from otel_promptcache.observer.breaker import Breaker
from otel_promptcache.observer.call import Call
from otel_promptcache.observer.errand import ErrandCall
from otel_promptcache.observer.pricelist import PriceList
from otel_promptcache.observer.recording import Recorder, Telemetry
from otel_promptcache.observer.witness import Question, Witness
from otel_promptcache.providers import Dialect
from otel_promptcache.providers.errands import Errand, Kind
from otel_promptcache.settings import Live, Mode, Settings
from otel_promptcache.worker import Worker

if TYPE_CHECKING:
    from otel_promptcache.observer.shared import Sharing

log = logging.getLogger("otel_promptcache")

MAX_CREDENTIALS: Final = 10_000
MAX_SAID: Final = 100
MAX_LEARNED: Final = 1_000
"""Hosts whose provider is remembered from their answers."""
_NOT_DIAGNOSIS: Final = frozenset({"pricing", "worker", "tap", "witness", "journal", "limits", "shared"})
"""Rooms whose errors would not end if diagnosis paused."""
FIRST_CALL_WAIT: Final = 0.01
"""Seconds that the first call of a process waits, at most, for price data that is still being loaded."""


class Observer:
    """What all calls of a process share."""

    def __init__(
        self,
        live: Live,
        key: HashKey,
        history: History,
        telemetry: Telemetry,
        clock: Callable[[], float] = time,
        sharing: Sharing | None = None,
    ) -> None:
        self.live = live
        self.key = key
        self.history = history
        self.sharing = sharing
        self.telemetry = telemetry
        self.clock = clock
        self.worker = Worker(lambda error: self.trouble("worker", error))
        self.breaker = Breaker()
        self.witness = Witness()
        self.batches = Batches()
        self.background = Background()
        self.journal = Journal(key, telemetry.changed, _journal_file(live.value))
        self.learned: dict[tuple[str, int, str], str] = {}
        """Who answers at hosts and ports that nobody has named, as their answers show; a gateway has many models."""
        self.errors: Counter[str] = Counter()
        self._said: set[tuple[str, str]] = set()
        self._unpriced: set[tuple[str, str]] = set()
        self.prices = PriceList(self.worker.submit, lambda: self.telemetry.trouble("prices"))
        self._waited_for_prices = False
        self.no_prices = False
        """Set when the price data cannot be loaded: costs are then left out, and nobody waits for them."""
        self._credentials: dict[int, tuple[str, ...]] = {}
        self._renew_ids()
        after_fork_in_child(self._renew_ids)

    def _renew_ids(self) -> None:
        """A process tells its calls apart by counting; processes, forked ones too, by a random beginning."""
        self._process, self._count = secrets.token_hex(5), itertools.count(1)

    def next_id(self) -> str:
        """A new call id: 16 hexadecimal digits or more."""
        return f"{self._process}{next(self._count):06x}"

    def trouble(self, where: str, error: Exception) -> None:
        """An error of ours: counted, logged once for each room and type, never raised."""
        # Should telling fail too, nothing is left that could be told anybody without risk to the host.
        with contextlib.suppress(Exception):
            self._tell(where, error)

    def _tell(self, where: str, error: Exception) -> None:
        self.errors[where] += 1
        self.telemetry.trouble(where)
        kind = type(error).__name__
        if (where, kind) not in self._said and len(self._said) < MAX_SAID:
            self._said.add((where, kind))
            # Neither message nor values: they could quote the prompt.
            log.warning(
                "otel-promptcache: %s in %s%s; the application is not affected. Further ones are counted in "
                "promptcache.internal.errors",
                kind,
                where,
                _origin(error),
            )
        if where not in _NOT_DIAGNOSIS:
            self.breaker.strike(f"errors in {where}")

    def open(self, dialect: Dialect) -> Call | None:
        """A call that is about to be made, or None when nothing is to be observed."""
        settings = self.live.current()
        if settings.mode is Mode.OFF:
            return None
        self.worker.start()
        return Call(self, dialect, settings)

    def run(self, errand: Errand, path: str) -> ErrandCall | Retrieval | None:
        """A request that carries no prompt, or None when nothing is to be observed."""
        settings = self.live.current()
        if settings.mode is Mode.OFF:
            return None
        if errand.kind is Kind.POLL:
            return Retrieval(self, errand.subject, settings) if errand.subject in self.background else None
        self.worker.start()
        return ErrandCall(self, errand, settings, path)

    def load_prices(self) -> None:
        """Starts loading price data in the background."""
        settings = self.live.current()
        if settings.mode is not Mode.OFF and settings.prices and not self.prices_known():
            self.worker.submit(self.load_prices_now)

    def load_prices_now(self) -> None:
        """Loads what costs are worked out from, on this thread."""
        try:
            self.prices.read(self.live.value.price_file)
            pricing.load()
        except Exception as error:
            self.no_prices = True
            self.trouble("pricing", error)

    def prices_known(self) -> bool:
        """Whether costs can be computed now."""
        return pricing.ready() and self.prices.ready(self.live.value)

    def prices_ready(self) -> bool:
        """The same; the first call of a process waits a moment for it."""
        if self.prices_known():
            return True
        if not self._waited_for_prices:
            self._waited_for_prices = True
            return pricing.wait(FIRST_CALL_WAIT) and self.prices_known()
        return False

    def credential(self, secret: str) -> str:
        """A keyed digest that tells accounts apart; the secret itself is kept nowhere."""
        return self.credentials(secret)[0]

    def credentials(self, secret: str) -> tuple[str, ...]:
        """The same under each key that the shared history is read under, ours first."""
        if not secret:
            return ("",) * (1 if self.sharing is None else self.sharing.keys)
        fast = hash(secret)
        tokens = self._credentials.get(fast)
        if tokens is None:
            if len(self._credentials) >= MAX_CREDENTIALS:
                self._credentials.clear()
            others = self.sharing.credentials(secret) if self.sharing is not None else ()
            tokens = self._credentials[fast] = (self.key.token(secret), *others)
        return tokens

    def learn(self, host: str, port: int, model: str, provider: str) -> str:
        """Remembers who answers at a host for a model, and gives it back."""
        if len(self.learned) < MAX_LEARNED:
            self.learned[host, port, model] = provider
        return provider

    def sweep(self) -> None:
        """Reports writes that ran out unread. Called when metrics are collected."""
        try:
            now = self.clock()
            unread = self.history.expired_writes(now)
            if self.sharing is not None:
                self.sharing.settle(unread, now, self.telemetry.unread)
            elif unread:
                self.telemetry.unread(unread)
        except Exception as error:
            self.trouble("history", error)

    def unpriced(self, provider: str, model: str) -> None:
        if (provider, model) not in self._unpriced and len(self._unpriced) < 1000:
            self._unpriced.add((provider, model))
            log.warning(
                "otel-promptcache: no price is known for model %r of provider %r; its cost is left out "
                "(counted in promptcache.unpriced.calls)",
                model,
                provider,
            )


def _journal_file(settings: Settings) -> str:
    if settings.journal_file and not settings.hash_key:
        log.warning(
            "otel-promptcache: OTEL_PROMPTCACHE_JOURNAL_FILE is left alone without OTEL_PROMPTCACHE_HASH_KEY: digests "
            "under a key of this process alone compare with nothing that it will find there later"
        )
        return ""
    return settings.journal_file


def _origin(error: Exception) -> str:
    """`` (file.py:12)``: where an error of ours arose, by the innermost frame of this package."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "otel_promptcache" in name:
            found = f" ({name.rpartition('otel_promptcache')[2].lstrip('/')}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


__all__ = ["Breaker", "Call", "Observer", "Question", "Recorder", "Telemetry"]
