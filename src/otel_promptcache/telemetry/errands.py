"""Spans of requests that carry no prompt: observed, never priced. Reading a batch carries what its items come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from otel_promptcache import semconv
from otel_promptcache.settings import Spans
from otel_promptcache.telemetry.context import NATIVE_SCOPE, scope_name
from otel_promptcache.telemetry.duplicates import ON_OWN_SPANS, ON_THE_SDKS_ERRANDS, duplicate_attributes
from otel_promptcache.telemetry.spans import COMPANION, convention_attributes, own_attributes

if TYPE_CHECKING:
    from otel_promptcache.observer.recording import Trip
    from otel_promptcache.telemetry import Telemetry


class ErrandSpan:
    """The span of one errand: the SDK's own where it has one, else one of ours."""

    def __init__(self, telemetry: Telemetry, trip: Trip, started_ns: int) -> None:
        self._telemetry = telemetry
        self._started_ns = started_ns
        parent = context.get_current()
        current = trace.get_current_span(parent)
        self._native = current if scope_name(current).startswith(NATIVE_SCOPE) and current.is_recording() else None
        self.own: Span | None = None
        self._wants_spans = telemetry.live.current().spans is not Spans.NEVER
        if self._native is None and self._wants_spans:
            self.own = self._start(f"{trip.operation} {trip.model}".rstrip(), parent, trip)
        span = self.own or self._native
        self._context = parent if span is None else trace.set_span_in_context(span, parent)

    def _start(self, name: str, parent: context.Context, trip: Trip) -> Span:
        return self._telemetry.tracer.start_span(
            name, parent, SpanKind.CLIENT, attributes=_start_attributes(trip), start_time=self._started_ns
        )

    def answered(self, trip: Trip) -> None:
        """The SDK's own span ends before the request returns."""
        if self._native is not None and self._native.is_recording():
            self._native.set_attributes(_attributes(trip))

    def end(self, trip: Trip) -> None:
        if self.own is None and trip.total is not None and self._wants_spans:
            if self._native is not None and self._native.is_recording():
                self._tell(self._native, trip)
            else:
                self.own = self._start(f"{COMPANION} {trip.operation}", self._context, trip)
        if self.own is not None:
            found = _attributes(trip)
            if trip.error_type:
                found[semconv.ERROR_TYPE] = trip.error_type
                self.own.set_status(Status(StatusCode.ERROR))
            self.own.set_attributes(found)
            self._tell(self.own, trip)
            self.own.end(self._started_ns + int(trip.duration * 1e9))
        self._telemetry.errand_ended(trip, self._context)

    def _tell(self, span: Span, trip: Trip) -> None:
        """What the items come to, and whose they are."""
        if trip.total is None:
            return
        span.set_attributes(convention_attributes(trip.total) | own_attributes(trip.total))
        backends = self._telemetry.live.current().backends
        if backends:
            tells = ON_OWN_SPANS if span is self.own else ON_THE_SDKS_ERRANDS
            span.set_attributes(duplicate_attributes(trip.total, backends, tells))
        place = trip.submitter.place if trip.submitter is not None else None
        if isinstance(place, trace.SpanContext) and hasattr(span, "add_link"):
            span.add_link(place)


def _start_attributes(trip: Trip) -> dict[str, Any]:
    found: dict[str, Any] = {
        semconv.OPERATION: trip.operation,
        semconv.PROVIDER: trip.provider,
        semconv.SERVER_ADDRESS: trip.endpoint,
        semconv.SERVER_PORT: trip.port,
    }
    if trip.model:
        found[semconv.REQUEST_MODEL] = trip.model
    return found


def _attributes(trip: Trip) -> dict[str, Any]:
    told = {
        semconv.COUNTED_TOKENS: trip.counted,
        semconv.BATCH_ID: trip.batch or None,
        semconv.BATCH_REQUESTS: trip.requests,
        semconv.BATCH_ITEMS: trip.items,
        semconv.SCHEMA_VERSION: semconv.SCHEMA,
    }
    return {name: value for name, value in told.items() if value is not None}
