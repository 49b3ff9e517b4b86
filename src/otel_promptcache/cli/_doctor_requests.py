"""Export requests that ``doctor`` sends, and what their answers say."""

from __future__ import annotations

import json
import secrets
import time
from importlib import import_module
from typing import Any, Final, NamedTuple

from otel_promptcache import semconv
from otel_promptcache._version import __version__
from otel_promptcache.telemetry.spans import MAX_BYTES

_SERVICES: Final = {
    # signal: module of the service, its request and its response
    "traces": ("trace.v1.trace_service_pb2", "ExportTraceService"),
    "metrics": ("metrics.v1.metrics_service_pb2", "ExportMetricsService"),
    "logs": ("logs.v1.logs_service_pb2", "ExportLogsService"),
}
_FEW_WORDS: Final = 120


class Said(NamedTuple):
    """An answer that has been understood."""

    rejected: int
    message: str


def _message(signal: str, kind: str) -> Any:
    module, name = _SERVICES[signal]
    return getattr(import_module(f"opentelemetry.proto.collector.{module}"), name + kind)()


def _resource(request: Any, signal: str) -> Any:
    kind = {"traces": "spans", "metrics": "metrics", "logs": "logs"}[signal]
    resource = getattr(request, f"resource_{kind}").add()
    for name, value in (("service.name", "otel-promptcache doctor"), ("service.version", __version__)):
        resource.resource.attributes.add(key=name).value.string_value = value
    return resource


def one(signal: str, trace_id: bytes) -> bytes:
    """A request with one record in it, called ``promptcache.doctor``: a receiver passes an empty one by, even where it
    would take nothing else."""
    request = _message(signal, "Request")
    resource, now = _resource(request, signal), time.time_ns()
    if signal == "traces":
        spans = resource.scope_spans.add(scope={"name": semconv.SCOPE, "version": __version__}).spans
        spans.add(
            trace_id=trace_id,
            span_id=secrets.token_bytes(8),
            name=semconv.DOCTOR,
            kind="SPAN_KIND_INTERNAL",
            start_time_unix_nano=now,
            end_time_unix_nano=now,
        )
    elif signal == "metrics":
        metric = resource.scope_metrics.add(scope={"name": semconv.SCOPE, "version": __version__}).metrics.add(
            name=semconv.DOCTOR
        )
        metric.gauge.data_points.add(time_unix_nano=now, as_int=1)
    else:
        record = resource.scope_logs.add(scope={"name": semconv.SCOPE, "version": __version__}).log_records.add(
            time_unix_nano=now, observed_time_unix_nano=now, trace_id=trace_id, severity_number="SEVERITY_NUMBER_INFO"
        )
        record.attributes.add(key=semconv.EVENT_NAME).value.string_value = semconv.DOCTOR
        if hasattr(record, "event_name"):
            record.event_name = semconv.DOCTOR
    return bytes(request.SerializeToString())


def as_large_as(signal: str, records: int) -> bytes:
    """A request of the size of so many of our largest records, and without any: nothing of it is kept anywhere."""
    request = _message(signal, "Request")
    padding = _resource(request, signal).resource.attributes.add(key=semconv.DOCTOR)
    padding.value.string_value = secrets.token_hex(MAX_BYTES // 2) * records
    return bytes(request.SerializeToString())


def understood(signal: str, body: bytes) -> Said | None:
    """What an answer says, None where it is none of OTLP's. One without content says that all was taken."""
    if body[:1] == b"{":
        try:
            partial = json.loads(body).get("partialSuccess") or {}
        except ValueError:
            return None
        rejected = next((value for name, value in partial.items() if name.startswith("rejected")), 0)
        return Said(int(rejected), plain(str(partial.get("errorMessage", ""))))
    response = _message(signal, "Response")
    try:
        response.ParseFromString(body)
    except Exception:  # protobuf has another error in each of its implementations
        return None
    partial = response.partial_success
    rejected = next((value for field, value in partial.ListFields() if field.name.startswith("rejected")), 0)
    return Said(int(rejected), plain(partial.error_message))


def words(body: bytes) -> str:
    """What a receiver says to a request that it has refused, where it says it as OTLP has it: ``google.rpc.Status``."""
    try:
        status = import_module("google.rpc.status_pb2").Status()
        status.ParseFromString(body)
    except Exception:
        return ""
    return plain(status.message)


def plain(text: str) -> str:
    """A receiver's words in one short line."""
    return "".join(character for character in text if character.isprintable())[:_FEW_WORDS]
