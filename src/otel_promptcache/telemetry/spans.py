"""One call's span: found or made, and what is written on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from otel_promptcache import attribution, semconv
from otel_promptcache.diagnosis import actor, explanation
from otel_promptcache.model import Attribution, Diagnosis, Link, Observation
from otel_promptcache.observer.recording import Origin
from otel_promptcache.providers.limits import Header
from otel_promptcache.settings import Spans
from otel_promptcache.telemetry.context import NATIVE_SCOPE, scope_name, within_another
from otel_promptcache.telemetry.duplicates import ON_OTHERS_SPANS, ON_OWN_SPANS, duplicate_attributes

if TYPE_CHECKING:
    from otel_promptcache.telemetry import Telemetry

MAX_ATTRIBUTES: Final = 25
MAX_BYTES: Final = 2048
_SHORT: Final = 256
_SIZE_OF_NUMBER: Final = 22
_SIZE_OF_REST: Final = 8
"""Bytes of an attribute beside name and value."""

COMPANION: Final = "promptcache"
"""How the name of a span begins that stands beside somebody else's for the same call."""

Attributes = dict[str, Any]


class SpanRecorder:
    """Telemetry's side of one call: which span stands for it, and what it is told."""

    def __init__(self, telemetry: Telemetry, seen: Observation, started_ns: int, origin: Origin | None = None) -> None:
        self._telemetry = telemetry
        self._settings = telemetry.live.current()
        self._started_ns = started_ns
        self._own: Span | None = None
        self._owner: Span | None = None
        self._counted = False
        """Whether somebody else's span, that we do not write on, says how many tokens the call had."""
        self._said: Attributes = {}
        self._linked = False
        self._parent = parent = context.get_current() if origin is None else _context_of(origin)
        if self._settings.spans is not Spans.NEVER and (self._settings.batch_spans or not seen.batch):
            # Whatever is open where a response is fetched that was asked for elsewhere stands for another call.
            if self._settings.spans is Spans.AUTO and not seen.batch and origin is None:
                self._owner = telemetry.owners.claim()
                self._counted = self._owner is not None and within_another(self._owner)
            if self._owner is None and is_instrumentation_enabled():
                # A span that others start once the answer is there will count the tokens: ours is a companion then.
                others = self._settings.spans is Spans.AUTO and not seen.batch
                self._counted = others and (
                    attribution.called_by_instrumentation(3) or (origin is not None and origin.owned)
                )
                name, attributes = seen.operation, _start_attributes(seen)
                if self._counted:
                    name, attributes = COMPANION, {}
                self._own = self._start(f"{name} {seen.model}".rstrip(), parent, attributes)
        self.span = self._owner or self._own
        self.context = trace.set_span_in_context(self.span, parent) if self.span is not None else parent
        self.attribution = (
            telemetry.attribution_of(self._owner, self._settings) if origin is None else origin.attribution
        )
        self.labels = telemetry.labels_of(seen, self.attribution, self._settings)

    def _start(self, name: str, parent: context.Context, attributes: Attributes) -> Span:
        return self._telemetry.tracer.start_span(
            name, parent, SpanKind.CLIENT, attributes=attributes, start_time=self._started_ns
        )

    @property
    def link(self) -> Link | None:
        if self.span is None:
            return None
        ids = self.span.get_span_context()
        return Link(ids.trace_id, ids.span_id) if ids.is_valid else None

    @property
    def origin(self) -> Origin:
        place = trace.get_current_span(self._parent).get_span_context()
        return Origin(self.attribution, place if place.is_valid else None, owned=self._owner is not None)

    @property
    def own(self) -> Span | None:
        """The span made for this call, to be current while the request is under way."""
        return self._own

    def limits(self, headers: Sequence[Header], at: float) -> None:
        book = self._telemetry.book
        book.pending.add(book.limits.heard, self.labels, headers, at)

    def sent_again(self) -> None:
        """Some SDKs have a span of their own around each time that a request is made."""
        owner = self._owner
        if owner is None or owner.is_recording():
            return
        newer = self._telemetry.owners.claim()
        if newer is not None:
            self.span = self._owner = newer
            self.context = trace.set_span_in_context(newer, self._parent)

    def renamed(self, seen: Observation) -> None:
        self.labels = self._telemetry.labels_of(seen, self.attribution, self._settings)
        if self._own is not None:
            self._own.set_attribute(semconv.PROVIDER, seen.provider)

    def usage(self, seen: Observation) -> None:
        owner = self._owner
        if owner is None:
            return  # our own span waits until everything is known
        if owner.is_recording():
            self._write(owner, seen)
        elif not self._said and self._own is None and seen.usage is not None:
            # The owner ended before the usage came: a companion carries what is ours, and no token counts twice.
            self._own = self._start(f"{COMPANION} {seen.model}".rstrip(), self.context, {})

    def close(self, seen: Observation) -> None:
        if self._owner is not None:
            self.usage(seen)

    def settle(self, seen: Observation) -> None:
        telemetry = self._telemetry
        if self._own is not None:
            self._write(self._own, seen)
            if seen.error_type:
                self._own.set_status(Status(StatusCode.ERROR))
            self._own.end(self._started_ns + int((seen.duration or 0.0) * 1e9))
        unpriced = seen.cost is None and self._settings.prices
        telemetry.count(self, seen, unpriced=unpriced, owned_elsewhere=self._measured_elsewhere())
        if self._settings.ledger and not seen.pending:
            telemetry.ledger(self, seen)

    def _measured_elsewhere(self) -> bool:
        """Whether an instrumentation that also records the duration histogram owns the span."""
        return self._owner is not None and not scope_name(self._owner).startswith(NATIVE_SCOPE)

    def _write(self, span: Span, seen: Observation) -> None:
        if not span.is_recording():
            return
        attributes = own_attributes(seen)
        tells = None
        if self._counted:
            pass
        elif self._owner is None:
            tells = ON_OWN_SPANS
            attributes.update(convention_attributes(seen))
        elif span is self._owner:
            tells = ON_OTHERS_SPANS
            if scope_name(span).startswith(NATIVE_SCOPE):
                tells = ON_OWN_SPANS
                attributes.update(usage_attributes(seen))
        if tells is not None and self._settings.backends:
            attributes.update(duplicate_attributes(seen, self._settings.backends, tells))
        if self._said:
            said = self._said
            attributes = {name: value for name, value in attributes.items() if said.get(name) != value}
        span.set_attributes(attributes)
        verdict = seen.diagnosis
        if verdict is not None and verdict.link is not None and not self._linked and hasattr(span, "add_link"):
            self._linked = True
            ids = trace.SpanContext(verdict.link.trace_id, verdict.link.span_id, is_remote=False)
            span.add_link(ids, {semconv.REASON: verdict.reason.value if verdict.reason else ""})
        self._said |= attributes


