"""``Observation`` to spans, link, metrics, ledger and prompt map. The only room that writes OpenTelemetry.

Spans: the one that already stands for the call is enriched, else one of ours is made, so that token counts appear
on exactly one span a call. Metrics: counters are observable. Ledger: one log record a call, whatever samplers say.
"""

from __future__ import annotations

import base64
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from time import time_ns
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from opentelemetry import baggage, metrics, trace
from opentelemetry.context import Context, get_current  # by name: our own module is called context too

from otel_promptcache import attribution, semconv
from otel_promptcache._version import __version__
from otel_promptcache.advice import Advisor, Finding
from otel_promptcache.fingerprint import SHORT, Chain, HashKey
from otel_promptcache.history import Sight, Write
from otel_promptcache.journal import Change
from otel_promptcache.model import Attribution, Link, Observation, Prompt
from otel_promptcache.observer import witness
from otel_promptcache.providers.rules import TTL_NAMES
from otel_promptcache.semconv import Metric
from otel_promptcache.settings import Live, Settings
from otel_promptcache.telemetry import listening
from otel_promptcache.telemetry.context import (
    Owners,
    Watcher,
    conversation_in_context,
    entry_route,
    hear_no_more,
    hear_of_unsampled,
)
from otel_promptcache.telemetry.counters import OPERATION, Labels, book_of, label_attributes, label_names, record
from otel_promptcache.telemetry.spans import (
    Attributes,
    SpanRecorder,
    advice_attributes,
    all_attributes,
    change_attributes,
    convention_attributes,
)

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider
    from opentelemetry.metrics import Observation as Point
    from opentelemetry.trace import Span, TracerProvider

log = logging.getLogger("otel_promptcache")

MAX_MAP_BYTES: Final = 8192
_MAP_SEGMENT: Final = 11
"""Bytes a segment takes in a prompt map, before base64: 6 of digest, 3 of length in bytes (big-endian), 1 of section
and kind (four bits each, the numbers of ``model.Section`` and ``model.Kind``), 1 of breakpoint: its lifetime in
minutes, at most 255, or 0 where there is none."""

_COUNTERS: Final = (
    # Counter, the column of the table summed for it, and whether a sum of zero is worth a point.
    (semconv.M_CALLS, "calls", True),
    (semconv.M_INPUT, "input", True),
    (semconv.M_OUTPUT, "output", True),
    (semconv.M_READ, "read", True),
    (semconv.M_WRITE, "write", True),
    (semconv.M_COST_WITHOUT, "without_cache", False),
    (semconv.M_LOST_TOKENS, "lost_tokens", False),
    (semconv.M_LOST_COST, "lost_cost", False),
    (semconv.M_UNPRICED, "unpriced", False),
    (semconv.M_NO_USAGE, "no_usage", False),
)
_SPAN_ONLY: Final = (semconv.HIT_RATIO, semconv.COST_SAVING, semconv.FINISH_REASONS, semconv.REQUEST_MAX_TOKENS)
"""Left out of the ledger, whose records are to be small: the first two follow from other fields."""

_watched: Final[WeakSet[Any]] = WeakSet()
"""Tracer providers that have our watcher: a processor cannot be taken back."""


