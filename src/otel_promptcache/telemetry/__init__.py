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
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import baggage, metrics, trace
from opentelemetry.context import Context, get_current  # by name: our own module is called context too
from opentelemetry.metrics import Observation as Point

from otel_promptcache import attribution, semconv
from otel_promptcache._fork import after_fork_in_child
from otel_promptcache._version import __version__
from otel_promptcache.advice import Advisor, Finding
from otel_promptcache.fingerprint import SHORT, HashKey
from otel_promptcache.history import Sight, Write
from otel_promptcache.journal import Change
from otel_promptcache.model import Attribution, Link, Observation, Prompt
from otel_promptcache.observer import witness
from otel_promptcache.observer.recording import Origin, Trip
from otel_promptcache.providers.limits import Measure, reads_count
from otel_promptcache.providers.rules import TTL_NAMES
from otel_promptcache.semconv import Metric
from otel_promptcache.settings import Live, Settings
from otel_promptcache.telemetry import listening
from otel_promptcache.telemetry.book import book_of
from otel_promptcache.telemetry.context import (
    Known,
    Owners,
    Watcher,
    conversation_in_context,
    entry_route,
    hear_no_more,
    hear_of_unsampled,
)
from otel_promptcache.telemetry.counters import Labels, label_attributes, label_names, record
from otel_promptcache.telemetry.errands import ErrandSpan
from otel_promptcache.telemetry.events import Events, advice_attributes, change_attributes
from otel_promptcache.telemetry.flushing import flush, forget_connections
from otel_promptcache.telemetry.identity import name_child, name_spawned
from otel_promptcache.telemetry.ledger import ledger_attributes
from otel_promptcache.telemetry.maps import base_of, marks_of
from otel_promptcache.telemetry.spans import Attributes, SpanRecorder

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider
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
_GAUGES: Final = (
    (semconv.M_LIMIT, Measure.LIMIT),
    (semconv.M_LIMIT_LEFT, Measure.REMAINING),
    (semconv.M_RETRY_AFTER, Measure.RETRY_AFTER),
)

_watched: Final = Known()
"""Tracer providers that have our watcher: a processor cannot be taken back."""


