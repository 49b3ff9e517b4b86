"""Receivers of OTLP that behave badly, each in a manner of its own, over HTTP and over gRPC; and a real Collector."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from servers import HOST, built, free_ports, listens, process

MESSAGES = {
    "traces": (ExportTraceServiceRequest, ExportTraceServiceResponse, "rejected_spans"),
    "metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (ExportLogsServiceRequest, ExportLogsServiceResponse, "rejected_log_records"),
}
LARGEST = 100_000
"""Bytes of a request that one who wants small ones takes."""


class Manner(StrEnum):
    """How a receiver takes what it is sent."""

    TAKES = "takes"
    REFUSES = "refuses"
    """Nothing listens."""
    THROTTLES = "throttles"
    BUSY = "busy"
    DENIES = "denies"
    FORBIDS = "forbids"
    REJECTS = "rejects"
    """Says that it has taken part of it, which is none."""
    HANGS = "hangs"
    """Takes the connection, and says nothing."""
    CLOSES = "closes"
    """Closes the connection in the middle of the request."""
    BREAKS_OFF = "breaks off"
    """Closes it in the middle of the answer."""
    BABBLES = "babbles"
    """Answers what is neither HTTP nor gRPC."""
    WEB_PAGE = "web page"
    """Answers well, and not OTLP."""
    SMALL = "small"
    """Takes small requests only."""


@dataclass
class Receiver:
    """Where it is, and the names of what it was sent."""

    url: str
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    """(signal, body) of each, as it came."""


EMPTY_IS_WELL = (Manner.THROTTLES, Manner.BUSY, Manner.REJECTS)
"""As a real Collector does, these take what has nothing in it."""


@contextmanager
def receiver(manner: Manner, protocol: str) -> Iterator[Receiver]:
    """A receiver with this manner, of ``grpc`` or ``http``, for as long as the block runs."""
    if manner is Manner.REFUSES:
        yield Receiver(f"http://{HOST}:{free_ports(1)[0]}")
        return
    raw = {Manner.HANGS: _hang, Manner.CLOSES: _close, Manner.BABBLES: _babble}.get(manner)
    if protocol == "grpc" and manner is Manner.BREAKS_OFF:
        raw = _greet_and_close
    with ExitStack() as running:
        if raw is not None:
            yield running.enter_context(_raw(raw))
        else:
            yield running.enter_context((_grpc if protocol == "grpc" else _http)(manner))


# --- Below HTTP and gRPC ------------------------------------------------------------------------------------


def _hang(client: socket.socket, over: threading.Event) -> None:
    over.wait()


def _close(client: socket.socket, over: threading.Event) -> None:
    client.recv(50)


def _greet_and_close(client: socket.socket, over: threading.Event) -> None:
    client.sendall(b"\0\0\0\4\0\0\0\0\0")  # HTTP/2: settings, none; then the beginning of a frame
    client.recv(65536)
    client.sendall(b"\0\0\x20\1")


def _babble(client: socket.socket, over: threading.Event) -> None:
    client.recv(65536)
    client.sendall(b"220 mail.example ESMTP ready\r\n" * 3)


@contextmanager
def _raw(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[Receiver]:
    over = threading.Event()

    def one(client: socket.socket) -> None:
        with client, suppress(OSError):
            serve(client, over)

    def accept(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server((HOST, 0), backlog=64) as listening:
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        yield Receiver(f"http://{HOST}:{listening.getsockname()[1]}")
        over.set()
        listening.shutdown(socket.SHUT_RDWR)


# --- HTTP ---------------------------------------------------------------------------------------------------

STATUS = {
    Manner.THROTTLES: (429, {"Retry-After": "1"}),
    Manner.BUSY: (503, {"Retry-After": "1"}),
    Manner.DENIES: (401, {"WWW-Authenticate": "Bearer"}),
    Manner.FORBIDS: (403, {}),
}


@contextmanager
def _http(manner: Manner) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            signal = self.path.rpartition("/")[2]
            found.requests.append((signal, body))
            status, headers = STATUS.get(manner, (200, {})) if body or manner not in EMPTY_IS_WELL else (200, {})
            content, kind = b"", "application/x-protobuf"
            if manner is Manner.REJECTS and body:
                content = _partial(signal)
            elif manner is Manner.WEB_PAGE:
                content, kind = b"<html>It works!</html>", "text/html"
            elif manner is Manner.SMALL and len(body) > LARGEST:
                status = 413
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content) + 100 * (manner is Manner.BREAKS_OFF)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = manner is Manner.BREAKS_OFF

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        found = Receiver(f"http://{HOST}:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        server.shutdown()


def _partial(signal: str) -> bytes:
    """An answer that says that one record was not taken."""
    _, response, rejected = MESSAGES[signal]
    return bytes(response(partial_success={rejected: 1, "error_message": "quota exceeded"}).SerializeToString())


# --- gRPC ---------------------------------------------------------------------------------------------------

CODES = {
    Manner.THROTTLES: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Manner.BUSY: grpc.StatusCode.UNAVAILABLE,
    Manner.DENIES: grpc.StatusCode.UNAUTHENTICATED,
    Manner.FORBIDS: grpc.StatusCode.PERMISSION_DENIED,
}


@contextmanager
def _grpc(manner: Manner) -> Iterator[Receiver]:
    class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            signal = {"Trace": "traces", "Metrics": "metrics", "Logs": "logs"}[
                details.method.rpartition(".")[2].partition("Service")[0]
            ]
            return grpc.unary_unary_rpc_method_handler(lambda body, context: export(signal, body, context))

    def export(signal: str, body: bytes, context: Any) -> bytes:
        found.requests.append((signal, body))
        if manner in CODES and (body or manner not in EMPTY_IS_WELL):
            delay = RetryInfo()
            delay.retry_delay.seconds = 1
            detail = Packed()
            detail.Pack(delay)
            said = Status(code=CODES[manner].value[0], details=[detail]).SerializeToString()
            context.set_trailing_metadata(
                [("grpc-status-details-bin", said), ("google.rpc.retryinfo-bin", delay.SerializeToString())]
            )
            context.abort(CODES[manner], "not now")
        if manner is Manner.REJECTS and body:
            return _partial(signal)
        return b"<html>It works!</html>" if manner is Manner.WEB_PAGE else b""

    limits = [("grpc.max_receive_message_length", LARGEST)] if manner is Manner.SMALL else []
    server = grpc.server(ThreadPoolExecutor(4), handlers=[Service()], options=limits)
    port = server.add_insecure_port(f"{HOST}:0")
    found = Receiver(f"http://{HOST}:{port}")
    server.start()
    try:
        yield found
    finally:
        server.stop(None)


# --- A Collector in trouble ---------------------------------------------------------------------------------


@contextmanager
def troubled_collector(
    folder: Path,
    *,
    processors: dict[str, Any] | None = None,
    exporters: dict[str, Any] | None = None,
    grpc_settings: dict[str, Any] | None = None,
    http_settings: dict[str, Any] | None = None,
) -> Iterator[dict[str, str]]:
    """A Collector with so much of a configuration: its address by protocol. By default it takes everything, and drops
    it."""
    grpc_port, http_port = free_ports(2)
    protocols = {
        "grpc": {"endpoint": f"{HOST}:{grpc_port}", **(grpc_settings or {})},
        "http": {"endpoint": f"{HOST}:{http_port}", **(http_settings or {})},
    }
    processors, exporters = processors or {}, exporters or {"debug": {}}
    pipeline = {"receivers": ["otlp"], "processors": list(processors), "exporters": list(exporters)}
    file = folder / "troubled.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "receivers": {"otlp": {"protocols": protocols}},
                "processors": processors,
                "exporters": exporters,
                "service": {
                    "telemetry": {"metrics": {"level": "none"}},
                    "pipelines": {signal: dict(pipeline) for signal in MESSAGES},
                },
            },
            default_flow_style=False,
        )
    )
    command = [built("collector"), f"--config={file}"]

    def ready() -> bool:
        return listens(grpc_port) and listens(http_port)

    with process(command, folder / "troubled.log", ready, grace=0.2):  # it would wait for whom it exports to
        yield {"grpc": f"http://{HOST}:{grpc_port}", "http": f"http://{HOST}:{http_port}"}


OUT_OF_MEMORY = {"memory_limiter": {"check_interval": "100ms", "limit_mib": 2, "spike_limit_mib": 1}}
"""A limit that a Collector is above before it has begun."""


def full_queue(behind: Receiver) -> dict[str, Any]:
    """An exporter with a queue of one, to a receiver that never answers."""
    return {
        "otlp_grpc": {
            "endpoint": behind.url.removeprefix("http://"),
            "tls": {"insecure": True},
            "sending_queue": {"queue_size": 1, "num_consumers": 1},
        }
    }