def _context_of(origin: Origin) -> context.Context:
    """A context with nothing but the span of an origin."""
    empty = context.Context()
    if not isinstance(origin.place, trace.SpanContext):
        return empty
    return trace.set_span_in_context(trace.NonRecordingSpan(origin.place), empty)


def _start_attributes(seen: Observation) -> Attributes:
    """What is known before the request: head samplers see these."""
    found: Attributes = {
        semconv.OPERATION: seen.operation,
        semconv.PROVIDER: seen.provider,
        semconv.REQUEST_MODEL: seen.model,
        semconv.SERVER_ADDRESS: seen.endpoint,
        semconv.SERVER_PORT: seen.port,
    }
    if seen.stream:
        found[semconv.REQUEST_STREAM] = True
    return found


def usage_attributes(seen: Observation) -> Attributes:
    """Token counts under the conventions' names; what was not reported is absent."""
    found: Attributes = {}
    usage = seen.usage
    if usage is not None:
        if usage.input_total is not None:
            found[semconv.INPUT_TOKENS] = usage.input_total
        if usage.output is not None:
            found[semconv.OUTPUT_TOKENS] = usage.output
        if usage.read is not None:
            found[semconv.CACHE_READ_TOKENS] = usage.read
        if usage.write is not None:
            found[semconv.CACHE_WRITE_TOKENS] = usage.write
        if usage.reasoning is not None:
            found[semconv.REASONING_TOKENS] = usage.reasoning
    return found


