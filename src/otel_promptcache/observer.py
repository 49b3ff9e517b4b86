"""The life of one call, and the wall between the host application and us.

A ``Call`` is told what happens (prepared, answered, finished, failed, abandoned) by the hooks, in any order that
reality offers, and assembles the ``Observation`` that telemetry writes. Nothing raises through it: every entry
point is walled, errors are counted by room and logged once. Sync and async clients use the same object.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import re
import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, thread_time, time, time_ns
from typing import Any, Concatenate, Final, ParamSpec, Protocol

from otel_promptcache import diagnosis, fingerprint, paths, pricing
from otel_promptcache._collection import collecting
from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.fingerprint import SHORT, HashKey
from otel_promptcache.history import History, Info, Node, Sight, Write, describe
from otel_promptcache.model import (
    Answer,
    Attribution,
    Fingerprint,
    Link,
    Observation,
    Prompt,
    Scope,
    Section,
    Segment,
)
from otel_promptcache.providers import Dialect, provider_for
from otel_promptcache.providers.rules import rules_for
from otel_promptcache.settings import Live, Mode, Settings
from otel_promptcache.worker import Worker

log = logging.getLogger("otel_promptcache")

P = ParamSpec("P")

STRIKES: Final = 5
STRIKE_WINDOW: Final = 60.0
PAUSE: Final = 60.0
MAX_CREDENTIALS: Final = 10_000
MAX_SAID: Final = 100
_NOT_DIAGNOSIS: Final = frozenset({"pricing", "worker", "tap"})
"""Rooms whose errors would not end if diagnosis paused."""
FIRST_CALL_WAIT: Final = 0.01
"""Seconds that the first call of a process waits, at most, for price data that is still being loaded."""
_ERROR_KIND: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
DETAIL_JOBS: Final = 64
"""Jobs that hold text of prompts, at most: line hashes are dispensable, memory is not."""
MAX_NAME: Final = 256
"""Characters kept of an id, a model's name, an error type: they come over the wire, and go into spans and labels."""
GROSS_OVERRUN: Final = 10.0
"""A call over the budget is one strike; one this many times over it opens the breaker alone."""


class Recorder(Protocol):
    """Telemetry's side of one call."""

    @property
    def link(self) -> Link | None:
        """Ids of the span that stands for the call."""
        ...

    @property
    def attribution(self) -> Attribution: ...

    @property
    def own(self) -> object | None:
        """The span made for this call, to be current while the request is under way."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The metric labels of the call, opaque to everybody else."""
        ...

    def usage(self, seen: Observation) -> None:
        """The verdict is known; the span may end at any moment after this."""
        ...

    def close(self, seen: Observation) -> None:
        """The call is over. ``seen`` is complete, but for a cost that may follow with ``settle``."""
        ...

    def settle(self, seen: Observation) -> None:
        """Everything is known: metrics, ledger, end of an own span. May run on the worker's thread."""
        ...


class Telemetry(Protocol):
    """Where observations go."""

    def begin(self, seen: Observation, started_ns: int) -> Recorder: ...

    def prompt_map(self, seen: Observation, prompt: Prompt, sight: Sight) -> None: ...

    def trouble(self, where: str) -> None: ...

    def overhead(self, spent: Mapping[str, float]) -> None:
        """Our own seconds on the caller's thread in one call, by phase."""
        ...

    def unread(self, writes: list[Write]) -> None: ...


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


class Observer:
    """What all calls of a process share."""

    def __init__(
        self,
        live: Live,
        key: HashKey,
        history: History,
        telemetry: Telemetry,
        clock: Callable[[], float] = time,
    ) -> None:
        self.live = live
        self.key = key
        self.history = history
        self.telemetry = telemetry
        self.clock = clock
        self.worker = Worker(lambda error: self.trouble("worker", error))
        self.breaker = Breaker()
        self.errors: Counter[str] = Counter()
        self._said: set[tuple[str, str]] = set()
        self._unpriced: set[tuple[str, str]] = set()
        self._waited_for_prices = False
        self.no_prices = False
        """Set when the price data cannot be loaded: costs are then left out, and nobody waits for them."""
        self._credentials: dict[int, str] = {}
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

    def load_prices(self) -> None:
        """Starts loading price data in the background."""
        settings = self.live.current()
        if settings.mode is not Mode.OFF and settings.prices and not pricing.ready():
            self.worker.submit(self._load_prices)

    def _load_prices(self) -> None:
        try:
            pricing.load()
        except Exception as error:
            self.no_prices = True
            self.trouble("pricing", error)

    def prices_ready(self) -> bool:
        """Whether costs can be computed now; the first call of a process waits a moment for it."""
        if pricing.ready():
            return True
        if not self._waited_for_prices:
            self._waited_for_prices = True
            return pricing.wait(FIRST_CALL_WAIT)
        return False

    def credential(self, secret: str) -> str:
        """A keyed digest that tells accounts apart; the secret itself is kept nowhere."""
        if not secret:
            return ""
        fast = hash(secret)
        token = self._credentials.get(fast)
        if token is None:
            if len(self._credentials) >= MAX_CREDENTIALS:
                self._credentials.clear()
            token = self._credentials[fast] = self.key.token(secret)
        return token

    def sweep(self) -> None:
        """Reports writes that ran out unread. Called when metrics are collected."""
        try:
            unread = self.history.expired_writes(self.clock())
            if unread:
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


