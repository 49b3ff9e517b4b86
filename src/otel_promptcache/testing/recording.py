"""Records every call of both SDKs in this process, and says what is wrong with them.

The calls go through the instrumentation's own hooks, history and diagnosis. A recording has an observer of its own
beside the application's: its history begins empty, its settings are its own (whatever ``OTEL_PROMPTCACHE_MODE`` says),
and it writes no span, metric or log record. An instrumentation that is active goes on as if nobody were listening.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Final

from otel_promptcache import attribution, pricing, snapshot
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Sight, Write
from otel_promptcache.history.memory import Memory
from otel_promptcache.instrumentation import hooks, patches
from otel_promptcache.journal import Change
from otel_promptcache.model import Attribution, Link, Observation, Prompt, Scope, Usage
from otel_promptcache.observer import Observer
from otel_promptcache.observer.recording import Origin, Trip
from otel_promptcache.providers import BY_NAME
from otel_promptcache.providers.limits import Header
from otel_promptcache.settings import PREFIX, Live
from otel_promptcache.snapshot import Prefix
from otel_promptcache.telemetry.context import conversation_in_context, entry_route
from otel_promptcache.testing import report
from otel_promptcache.testing.calls import Call
from otel_promptcache.testing.stability import Stability

SEGMENTS: Final = 1_000_000
"""Prompt segments that a recording remembers."""
PATIENCE: Final = 10.0
"""Seconds that an assertion waits for what is still done off the caller's thread."""
TICK: Final = 1e-6
"""Seconds between two calls at least, whatever the clock says."""
_SETTINGS: Final = {PREFIX + "JOURNAL": "false", PREFIX + "BUDGET_MS": "0"}
"""On a slow machine nothing may be left out."""

_names = map("recording-{}".format, itertools.count(1))