def convention_attributes(seen: Observation) -> Attributes:
    """Everything of the GenAI conventions that a span of our own carries."""
    found = usage_attributes(seen)
    if seen.response_model:
        found[semconv.RESPONSE_MODEL] = seen.response_model
    if seen.response_id:
        found[semconv.RESPONSE_ID] = seen.response_id
    if seen.max_tokens is not None:
        found[semconv.REQUEST_MAX_TOKENS] = seen.max_tokens
    if seen.finish_reasons:
        found[semconv.FINISH_REASONS] = seen.finish_reasons
    if seen.first_chunk is not None:
        found[semconv.TIME_TO_FIRST_CHUNK] = seen.first_chunk
    if seen.conversation:
        found[semconv.CONVERSATION_ID] = seen.conversation
    if seen.error_type:
        found[semconv.ERROR_TYPE] = seen.error_type
    if seen.attempts > 1:
        found[semconv.RESEND_COUNT] = seen.attempts - 1
    return found


def own_attributes(seen: Observation) -> Attributes:
    """Our attributes for a span, the most telling first, at most 25 and two kilobytes together.

    What does not fit is left out rather than cut: half a tenant is another tenant.
    """
    found = all_attributes(seen)
    verdict, said = seen.diagnosis, seen.attribution
    blamed = verdict is not None and verdict.reason is not None
    if verdict is not None and blamed:
        found = {semconv.EXPLANATION: explanation(verdict, seen.path), **found}
    lengthy = blamed or said.keys or said.strategy or said.prompt_name or seen.native or len(said.route) > _SHORT
    if len(found) <= MAX_ATTRIBUTES and not lengthy:
        return found  # nothing else in it can be long
    kept: Attributes = {}
    room = MAX_BYTES - len(semconv.SCHEMA_VERSION) - _SIZE_OF_NUMBER - _SIZE_OF_REST
    for name, value in found.items():
        size = _size(name) + (_size(value) if type(value) is str else _SIZE_OF_NUMBER) + _SIZE_OF_REST
        if size <= room and len(kept) < MAX_ATTRIBUTES - 1:
            kept[name] = value
            room -= size
    kept[semconv.SCHEMA_VERSION] = semconv.SCHEMA
    return kept


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def all_attributes(seen: Observation) -> Attributes:
    """Everything of ours, the most telling first; what is not known is absent."""
    found: Attributes = {}
    _tell_verdict(found, seen)
    if seen.native:
        _tell_witness(found, seen)
    _tell_money(found, seen)
    said = seen.attribution
    if said.route:
        found[semconv.ROUTE] = said.route
    if said.keys or said.strategy or said.prompt_name:
        found |= attribution_attributes(said)
    if seen.batch:
        found[semconv.BATCH_ID] = seen.batch
    print_ = seen.fingerprint
    if print_ is not None:
        found[semconv.PREFIX_ID] = print_.prefix_id
        found[semconv.LINEAGE_ID] = seen.lineage
        found[semconv.FINGERPRINT] = print_.sections
        found[semconv.KEY_ID] = print_.key_id
    if seen.hit_depth is not None:
        found[semconv.HIT_DEPTH] = round(seen.hit_depth, 4)
    verdict = seen.diagnosis
    if verdict is not None and verdict.reason is not None:
        if verdict.confidence is not None:
            found[semconv.CONFIDENCE] = verdict.confidence.value
        found[semconv.ACTIONABILITY] = actor(verdict)
    found[semconv.SCHEMA_VERSION] = semconv.SCHEMA
    return found