def walled(
    where: str, phase: str
) -> Callable[[Callable[Concatenate[Call, P], None]], Callable[Concatenate[Call, P], None]]:
    """Contains every error of a method of ``Call`` and adds its time to the call's account."""

    def wrap(method: Callable[Concatenate[Call, P], None]) -> Callable[Concatenate[Call, P], None]:
        def guarded(self: Call, /, *args: P.args, **kwargs: P.kwargs) -> None:
            begun = perf_counter()
            try:
                method(self, *args, **kwargs)
            except Exception as error:
                self.observer.trouble(where, error)
            finally:
                self.spent[phase] = self.spent.get(phase, 0.0) + perf_counter() - begun

        guarded.__doc__ = method.__doc__
        return guarded

    return wrap


class Call:
    """One logical call to a provider, retries included. Told of events; finished exactly once."""

    __slots__ = (
        "_closed",
        "_prompt",
        "_recorder",
        "_seen",
        "_sight",
        "_started",
        "_started_ns",
        "diagnosing",
        "dialect",
        "observer",
        "settings",
        "spent",
    )

    def __init__(self, observer: Observer, dialect: Dialect, settings: Settings) -> None:
        self.observer = observer
        self.dialect = dialect
        self.settings = settings
        self.spent: dict[str, float] = {}
        """Our own seconds on the caller's thread, by phase, waiting included."""
        self.diagnosing = 0.0
        """CPU seconds of it that went into fingerprint and look-up, which grow with the prompt. Waiting for the
        interpreter's lock is not our doing: were it counted, a busy server would lose its diagnosis for being busy."""
        self._started = perf_counter()
        self._started_ns = time_ns()
        self._seen: Observation | None = None
        self._recorder: Recorder | None = None
        self._prompt: Prompt | None = None
        self._sight: Sight | None = None
        self._closed = False

    @property
    def recorder(self) -> Recorder | None:
        """Telemetry's side of this call, once the request has been prepared."""
        return self._recorder

    # --- events, in the order of a happy call ---------------------------------------------------------------

    @walled("request", "request")
    def prepared(self, body: Mapping[str, Any], host: str, port: int, credential: str) -> None:
        """The final body is about to be serialised (first attempt) or sent again (later ones)."""
        if self._seen is not None:
            self._seen.attempts += 1
            return
        observer, settings = self.observer, self.settings
        model = body.get("model")
        seen = self._seen = Observation(
            call_id=observer.next_id(),
            dialect=self.dialect.name,
            provider=provider_for(host, self.dialect),
            endpoint=host,
            port=port,
            model=model[:MAX_NAME] if isinstance(model, str) else "",
            stream=body.get("stream") is True,
            at=observer.clock(),
        )
        self._recorder = observer.telemetry.begin(seen, self._started_ns)
        seen.attribution = self._recorder.attribution
        seen.conversation = seen.attribution.conversation
        if settings.mode is Mode.DIAGNOSE and not observer.breaker.open and _chosen(settings.percent):
            self._look_up(body, credential)

    def _look_up(self, body: Mapping[str, Any], credential: str) -> None:
        """Fingerprints the prompt and asks the history. An error here costs the diagnosis, not the tokens."""
        observer, seen = self.observer, self._seen
        assert seen is not None
        assert self._recorder is not None
        started = thread_time()
        try:
            prompt = self.dialect.prompt(body)
            seen.max_tokens, seen.text_only = prompt.max_tokens, prompt.text_only
            seen.write_ttls = tuple(place.ttl for place in prompt.breakpoints)
            seen.conversation = seen.conversation or prompt.conversation_id
            if not prompt.segments:
                return
            scope = Scope(seen.provider, seen.endpoint, observer.credential(credential), prompt.model, prompt.cache_key)
            sight = observer.history.sent(
                prompt,
                scope,
                now=seen.at,
                route=seen.attribution.route,
                conversation=seen.conversation,
                link=self._recorder.link,
            )
            seen.fingerprint = _fingerprint(observer.key, sight)
            seen.lineage = sight.sent.lineage
            self._prompt, self._sight = prompt, sight
            if sight.fresh:
                fresh = sight.fresh
                observer.worker.submit(lambda: _detail(fresh), DETAIL_JOBS)
        except Exception as error:
            observer.trouble("fingerprint", error)
        finally:
            self.diagnosing = thread_time() - started

    @walled("response", "response")
    def begun(self, *, streaming: bool) -> None:
        """The response's first bytes are here: what the request wrote is readable from now on."""
        seen = self._seen
        if seen is None:
            return
        if streaming and seen.first_chunk is None:
            seen.first_chunk = perf_counter() - self._started
        if self._sight is not None:
            self.observer.history.begun(self._sight, self.observer.clock())

    @walled("response", "response")
    def answered(self, answer: Answer) -> None:
        """Something the response says about itself; later counts replace earlier ones."""
        self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        seen = self._seen
        if seen is None or self._closed:
            return
        if answer.response_id:
            seen.response_id = answer.response_id[:MAX_NAME]
        if answer.model:
            seen.response_model = answer.model[:MAX_NAME]
        if answer.native:
            seen.native = answer.native
        if answer.finish_reasons:
            seen.finish_reasons = tuple(reason[:MAX_NAME] for reason in answer.finish_reasons)
        if answer.error_type:
            seen.error_type = _error_kind(answer.error_type)
        if answer.usage is not None:
            seen.usage = answer.usage
            self._judge(seen)
            if self._recorder is not None:
                self._recorder.usage(seen)

    @walled("response", "response")
    def loaded(self, document: object) -> None:
        """A whole body that is there already, parsed; None where it is no JSON object."""
        if self._seen is None or self._closed:
            return
        if self._sight is not None:
            self.observer.history.begun(self._sight, self.observer.clock())
        if isinstance(document, dict):
            self._answered(self.dialect.answer(document))
        self._complete()

    @walled("response", "response")
    def complete(self) -> None:
        """The body is over: what it did not say, it will not say. The owner's span may end right after this."""
        self._complete()

    def _complete(self) -> None:
        seen = self._seen
        if seen is None or self._closed or self._recorder is None:
            return
        if seen.duration is None:
            seen.duration = perf_counter() - self._started
        if seen.usage is None:
            self._judge(seen)
            self._recorder.usage(seen)

    @walled("response", "response")
    def finished(self) -> None:
        """The call is over, without an error."""
        self._close()

    def left(self) -> None:
        """The caller has had enough of the response, or dropped it. That may be in the middle of a collection of
        garbage, which may be in the middle of anything, any lock held: only the worker is told then."""
        if not collecting():
            self.finished()
            return
        seen = self._seen
        if seen is not None and seen.duration is None:
            seen.duration = perf_counter() - self._started
        self.observer.worker.hand_over(self.finished)

    @walled("response", "response")
    def failed(self, error_type: str) -> None:
        """The call failed with an error that the caller sees."""
        if self._seen is not None:
            self._seen.error_type = self._seen.error_type or _error_kind(error_type)
        self._close()

    # --- assembling -----------------------------------------------------------------------------------------

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        seen, recorder = self._seen, self._recorder
        if seen is None or recorder is None:
            return
        if seen.duration is None:
            seen.duration = perf_counter() - self._started
        if seen.usage is None:
            self._judge(seen)
        self._conclude(seen)
        recorder.close(seen)
        observer = self.observer
        if (
            seen.cost is not None
            or seen.usage is None
            or pricing.ready()
            or not self.settings.prices
            or observer.no_prices
        ):
            recorder.settle(seen)
            self._account()
        else:
            # Price data is still being loaded: the rest is told when it is there.
            observer.worker.submit(lambda: self._settle_late(seen, recorder))

    def _settle_late(self, seen: Observation, recorder: Recorder) -> None:
        try:
            pricing.load()
        except Exception as error:
            self.observer.trouble("pricing", error)
        self._price(seen)
        recorder.settle(seen)
        self._account()

    def _judge(self, seen: Observation) -> None:
        """Diagnosis and cost from what is known so far; each may fail without the other."""
        observer = self.observer
        if self._prompt is not None and self._sight is not None and seen.diagnosis is None and not seen.error_type:
            try:
                self._diagnose(seen, self._prompt, self._sight)
            except Exception as error:
                observer.trouble("diagnosis", error)
        priced = seen.usage is not None and self.settings.prices and not self.observer.no_prices
        if priced and observer.prices_ready():
            self._price(seen)

    def _diagnose(self, seen: Observation, prompt: Prompt, sight: Sight) -> None:
        rules = rules_for(seen.provider, prompt.model)
        verdict = diagnosis.diagnose(prompt, sight, seen.usage, rules, seen.response_model)
        seen.diagnosis = verdict
        if verdict.place is not None:
            seen.path = paths.at(self.dialect, verdict.place, verdict.field, self.settings.privacy, self.observer.key)
        if seen.usage is not None:
            seen.hit_depth = diagnosis.hit_depth(prompt, sight, seen.usage)

    def _price(self, seen: Observation) -> None:
        if seen.usage is None or not seen.usage.available:
            return
        models = (seen.response_model, seen.model)
        try:
            seen.cost = pricing.cost(seen.usage, seen.provider, models, seen.at, seen.write_ttls)
        except pricing.PriceUnknownError:
            self.observer.unpriced(seen.provider, seen.response_model or seen.model)
        except Exception as error:
            self.observer.trouble("pricing", error)
        verdict = seen.diagnosis
        if seen.cost is not None and verdict is not None and verdict.lost:
            seen.lost_usd = pricing.lost(verdict.lost, seen.usage, seen.cost)

    def _conclude(self, seen: Observation) -> None:
        """Tells the history how it ended."""
        sight = self._sight
        if sight is None:
            return
        write = None
        cost = seen.cost
        if cost is not None and seen.usage is not None and seen.usage.write:
            premium = cost.write - seen.usage.write * cost.fresh_price
            if premium > 0:
                ttl = max(seen.write_ttls or (), default=300)
                labels = self._recorder.labels if self._recorder is not None else ()
                write = Write(ttl, seen.at + ttl, float(premium), labels)
        usage = None if seen.error_type else seen.usage
        self.observer.history.ended(sight, usage, seen.response_id, write)
        if self.settings.prompt_map and self._prompt is not None:
            prompt = self._prompt
            self.observer.worker.submit(lambda: self.observer.telemetry.prompt_map(seen, prompt, sight))

    def _account(self) -> None:
        """Our own time, and what follows when it was too much."""
        observer = self.observer
        observer.telemetry.overhead(self.spent)
        budget = self.settings.budget_ms / 1000
        if budget and self.diagnosing > budget:
            gross = self.diagnosing > GROSS_OVERRUN * budget
            observer.breaker.strike(f"a call cost {self.diagnosing * 1000:.1f} ms", STRIKES if gross else 1)