class Telemetry:
    """Tracer, instruments, logger, and the table behind the counters."""

    def __init__(
        self,
        live: Live,
        key: HashKey,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: Any = None,
    ) -> None:
        self.live = live
        self.book = book_of(meter_provider)
        self.table, self.pending, self.limiter = self.book.table, self.book.pending, self.book.limiter
        self.before_first_call: list[Callable[[], None]] = []
        """Called before the first call is recorded: the last moment to set up an SDK."""
        self._key = key
        self._provider = tracer_provider
        self._meter_provider = meter_provider
        self._logger_provider = logger_provider
        self._logger: Any = None
        self._bound: object = None
        self.owners = Owners()
        self._advisor = Advisor()
        self._checked = False
        self.tracer = trace.get_tracer(semconv.SCOPE, __version__, tracer_provider)
        self._meter = metrics.get_meter(semconv.SCOPE, __version__, meter_provider)
        self._instruments()
        self.bind()

    def _instruments(self) -> None:
        book, meter = self.book, self._meter

        def observed(metric: Metric, points: Callable[[], Iterable[Point]]) -> None:
            def callback(_: CallbackOptions) -> Iterable[Point]:
                try:
                    book.sweep()
                    book.pending.flush()
                    return list(points())
                except Exception:  # the SDK would log a traceback for every instrument at every collection
                    book.table.add_error("metrics")
                    return []

            book.instruments.add(meter.create_observable_counter(metric.name, [callback], metric.unit, metric.meaning))

        def histogram(metric: Metric) -> Histogram:
            made = create_histogram(meter, metric)
            book.instruments.add(made)
            return made

        if not book.instruments:
            for metric, column, zeros in _COUNTERS:
                observed(metric, partial(book.table.column, column, metric.labels, zeros=zeros))
            observed(semconv.M_COST, book.table.costs)
            observed(semconv.M_UNREAD, book.table.unread)
            observed(semconv.M_NATIVE, book.table.native)
            observed(semconv.M_ERRORS, book.table.errors)
            observed(semconv.M_LOOKUPS, book.table.lookups)
            observed(semconv.M_KEY_MISMATCH, book.table.mismatches)
        self._duration = histogram(semconv.M_DURATION)
        self._first_chunk = histogram(semconv.M_FIRST_CHUNK)
        self._overhead = histogram(semconv.M_OVERHEAD)
        self._token_usage = histogram(semconv.M_TOKEN_USAGE)

    # --- what the observer calls ----------------------------------------------------------------------------

    def begin(self, seen: Observation, started_ns: int) -> SpanRecorder:
        if not self._checked:
            self._checked = True
            self._first_call()
        self.bind()
        return SpanRecorder(self, seen, started_ns)

    def _first_call(self) -> None:
        for prepare in self.before_first_call:
            prepare()
        problem = self.check()
        if problem is not None:
            log.warning("otel-promptcache: calls are observed, but nothing is exported: %s", problem)

    def trouble(self, where: str) -> None:
        self.table.add_error(where)

    def looked_up(self, outcome: semconv.Lookup) -> None:
        self.table.add_lookup(outcome.value)

    def key_mismatch(self) -> None:
        self.table.add_mismatch()

    def overhead(self, spent: Mapping[str, float]) -> None:
        self.pending.add(self._overheads, spent, get_current())

    def _overheads(self, spent: Mapping[str, float], where: Context) -> None:
        for phase, seconds in spent.items():
            record(self._overhead, seconds, {semconv.PHASE: phase}, where)

    def unread(self, writes: list[Write]) -> None:
        self.pending.flush()  # what is said of a route's writes rests on its calls
        for write in writes:
            self.table.add_unread(write.labels, TTL_NAMES.get(write.ttl, f"{write.ttl}s"), write.premium)
            self._advise(self._advisor.unread(write))

    def _advise(self, findings: Iterable[Finding]) -> None:
        if self.live.value.advice:
            with self.table.lock:
                found = list(findings)
            for finding in found:
                self._log(semconv.EVENT_ADVICE, advice_attributes(finding), Context())

    # --- context: owner, route, attribution -----------------------------------------------------------------

    def bind(self) -> None:
        """Adds our watcher to the tracer provider in force, once each, and says once when there is none."""
        provider = self._provider or trace.get_tracer_provider()
        if provider is self._bound:
            return
        add = getattr(provider, "add_span_processor", None)
        if add is None:
            return
        self._bound = provider
        if provider not in _watched:
            _watched.add(provider)
            add(Watcher())
            hear_of_unsampled(provider)

    def attribution_of(self, owner: Span | None, settings: Settings) -> Attribution:
        """What the application said, completed from baggage, frameworks and the surrounding spans."""
        said = attribution.current()
        conversation = said.conversation or conversation_in_context(owner)
        route = said.route or entry_route() or attribution.calling_function(3)
        if not said.keys and not settings.baggage_keys:
            return said._replace(route=route, conversation=conversation)
        keys = dict(said.keys)
        for name in settings.baggage_keys:
            value = baggage.get_baggage(name)
            if value is not None:
                keys.setdefault(name, str(value))
        if "user" in keys:
            keys["user"] = self._key.token(keys["user"])
        return said._replace(route=route, conversation=conversation, keys=tuple(sorted(keys.items())))

    def labels_of(self, seen: Observation, said: Attribution, settings: Settings) -> Labels:
        keys = dict(said.keys)
        values = (seen.provider, seen.model, said.route, *(keys.get(name, "") for name in settings.metric_keys))
        return self.limiter.limit(label_names(settings.metric_keys), values)

    # --- metrics --------------------------------------------------------------------------------------------

    def count(self, recorder: SpanRecorder, seen: Observation, *, unpriced: bool, owned_elsewhere: bool) -> None:
        """Counts a call that is over, and records how long it took unless somebody else does."""
        self.pending.add(self._count, recorder.labels, recorder.context, seen, unpriced, owned_elsewhere)

    def _count(self, row: Labels, where: Context, seen: Observation, unpriced: bool, owned_elsewhere: bool) -> None:  # noqa: FBT001
        self.table.add(row, seen, unpriced=unpriced)
        self._advise(self._advisor.call(row, seen))
        if seen.agreement is not None and seen.diagnosis is not None:
            ours = seen.diagnosis.reason
            self.table.add_native(row, ours.value if ours else "", witness.label(seen.native), seen.agreement.value)
        labels = label_attributes(row)
        labels[semconv.OPERATION] = OPERATION
        if self.live.value.token_usage_metric and seen.usage is not None:
            for kind, tokens in (("input", seen.usage.input_total), ("output", seen.usage.output)):
                if tokens is not None:
                    record(self._token_usage, tokens, labels | {semconv.TOKEN_TYPE: kind}, where)
        if seen.diagnosis is not None:
            labels[semconv.STATUS] = seen.diagnosis.status.value
        if seen.first_chunk is not None:
            record(self._first_chunk, seen.first_chunk, labels, where)
        if seen.duration is not None and not owned_elsewhere:
            if seen.error_type:
                labels = labels | {semconv.ERROR_TYPE: seen.error_type}
            record(self._duration, seen.duration, labels, where)

    # --- log records ----------------------------------------------------------------------------------------

    def _log(self, name: str, attributes: Attributes, where: Context, at: float | None = None) -> None:
        """``at`` in POSIX seconds, now where it is left out."""
        from opentelemetry._logs import LogRecord, SeverityNumber

        if self._logger is None:
            self._logger = self._event_logger()
        if self._logger is False:
            return
        self._logger.emit(
            LogRecord(
                timestamp=time_ns() if at is None else int(at * 1e9),
                context=where,
                severity_number=SeverityNumber.INFO,
                event_name=name,
                attributes=attributes,
            )
        )

    def _event_logger(self) -> Any:
        """What events are written with; False where the API is too old to know any."""
        from opentelemetry import _logs

        if "event_name" in inspect.signature(_logs.LogRecord.__init__).parameters:
            return _logs.get_logger(semconv.SCOPE, __version__, logger_provider=self._logger_provider)
        log.warning(
            "otel-promptcache: OTEL_PROMPTCACHE_LEDGER and OTEL_PROMPTCACHE_PROMPT_MAP need opentelemetry-api 1.35 or "
            "newer; they are left out"
        )
        return False

    def ledger(self, recorder: SpanRecorder, seen: Observation) -> None:
        """One record a call, whatever a sampler decided about its span."""
        found = all_attributes(seen) | convention_attributes(seen)
        for name in _SPAN_ONLY:
            found.pop(name, None)
        found |= {
            semconv.CALL_ID: seen.call_id,
            semconv.PROVIDER: seen.provider,
            semconv.REQUEST_MODEL: seen.model,
        }
        if seen.fingerprint is not None:
            found[semconv.PREFIX_CHAIN] = seen.fingerprint.chain
        if seen.duration is not None:
            found[semconv.DURATION] = seen.duration
        if seen.usage is not None and seen.usage.available:
            found[semconv.UNCACHED_TOKENS] = seen.usage.uncached
            for ttl, tokens in seen.usage.write_by_ttl:
                if tokens:
                    found[f"{semconv.WRITE_TOKENS_BY_TTL}.{TTL_NAMES.get(ttl, ttl)}"] = tokens
        self._log(semconv.EVENT_CALL, found, recorder.context)

    @property
    def service_version(self) -> str:
        provider = self._provider or trace.get_tracer_provider()
        resource = getattr(provider, "resource", None)
        return str(resource.attributes.get(semconv.SERVICE_VERSION, "")) if resource is not None else ""

    def changed(self, change: Change) -> None:
        """One record, in the trace of the first call that had the new prefix."""
        found = change_attributes(change)
        found[semconv.KEY_ID] = self._key.id
        self._log(semconv.EVENT_CHANGED, found, _context_of(change.new.link), change.new.at)

    def prompt_map(self, seen: Observation, prompt: Prompt, sight: Sight) -> None:
        """The prompt as packed segments, as a delta to the request it shares most with."""
        marks = _marks((place.length, place.ttl) for place in prompt.breakpoints)
        base, shared = _base(self._key, sight, marks)
        packed = bytearray()
        room = MAX_MAP_BYTES * 3 // 4 // _MAP_SEGMENT
        rest = list(enumerate(sight.infos, 1))[shared:]
        for length, info in rest[:room]:
            kind = (info.section << 4) | info.kind
            packed += (info.digest or bytes(SHORT))[:SHORT] + min(info.size, 2**24 - 1).to_bytes(3, "big")
            packed += bytes((kind, marks.get(length, 0)))
        found: Attributes = {
            semconv.CALL_ID: seen.call_id,
            semconv.MAP_SEGMENTS: base64.b64encode(bytes(packed)).decode(),
            semconv.MAP_SHARED: shared,
            semconv.SCHEMA_VERSION: semconv.SCHEMA,
        }
        if seen.fingerprint is not None:
            found |= {semconv.PREFIX_CHAIN: seen.fingerprint.chain, semconv.KEY_ID: seen.fingerprint.key_id}
        if base is not None:
            found[semconv.MAP_BASE] = base.hex()
        if len(rest) > room or prompt.truncated:
            found[semconv.MAP_TRUNCATED] = True
        self._log(semconv.EVENT_PROMPT, found, get_current())

    # --- is anybody listening? ------------------------------------------------------------------------------

    def check(self) -> str | None:
        """Why nothing of ours can arrive anywhere, and what to do; None when somebody listens."""
        return listening.problem(
            self._provider or trace.get_tracer_provider(), self._meter_provider or metrics.get_meter_provider()
        )

    def deactivate(self) -> None:
        """Counts no longer. What was counted stays to be collected, for observable instruments cannot be taken back."""
        self.book.sweep()
        self.book.sweep = lambda: None
        self.book.pending.flush()
        self.book.pending.later = lambda _: False
        hear_no_more()