_OF_THE_METER: Final[dict[str, Any]] = (
    {"attributes": {semconv.SCHEMA_VERSION: semconv.SCHEMA}}
    if "attributes" in inspect.signature(metrics.get_meter).parameters
    else {}
)
"""The scope of metrics says what other signals say in each record, where the API (1.28) lets it."""


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
        self._events = Events(logger_provider)
        self._bound: object = None
        self.owners = Owners()
        self._advisor = Advisor()
        self._checked = False
        self.used = False
        """Whether this process has observed something, apart from one that it was forked from."""
        self._forked = False
        self.tracer = trace.get_tracer(semconv.SCOPE, __version__, tracer_provider)
        self._meter = metrics.get_meter(semconv.SCOPE, __version__, meter_provider, **_OF_THE_METER)
        self.book.whoami = {semconv.PACKAGE_VERSION: __version__, semconv.SCHEMA_VERSION: semconv.SCHEMA}
        if live.value.hash_key:  # else each process has one of its own, which says nothing to others
            self.book.whoami[semconv.KEY_ID] = key.id
        self._instruments()
        self.bind()
        name_spawned(self.providers())
        after_fork_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self.used, self._forked = False, True
        name_child(self.providers()[1])

    def leave_connections(self) -> None:
        """Has the exporters of a forked process open connections of their own: what it would send over those that it
        was born with would get among what its parent sends."""
        if self._forked:
            forget_connections(self.providers())

    def _instruments(self) -> None:
        book, meter, limits = self.book, self._meter, self.book.limits

        def observed(metric: Metric, points: Callable[[], Iterable[Point]]) -> None:
            def callback(_: CallbackOptions) -> Iterable[Point]:
                try:
                    book.sweep()
                    book.pending.flush()
                    return list(points())
                except Exception:  # the SDK would log a traceback for every instrument at every collection
                    book.table.add_error("metrics")
                    return []

            create = meter.create_observable_gauge if metric.kind == "gauge" else meter.create_observable_counter
            book.instruments.add(create(metric.name, [callback], metric.unit, metric.meaning))

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
            observed(semconv.M_REFUSED, limits.refused)
            observed(semconv.M_LIMIT_LOST, limits.lost)
            observed(semconv.M_LIMIT_MALFORMED, limits.malformed)
            for metric, measure in _GAUGES:
                observed(metric, partial(limits.gauge, measure))
            observed(semconv.M_INFO, lambda: [Point(1, book.whoami)])
        self._duration = histogram(semconv.M_DURATION)
        self._first_chunk = histogram(semconv.M_FIRST_CHUNK)
        self._overhead = histogram(semconv.M_OVERHEAD)
        self._token_usage = histogram(semconv.M_TOKEN_USAGE)

    # --- what the observer calls ----------------------------------------------------------------------------

    def origin(self) -> Origin:
        """Attribution and span of the place where the application is now; of its context nothing else is held."""
        where = trace.get_current_span().get_span_context()
        return Origin(self.attribution_of(None, self.live.current()), where if where.is_valid else None)

    def begin(self, seen: Observation, started_ns: int, origin: Origin | None = None) -> SpanRecorder:
        self._ready()
        return SpanRecorder(self, seen, started_ns, origin)

    def errand(self, trip: Trip, started_ns: int) -> ErrandSpan:
        self._ready()
        return ErrandSpan(self, trip, started_ns)

    def errand_ended(self, trip: Trip, where: Context) -> None:
        """Records how long a request took that carries no prompt. It is no call: nothing else counts it."""
        labels = {
            semconv.OPERATION: trip.operation,
            semconv.PROVIDER: trip.provider,
            semconv.REQUEST_MODEL: trip.model,
            semconv.ERROR_TYPE: trip.error_type,
        }
        told = {name: value for name, value in labels.items() if value}
        self.pending.add(self._errand_took, told, trip.duration, where)

    def _errand_took(self, labels: dict[str, Any], seconds: float, where: Context) -> None:
        record(self._duration, seconds, labels, where)

    def _ready(self) -> None:
        self.used = True
        if not self._checked:
            self._checked = True
            self._first_call()
        self.bind()

    def _first_call(self) -> None:
        for prepare in self.before_first_call:
            prepare()
        name_spawned(self.providers())
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
                self._events.write(semconv.EVENT_ADVICE, advice_attributes(finding), Context())

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
        route = said.route or entry_route() or said.around or attribution.calling_function(3)
        if not said.keys and not settings.baggage_keys:
            return said._replace(route=route, conversation=conversation)
        keys = dict(said.keys)
        for name in settings.baggage_keys:
            value = baggage.get_baggage(name)
            if value is not None:
                keys.setdefault(name, str(value))
        if "user" in keys and not isinstance(keys["user"], attribution.Hashed):
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
        if not seen.pending:
            self.table.add(row, seen, unpriced=unpriced)
        lost = seen.diagnosis.lost if seen.diagnosis is not None else 0
        spares = lost and reads_count(seen.provider, seen.response_model or seen.model) is False
        self.book.limits.counted(row, seen, lost if spares else 0)
        if not seen.pending:
            self._advise(self._advisor.call(row, seen))
        if seen.agreement is not None and seen.diagnosis is not None:
            ours = seen.diagnosis.reason
            self.table.add_native(row, ours.value if ours else "", witness.label(seen.native), seen.agreement.value)
        labels = label_attributes(row)
        labels[semconv.OPERATION] = seen.operation
        if self.live.value.token_usage_metric and seen.usage is not None:
            for kind, tokens in (("input", seen.usage.input_total), ("output", seen.usage.output)):
                if tokens is not None:
                    record(self._token_usage, tokens, labels | {semconv.TOKEN_TYPE: kind}, where)
        if seen.diagnosis is not None:
            labels[semconv.STATUS] = seen.diagnosis.status.value
        if seen.first_chunk is not None:
            record(self._first_chunk, seen.first_chunk, labels, where)
        if seen.duration is not None and not owned_elsewhere and not (seen.batch or seen.fetched):
            if seen.error_type:
                labels = labels | {semconv.ERROR_TYPE: seen.error_type}
            record(self._duration, seen.duration, labels, where)

    # --- log records ----------------------------------------------------------------------------------------

    def ledger(self, recorder: SpanRecorder, seen: Observation) -> None:
        """One record a call, whatever a sampler decided about its span."""
        # Stamped with the end of the call, by the clock that the call began with: its price may depend on the hour.
        ended = None if seen.duration is None else seen.at + seen.duration
        self._events.write(semconv.EVENT_CALL, ledger_attributes(seen), recorder.context, ended)

    @property
    def service_version(self) -> str:
        provider = self._provider or trace.get_tracer_provider()
        resource = getattr(provider, "resource", None)
        return str(resource.attributes.get(semconv.SERVICE_VERSION, "")) if resource is not None else ""

    def changed(self, change: Change) -> None:
        """One record, in the trace of the first call that had the new prefix."""
        found = change_attributes(change)
        found[semconv.KEY_ID] = self._key.id
        self._events.write(semconv.EVENT_CHANGED, found, _context_of(change.new.link), change.new.at)

    def prompt_map(self, seen: Observation, prompt: Prompt, sight: Sight) -> None:
        """The prompt as packed segments, as a delta to the request it shares most with."""
        marks = marks_of((place.length, place.ttl) for place in prompt.breakpoints)
        base, shared = base_of(self._key, sight, marks)
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
        self._events.write(semconv.EVENT_PROMPT, found, get_current())

    # --- is anybody listening? ------------------------------------------------------------------------------

    def check(self) -> str | None:
        """Why nothing of ours can arrive anywhere, and what to do; None when somebody listens."""
        return listening.problem(*self.providers()[:2])

    def flush(self, seconds: float) -> bool:
        """Has everything exported that was written so far. False when time ran out first."""
        return flush(self.providers(), seconds)

    def providers(self) -> tuple[Any, Any, Any]:
        """Of tracers, meters and loggers: those in force."""
        tracers = self._provider or trace.get_tracer_provider()
        return tracers, self._meter_provider or metrics.get_meter_provider(), self._events.provider

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