def _error_kind(text: str) -> str:
    """An error type that is fit to be a label: it comes from the wire, where anything may stand."""
    return text if _ERROR_KIND.fullmatch(text) else "_OTHER"


def _chosen(percent: float) -> bool:
    return percent >= 100 or random.random() * 100 < percent  # noqa: S311


def _detail(fresh: Sequence[tuple[Info, Segment]]) -> None:
    """Line and loose hashes of new segments, on the worker's thread."""
    # The patterns are compiled here rather than while the first miss is diagnosed.
    from otel_promptcache.fingerprint import volatile  # noqa: F401

    describe(fresh)


def _fingerprint(key: HashKey, sight: Sight) -> Fingerprint:
    leading: Node | None = None
    for node in sight.nodes:
        info = node.info
        if info is None or info.section > Section.SYSTEM:
            break
        leading = node
    chain = sight.nodes[-1].chain.hex()
    messages = f"messages:{chain[: 2 * SHORT]}"
    if leading is None:
        return Fingerprint("", chain, messages, key.id)
    identity = leading.identity
    if identity is None:
        infos = (node.info for node in sight.nodes[: leading.length])
        named = fingerprint.identity((info.section, info.digest) for info in infos if info is not None)
        identity = leading.identity = leading.chain.hex(), ",".join(named)
    return Fingerprint(identity[0], chain, f"{identity[1]},{messages}", key.id)