def create_histogram(meter: Meter, metric: Metric) -> Histogram:
    """A histogram with the boundaries that fit what it measures, where the API is new enough to take them."""
    try:
        return meter.create_histogram(
            metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=metric.boundaries
        )
    except TypeError:
        return meter.create_histogram(metric.name, metric.unit, metric.meaning)


def _context_of(link: Link | None) -> Context:
    if link is None:
        return Context()
    ids = trace.SpanContext(link.trace_id, link.span_id, is_remote=False, trace_flags=trace.TraceFlags(1))
    return trace.set_span_in_context(trace.NonRecordingSpan(ids), Context())


def _marks(places: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Breakpoints as a map has them: the lifetime in minutes, by the length of the prefix in front."""
    return {length: min(255, max(1, ttl // 60)) for length, ttl in places}


def _base(key: HashKey, sight: Sight, marks: Mapping[int, int]) -> tuple[Chain | None, int]:
    """The chain of the earlier prompt a map is a delta to, and how many leading segments they share, with marks."""
    previous = sight.previous
    if previous is None:
        return None, 0
    before = _marks((node.length, ttl) for node, ttl in previous.breakpoints)
    moved = [length for length in marks.keys() | before.keys() if marks.get(length) != before.get(length)]
    shared = min(sight.shared, *(length - 1 for length in moved)) if moved else sight.shared
    chain = previous.path().chain(key) if shared else None
    return (chain, shared) if chain is not None else (None, 0)  # forgotten since