class Recording:
    """The calls made while it lasts, and assertions about them. A failed one says which call, where, and what to do.

    ``clock`` gives POSIX seconds; set it to ``emulator.clock.now`` where time is moved.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        key: str = "",
        check: Callable[[str, Sequence[Prefix]], None] | None = None,
    ) -> None:
        self.clock = clock
        self._check = check
        self._last = float("-inf")
        self._ear = _Ear(HashKey(key))
        self.observer = Observer(Live(_SETTINGS), HashKey(), self._ear, self._ear, clock=self._now)

    def _now(self) -> float:
        """The time of a call. A test may have frozen its clock; what was read after it was written is later still."""
        self._last = max(self.clock(), self._last + TICK)
        return self._last

    # --- what was recorded ----------------------------------------------------------------------------------

    @property
    def calls(self) -> list[Call]:
        """Every call so far, in the order in which they were made."""
        self.observer.worker.flush(PATIENCE)
        return list(self._ear.calls)

    @property
    def hit_ratio(self) -> float | None:
        """Tokens read from cache / all input tokens, over calls that reported them; None when none did."""
        return report.hit_ratio(self.calls)

    @property
    def prefixes(self) -> list[Prefix]:
        """The distinct prefixes (everything in front of the messages) in the order in which they were first sent."""
        found: list[Prefix] = []
        for call in self.calls:
            if call.prefix is not None and call.prefix.parts and not any(one.same_as(call.prefix) for one in found):
                found.append(call.prefix)
        return found

    # --- assertions -----------------------------------------------------------------------------------------

    def assert_hit_ratio(self, min: float = 0.8, *, calls: Iterable[Call] | None = None) -> None:  # noqa: A002
        """At least this share of all input tokens was read from cache. ``calls``: only these, for example
        ``promptcache.calls[1:]`` to leave out the first, which can read nothing."""
        __tracebackhide__ = True
        chosen = self._some(calls)
        ratio = report.hit_ratio(chosen)
        if ratio is None or ratio < min:
            raise AssertionError(report.low_ratio(chosen, ratio, min))

    def assert_prefix_stable(self) -> None:
        """No call changed what it had in common with the call it continues: tools, system prompt, parameters of the
        cache key, model, earlier messages. Asked of the prompts alone, so it holds for short prompts and mocks too."""
        __tracebackhide__ = True
        calls = self._some(None)
        if any(call.change is not None or call.prefix is None for call in calls):
            raise AssertionError(report.unstable(calls))

    def assert_no_unread_writes(self, usd: float = 0.0) -> None:
        """What was paid extra to write into the cache, and no later call has read, is at most so much. The last call
        of a conversation always writes for nobody: allow for it with ``usd``."""
        __tracebackhide__ = True
        calls = self._some(None)
        unpriced = [call for call in calls if call.cost is None and call.usage is not None and call.usage.write]
        unread = sum((call.unread_usd for call in calls), Decimal(0))
        if unpriced or unread > Decimal(str(usd)):
            raise AssertionError(report.unread(calls, unread, usd, unpriced))

    def assert_cached(self, call: Call | int | str | object) -> None:
        """A call read from cache what there was to be read. ``call``: one of ``calls``, its index there, or the
        response that the SDK returned."""
        __tracebackhide__ = True
        found = self._find(call)
        if not found.cached:
            raise AssertionError(report.not_cached(self.calls, found))

    def assert_matches_snapshot(self, name: str = "") -> None:
        """The prefixes are those of the snapshot under version control; ``pytest --promptcache-update`` renews it.
        ``name`` tells several snapshots of one test apart. Needs the pytest plugin."""
        __tracebackhide__ = True
        if self._check is None:
            raise RuntimeError("snapshots belong to pytest: use the fixture promptcache in place of recording()")
        self._some(None)
        prefixes = self.prefixes
        if not prefixes:
            raise AssertionError("no recorded call has anything in front of its messages: there is no stable prefix")
        self._check(name, prefixes)

    def _some(self, calls: Iterable[Call] | None) -> list[Call]:
        __tracebackhide__ = True
        chosen = self.calls if calls is None else list(calls)
        if not chosen:
            raise AssertionError(report.NOTHING_RECORDED)
        return chosen

    def _find(self, wanted: object) -> Call:
        __tracebackhide__ = True
        calls = self._some(None)
        if isinstance(wanted, Call):
            return wanted
        if isinstance(wanted, int):
            if not -len(calls) <= wanted < len(calls):
                raise AssertionError(f"there is no call {wanted}: {len(calls)} were recorded, counted from 0")
            return calls[wanted]
        identity = wanted if isinstance(wanted, str) else getattr(wanted, "id", None)
        found = next((call for call in reversed(calls) if identity and call.response_id == identity), None)
        if found is None:
            raise AssertionError(
                f"no recorded call has the response id of this {type(wanted).__name__}; "
                "give one of promptcache.calls, an index of it, or what the SDK returned"
            )
        return found


@contextmanager
def recording(
    *,
    clock: Callable[[], float] = time.time,
    key: str = "",
    check: Callable[[str, Sequence[Prefix]], None] | None = None,
) -> Iterator[Recording]:
    """Records while the block lasts. ``key`` and ``check`` are the pytest plugin's: the snapshot's key, and what
    compares with it."""
    pricing.load()  # else the first calls would be over before their price is known
    made, name = Recording(clock=clock, key=key, check=check), next(_names)
    hooks.listen(made.observer)
    try:
        for sdk in patches.SDKS:
            patches.instrument(sdk, name)
        yield made
    finally:
        for sdk in patches.SDKS:
            patches.uninstrument(sdk, name)
        hooks.stop_listening(made.observer)
        made.observer.worker.stop()


# --- Where the observer's events go -------------------------------------------------------------------------


class _Ear:
    """Telemetry and history of a recording's observer: it turns what they are told into calls."""

    service_version = ""

    def __init__(self, key: HashKey) -> None:
        self.calls: list[Call] = []
        self._key = key
        secret = os.environ.get(PREFIX + "HASH_KEY", "").strip()
        self._deployment = HashKey(secret) if secret else None
        self._memory = Memory(HashKey(), SEGMENTS)
        self._stability = Stability(SEGMENTS)
        self._lock = threading.Lock()
        self._compared: dict[int, Sight] = {}
        """What the comparison knew of each call, by its number."""

    # Telemetry

    def origin(self) -> Origin:
        return Origin(attribution.current())

    def begin(self, seen: Observation, started_ns: int, origin: Origin | None = None) -> _Recorder:  # noqa: ARG002
        with self._lock:
            call = Call(len(self.calls) + 1, seen)
            self.calls.append(call)
        return _Recorder(call)

    def errand(self, trip: Trip, started_ns: int) -> None:
        """Without a prompt there is nothing to record."""

    def prompt_map(self, seen: Observation, prompt: Prompt, sight: Sight) -> None: ...

    def trouble(self, where: str) -> None: ...

    def overhead(self, spent: Mapping[str, float]) -> None: ...

    def unread(self, writes: list[Write]) -> None: ...

    def changed(self, change: Change) -> None: ...

    # History

    def sent(
        self, prompt: Prompt, scope: Scope, *, now: float, route: str, conversation: str, link: Link | None
    ) -> Sight:
        sight = self._memory.sent(prompt, scope, now=now, route=route, conversation=conversation, link=link)
        call = self._call(sight)
        dialect = BY_NAME[prompt.dialect]
        # Here and now: the application may reuse the very objects for its next request, and no verdict of a test may
        # hang on how fast the worker is.
        self._memory.describe(prompt, sight)
        sight.fresh = 0
        self._compared[call.number], call.change = self._stability.sent(
            prompt, scope, dialect, number=call.number, route=route, conversation=conversation
        )
        call.prefix = snapshot.searched(snapshot.take(prompt, scope.provider, self._key, self._deployment), prompt)
        return sight

    def describe(self, prompt: Prompt, sight: Sight) -> None: ...

    def begun(self, sight: Sight, now: float | None = None) -> None:
        self._memory.begun(sight, now)

    def ended(self, sight: Sight, usage: Usage | None, response_id: str, write: Write | None) -> None:
        call = self._call(sight)
        call.written = write
        compared = self._compared.get(call.number)
        if response_id and compared is not None:
            self._stability.answered(compared, response_id)
        self._memory.ended(sight, usage, response_id, write)

    def expired_writes(self, now: float) -> list[Write]:
        return self._memory.expired_writes(now)

    def _call(self, sight: Sight) -> Call:
        assert sight.sent.link is not None
        return self.calls[sight.sent.link.span_id - 1]


class _Recorder:
    """Telemetry's side of one recorded call. Its link leads to the call's number."""

    own: None = None
    labels: tuple[str, ...] = ()

    def __init__(self, call: Call) -> None:
        said = attribution.current()
        self.link = Link(0, call.number)
        self.attribution: Attribution = said._replace(
            route=said.route or entry_route() or attribution.calling_function(2),
            conversation=said.conversation or conversation_in_context(None),
        )

    @property
    def origin(self) -> Origin:
        return Origin(self.attribution)

    def limits(self, headers: Sequence[Header], at: float) -> None: ...

    def sent_again(self) -> None: ...

    def renamed(self, seen: Observation) -> None: ...

    def usage(self, seen: Observation) -> None: ...

    def close(self, seen: Observation) -> None: ...

    def settle(self, seen: Observation) -> None: ...
