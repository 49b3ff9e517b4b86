"""A local end of OTLP over HTTP: takes traces, metrics and logs, and keeps them as plain values."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

HOST: Final = "127.0.0.1"
_PROTOBUF: Final = "application/x-protobuf"

Attributes = Mapping[str, Any]


class Span(NamedTuple):
    """A finished span, as far as the demo looks at it."""

    scope: str
    name: str
    span_id: str
    started: int
    """Nanoseconds since the epoch."""
    attributes: Attributes


class Event(NamedTuple):
    """A log record that has an event name."""

    scope: str
    name: str
    span_id: str
    at: int
    """Nanoseconds since the epoch."""
    attributes: Attributes


class Point(NamedTuple):
    """The last value of one series of a counter."""

    metric: str
    attributes: Attributes
    value: float


@dataclass
class Arrived:
    """Everything that came in since it was last taken."""

    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    series: dict[tuple[str, frozenset[tuple[str, Any]]], Point] = field(default_factory=dict)
    payloads: list[bytes] = field(default_factory=list)
    """The request bodies, unpacked: what really went over the wire."""

    @property
    def points(self) -> list[Point]:
        """All counters; they are cumulative, so the last value of a series is the total."""
        return list(self.series.values())


class Receiver:
    """What the HTTP server fills; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrived = Arrived()
        self.endpoint = ""
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT``."""

    def take(self) -> Arrived:
        """What has arrived so far; from here on it starts anew."""
        with self._lock:
            arrived, self._arrived = self._arrived, Arrived()
        return arrived

    def accept(self, path: str, body: bytes) -> None:
        """One export request. Raises KeyError for a path that is none of OTLP's, DecodeError for no protobuf."""
        read = _READERS[path]
        with self._lock:
            read(self._arrived, body)
            self._arrived.payloads.append(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing either: a client that goes away in the middle of a request was stopped by the user."""


def _accepted(running: Receiver, path: str, body: bytes, encoding: str) -> int:
    """Hands a request on; returns the HTTP status."""
    try:
        running.accept(path, gzip.decompress(body) if encoding == "gzip" else body)
    except KeyError:
        return 404
    except Exception:  # gzip's errors are many, and protobuf's differ by implementation
        return 400
    return 200


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Runs a receiver on a free port of the loopback interface while the block lasts."""
    running = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(_accepted(running, self.path, body, self.headers.get("content-encoding", "")))
            self.send_header("content-type", _PROTOBUF)
            self.send_header("content-length", "0")  # an empty message: all was accepted
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of http.server
            """Says nothing: the demo's output is the demo's."""

    server = _Server((HOST, 0), Handler)
    running.endpoint = f"http://{HOST}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="otlp-receiver", daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()


# --- Protobuf to plain values -------------------------------------------------------------------------------


def _traces(arrived: Arrived, body: bytes) -> None:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            arrived.spans += [
                Span(
                    scope.scope.name,
                    span.name,
                    span.span_id.hex(),
                    span.start_time_unix_nano,
                    _attributes(span.attributes),
                )
                for span in scope.spans
            ]


def _metrics(arrived: Arrived, body: bytes) -> None:
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.sum.data_points:
                    value = point.as_double if point.HasField("as_double") else float(point.as_int)
                    attributes = _attributes(point.attributes)
                    key = metric.name, frozenset(attributes.items())
                    arrived.series[key] = Point(metric.name, attributes, value)


def _logs(arrived: Arrived, body: bytes) -> None:
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                attributes = _attributes(record.attributes)
                # Exporters older than the field of its own send the name as an attribute.
                name = record.event_name or str(attributes.get("event.name", ""))
                arrived.events.append(
                    Event(scope.scope.name, name, record.span_id.hex(), record.time_unix_nano, attributes)
                )


_READERS: Final = {"/v1/traces": _traces, "/v1/metrics": _metrics, "/v1/logs": _logs}


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return tuple(_value(one) for one in value.array_value.values)
        case "kvlist_value":
            return tuple((pair.key, _value(pair.value)) for pair in value.kvlist_value.values)
        case kind:
            return getattr(value, kind)
