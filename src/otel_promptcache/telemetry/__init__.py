"""``Observation`` to spans, link, metrics, ledger and prompt map. The only room that writes OpenTelemetry.

Spans: the one that already stands for the call is enriched, else one of ours is made, so that token counts appear
on exactly one span a call. Metrics: counters are observable. Ledger: one log record a call, whatever samplers say.
"""

from __future__ import annotations

import base64
import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from opentelemetry import baggage, metrics, trace
from opentelemetry.context import Context, get_current  # by name: our own module is called context too
from opentelemetry.metrics import CallbackOptions, MeterProvider
from opentelemetry.metrics import Observation as Point

from otel_promptcache import attribution, semconv
from otel_promptcache._version import __version__
from otel_promptcache.fingerprint import SHORT, HashKey
from otel_promptcache.history import Sight, Write
from otel_promptcache.model import Attribution, Observation, Prompt
from otel_promptcache.providers.rules import TTL_NAMES
from otel_promptcache.semconv import Metric
from otel_promptcache.settings import Live, Settings
from otel_promptcache.telemetry.context import Owners, Watcher, conversation_in_context, entry_route
from otel_promptcache.telemetry.counters import COST_CLASSES, Limiter, Pending, Table
from otel_promptcache.telemetry.spans import (
    OPERATION,
    Attributes,
    SpanRecorder,
    convention_attributes,
    own_attributes,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

log = logging.getLogger("otel_promptcache")

MAX_MAP_BYTES: Final = 8192
_MAP_SEGMENT: Final = 11
"""Bytes a segment takes in a prompt map: 6 of digest, 3 of length, 1 of kind, 1 of breakpoint."""

_COUNTERS: Final = (
    # Counter, the labels of a row it keeps beside the common ones, and the column summed for it.
    (semconv.M_CALLS, ("status", "reason"), "calls"),
    (semconv.M_INPUT, ("operation", "modality"), "input"),
    (semconv.M_OUTPUT, ("operation", "modality"), "output"),
    (semconv.M_READ, ("operation", "modality"), "read"),
    (semconv.M_WRITE, ("operation", "modality"), "write"),
    (semconv.M_COST_WITHOUT, (), "without_cache"),
    (semconv.M_LOST_TOKENS, ("reason",), "lost_tokens"),
    (semconv.M_LOST_COST, ("reason",), "lost_cost"),
    (semconv.M_UNPRICED, (), "unpriced"),
    (semconv.M_NO_USAGE, (), "no_usage"),
)


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
        self.table = Table()
        self.pending = Pending()
        self.limiter = Limiter()
        self.sweep: Callable[[], None] = lambda: None
        """Called before counters are read, so that writes that ran out since are in them."""
        self.before_first_call: list[Callable[[], None]] = []
        """Called before the first call is recorded: the last moment to set up an SDK."""
        self._key = key
        self._provider = tracer_provider
        self._meter_provider = meter_provider
        self._logger_provider = logger_provider
        self._logger: Any = None
        self._watched: WeakSet[Any] = WeakSet()
        self._bound: object = None
        self.owners = Owners()
        self._checked = False
        self._active = True
        self.tracer = trace.get_tracer(semconv.SCOPE, __version__, tracer_provider)
        self._meter = metrics.get_meter(semconv.SCOPE, __version__, meter_provider)
        self._instruments()
        self.bind()

    def _instruments(self) -> None:
        def observed(metric: Metric, points: Callable[[], Iterable[Point]]) -> None:
            def callback(_: CallbackOptions) -> Iterable[Point]:
                if not self._active:
                    return []
                self.sweep()
                self.pending.flush()
                return list(points())

            self._meter.create_observable_counter(metric.name, [callback], metric.unit, metric.meaning)

        def column(extra: tuple[str, ...], name: str) -> Callable[[], Iterable[Point]]:
            return lambda: self._column(extra, name)

        for metric, extra, name in _COUNTERS:
            observed(metric, column(extra, name))
        observed(semconv.M_COST, self._costs)
        observed(semconv.M_UNREAD, self._unread)
        observed(semconv.M_ERRORS, self._errors)
        histogram = self._meter.create_histogram
        self._duration = histogram(semconv.M_DURATION.name, semconv.M_DURATION.unit, semconv.M_DURATION.meaning)
        self._first_chunk = histogram(
            semconv.M_FIRST_CHUNK.name, semconv.M_FIRST_CHUNK.unit, semconv.M_FIRST_CHUNK.meaning
        )
        self._overhead = histogram(semconv.M_OVERHEAD.name, semconv.M_OVERHEAD.unit, semconv.M_OVERHEAD.meaning)
        self._token_usage = histogram(
            semconv.M_TOKEN_USAGE.name, semconv.M_TOKEN_USAGE.unit, semconv.M_TOKEN_USAGE.meaning
        )

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
        with self.table.lock:
            self.table.errors[where] = self.table.errors.get(where, 0) + 1

    def overhead(self, spent: Mapping[str, float]) -> None:
        where = get_current()
        for phase, seconds in spent.items():
            self.pending.record(self._overhead, seconds, {semconv.PHASE: phase}, where)

    def unread(self, writes: list[Write]) -> None:
        with self.table.lock:
            for write in writes:
                key = (write.labels, TTL_NAMES.get(write.ttl, f"{write.ttl}s"))
                self.table.unread[key] = self.table.unread.get(key, 0.0) + write.premium

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
        if provider not in self._watched:
            self._watched.add(provider)
            add(Watcher())

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

    def labels_of(self, seen: Observation, said: Attribution, settings: Settings) -> tuple[str, ...]:
        keys = dict(said.keys)
        names = (*semconv.COMMON_LABELS, *settings.metric_keys)
        values = (
            seen.provider,
            seen.model,
            said.route,
            *(keys.get(name, "") for name in settings.metric_keys),
        )
        return self.limiter.limit(names, values)

    def _label_attributes(self, labels: tuple[str, ...]) -> Attributes:
        names = (
            *semconv.COMMON_LABELS,
            *(f"{semconv.ATTRIBUTION}.{name}" for name in self.live.current().metric_keys),
        )
        return {name: value for name, value in zip(names, labels, strict=False) if value}

    # --- metrics --------------------------------------------------------------------------------------------

    def _column(self, extra: tuple[str, ...], name: str) -> Iterator[Point]:
        """One counter: the rows summed over every label it does not have."""
        sums: dict[tuple[tuple[str, ...], tuple[str, ...]], float] = {}
        with self.table.lock:
            for (labels, status, reason, modality), row in self.table.rows.items():
                known = {"status": status, "reason": reason, "modality": modality, "operation": OPERATION}
                key = (labels, tuple(known[label] for label in extra))
                sums[key] = sums.get(key, 0) + getattr(row, name)
        names = {
            "status": semconv.STATUS,
            "reason": semconv.REASON,
            "modality": semconv.TOKEN_MODALITY,
            "operation": semconv.OPERATION,
        }
        for (labels, values), total in sums.items():
            if total or name == "calls" or name in ("input", "output", "read", "write"):
                more = {names[label]: value for label, value in zip(extra, values, strict=True) if value}
                yield Point(total, self._label_attributes(labels) | more)

    def _costs(self) -> Iterator[Point]:
        sums: dict[tuple[tuple[str, ...], str], float] = {}
        with self.table.lock:
            for (labels, _, _, _), row in self.table.rows.items():
                if row.priced:
                    for kind in COST_CLASSES:
                        key = (labels, kind)
                        sums[key] = sums.get(key, 0.0) + getattr(row, f"cost_{kind}")
        for (labels, kind), total in sums.items():
            yield Point(total, self._label_attributes(labels) | {semconv.COST_CLASS: kind})

    def _unread(self) -> Iterator[Point]:
        with self.table.lock:
            unread = list(self.table.unread.items())
        for (labels, ttl), premium in unread:
            yield Point(premium, self._label_attributes(labels) | {semconv.TTL: ttl})

    def _errors(self) -> Iterator[Point]:
        with self.table.lock:
            errors = list(self.table.errors.items())
        for where, count in errors:
            yield Point(count, {semconv.WHERE: where})

    def durations(self, recorder: SpanRecorder, seen: Observation, *, owned_elsewhere: bool) -> None:
        """The two duration histograms, with the call's span as exemplar."""
        labels = self._label_attributes(recorder.labels)
        labels[semconv.OPERATION] = OPERATION
        record = self.pending.record
        if self.live.value.token_usage_metric and seen.usage is not None:
            for kind, tokens in (("input", seen.usage.input_total), ("output", seen.usage.output)):
                if tokens is not None:
                    record(self._token_usage, tokens, labels | {semconv.TOKEN_TYPE: kind}, recorder.context)
        if seen.diagnosis is not None:
            labels[semconv.STATUS] = seen.diagnosis.status.value
        if seen.first_chunk is not None:
            record(self._first_chunk, seen.first_chunk, labels, recorder.context)
        if seen.duration is not None and not owned_elsewhere:
            if seen.error_type:
                labels = labels | {semconv.ERROR_TYPE: seen.error_type}
            record(self._duration, seen.duration, labels, recorder.context)

    # --- log records ----------------------------------------------------------------------------------------

    def _log(self, name: str, attributes: Attributes, where: Context) -> None:
        from opentelemetry import _logs
        from opentelemetry._logs import LogRecord, SeverityNumber

        if self._logger is None:
            self._logger = _logs.get_logger(semconv.SCOPE, __version__, logger_provider=self._logger_provider)
        self._logger.emit(
            LogRecord(
                timestamp=time_ns(),
                context=where,
                severity_number=SeverityNumber.INFO,
                event_name=name,
                attributes=attributes,
            )
        )

    def ledger(self, recorder: SpanRecorder, seen: Observation) -> None:
        """One record a call, whatever a sampler decided about its span."""
        found = own_attributes(seen) | convention_attributes(seen)
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

    def prompt_map(self, seen: Observation, prompt: Prompt, sight: Sight) -> None:
        """The prompt as packed segments, as a delta to the request it shares most with."""
        marks = {place.length: min(255, max(1, place.ttl // 60)) for place in prompt.breakpoints}
        base = sight.previous
        shared = sight.shared if base is not None else 0
        packed = bytearray()
        room = MAX_MAP_BYTES * 3 // 4 // _MAP_SEGMENT
        rest = list(enumerate(sight.nodes))[shared:]
        for index, node in rest[:room]:
            info = node.info
            if info is not None:
                kind = (info.section << 4) | info.kind
                packed += info.digest[:SHORT] + min(info.size, 2**24 - 1).to_bytes(3, "big")
                packed += bytes((kind, marks.get(index + 1, 0)))
        found: Attributes = {
            semconv.CALL_ID: seen.call_id,
            semconv.MAP_SEGMENTS: base64.b64encode(bytes(packed)).decode(),
            semconv.MAP_SHARED: shared,
            semconv.SCHEMA_VERSION: semconv.SCHEMA,
        }
        if seen.fingerprint is not None:
            found |= {semconv.PREFIX_CHAIN: seen.fingerprint.chain, semconv.KEY_ID: seen.fingerprint.key_id}
        if shared:
            found[semconv.MAP_BASE] = sight.nodes[shared - 1].chain.hex()
        if len(rest) > room or prompt.truncated:
            found[semconv.MAP_TRUNCATED] = True
        self._log(semconv.EVENT_PROMPT, found, get_current())

    # --- is anybody listening? ------------------------------------------------------------------------------

    def check(self) -> str | None:
        """Why nothing of ours can arrive anywhere, and what to do; None when somebody listens."""
        provider = self._provider or trace.get_tracer_provider()
        meters = self._meter_provider or metrics.get_meter_provider()
        if hasattr(provider, "add_span_processor") or type(meters).__name__ == "MeterProvider":
            return None
        if importlib.util.find_spec("opentelemetry.sdk") is None:
            return "the OpenTelemetry SDK is missing: pip install 'otel-promptcache[otlp]'"
        return (
            "no TracerProvider or MeterProvider is set: start the application with opentelemetry-instrument, "
            "set OTEL_PROMPTCACHE_AUTO=1 (see `otel-promptcache auto`), or configure the SDK before the first call"
        )

    def deactivate(self) -> None:
        """Stops reporting: observable instruments cannot be taken back."""
        self.pending.flush()
        self._active = False
