"""Spans of requests that carry no prompt: observed, never priced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from otel_promptcache import semconv
from otel_promptcache.settings import Spans
from otel_promptcache.telemetry.context import NATIVE_SCOPE, scope_name

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
        if self._native is None and telemetry.live.current().spans is not Spans.NEVER:
            self.own = telemetry.tracer.start_span(
                f"{trip.operation} {trip.model}".rstrip(),
                parent,
                SpanKind.CLIENT,
                attributes=_start_attributes(trip),
                start_time=started_ns,
            )
        span = self.own or self._native
        self._context = parent if span is None else trace.set_span_in_context(span, parent)

    def answered(self, trip: Trip) -> None:
        """The SDK's own span ends before the request returns."""
        if self._native is not None and self._native.is_recording():
            self._native.set_attributes(_attributes(trip))

    def end(self, trip: Trip) -> None:
        found = _attributes(trip)
        if self.own is not None:
            if trip.error_type:
                found[semconv.ERROR_TYPE] = trip.error_type
                self.own.set_status(Status(StatusCode.ERROR))
            self.own.set_attributes(found)
            self.own.end(self._started_ns + int(trip.duration * 1e9))
        self._telemetry.errand_ended(trip, self._context)


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
    }
    return {name: value for name, value in told.items() if value is not None}