def evidence_attributes(verdict: Diagnosis) -> Attributes:
    """What a verdict rests on, for the ledger: a sentence is made of it by whoever reads it."""
    found: Attributes = {}
    if verdict.also:
        found[semconv.ALSO] = ",".join(verdict.also)
    evidence = verdict.evidence
    if evidence is not None:
        said = [f"equal={evidence.equal}/{evidence.of}"]
        if verdict.reason not in semconv.PROMPT_CHANGED and evidence.gap is not None and evidence.ttl is not None:
            said += [f"gap={max(0.0, evidence.gap):.1f}", f"ttl={evidence.ttl}"]
        said += ["truncated"] if evidence.truncated else []
        said += ["alone"] if evidence.alone else []
        found[semconv.EVIDENCE] = ";".join(said)
    return found


def _tell_verdict(found: Attributes, seen: Observation) -> None:
    """What the cache did and why."""
    verdict, usage = seen.diagnosis, seen.usage
    if verdict is not None:
        found[semconv.STATUS] = verdict.status.value
        if verdict.reason is not None:
            found[semconv.REASON] = verdict.reason.value
        if verdict.cause is not None:
            found[semconv.CAUSE] = verdict.cause.value
        if seen.path:
            found[semconv.PATH] = seen.path
        if verdict.line is not None:
            found[semconv.LINE] = verdict.line
        if verdict.expected is not None:
            found[semconv.EXPECTED_TOKENS] = verdict.expected
        if verdict.lost:
            found[semconv.LOST_TOKENS] = verdict.lost
        if seen.lost_usd is not None:
            found[semconv.LOST_USD] = float(seen.lost_usd)
        if verdict.link is not None:
            found[semconv.PREDECESSOR] = f"{verdict.link.trace_id:032x}-{verdict.link.span_id:016x}"
    if usage is None:
        if seen.duration is not None and not seen.error_type:
            found[semconv.USAGE_AVAILABLE] = False
    elif usage.read is not None and usage.input_total:
        found[semconv.HIT_RATIO] = usage.read / usage.input_total


def _tell_witness(found: Attributes, seen: Observation) -> None:
    """What the provider itself says about its cache, and how that goes with ours."""
    for name, value in seen.native:
        found[f"{semconv.NATIVE}.{name}"] = value
    if seen.agreement is not None:
        found[semconv.NATIVE_AGREEMENT] = seen.agreement.value
    if seen.native_asked_by:
        found[semconv.NATIVE_ASKED_BY] = seen.native_asked_by


def _tell_money(found: Attributes, seen: Observation) -> None:
    """What the call cost; nothing where the price is not known."""
    if seen.discount is not None:
        found[semconv.NATIVE_DISCOUNT] = seen.discount
    cost = seen.cost
    if cost is None:
        return
    found[semconv.COST_TOTAL] = float(cost.total)
    found[semconv.COST_SAVING] = float(cost.saving)
    found[semconv.COST_WITHOUT_CACHE] = float(cost.without_cache)
    found[semconv.COST_READ] = float(cost.read)
    found[semconv.COST_WRITE] = float(cost.write)
    found[semconv.COST_UNCACHED] = float(cost.uncached)
    found[semconv.COST_OUTPUT] = float(cost.output)
    found[semconv.PRICE_VERSION] = cost.version
    if cost.estimated:
        found[semconv.COST_ESTIMATED] = True


def attribution_attributes(said: Attribution) -> Attributes:
    found: Attributes = {f"{semconv.ATTRIBUTION}.{key}": value for key, value in said.keys}
    if said.strategy:
        found[semconv.STRATEGY] = said.strategy
    if said.prompt_name:
        found[semconv.PROMPT_NAME] = said.prompt_name
        if said.prompt_version:
            found[semconv.PROMPT_VERSION] = said.prompt_version
    return found
