"""One empty OTLP export request, over HTTP or gRPC, and what became of it."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from enum import StrEnum
from importlib import import_module
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit


class Outcome(StrEnum):
    """How an endpoint took it."""

    ANSWERS = "answers"
    NO_SUCH_SIGNAL = "answers, but does not take"
    DENIED = "answers, but wants other credentials"
    FAILS = "answers with an error"
    WRONG_PROTOCOL = "answers, but speaks another protocol"
    UNTRUSTED = "answers, but TLS fails"
    REFUSES = "refuses: nothing listens there"
    NO_ROUTE = "no route: it cannot be reached"
    UNSUITABLE = "cannot be asked"


class Target(NamedTuple):
    """Where one signal goes. ``headers`` are sent and never shown."""

    signal: str
    protocol: str
    url: str
    secure: bool
    headers: Mapping[str, str]
    certificates: tuple[str, str, str]
    """Files of the authority, the client's certificate and its key; empty where none is set."""


class Answer(NamedTuple):
    """The outcome, and the status or error behind it."""

    outcome: Outcome
    detail: str = ""


HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"
_METHODS: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


def send(target: Target, timeout: float) -> Answer:
    """Sends an export request with nothing in it: zero bytes in protobuf, and valid."""
    try:
        return _SENDERS[target.protocol](target, timeout)
    except (OSError, ValueError) as error:  # an unreadable certificate, an address that is none
        return Answer(Outcome.UNSUITABLE, _named(error))


def _named(error: BaseException) -> str:
    """The error without its own words, which may quote the address or a header; the system's words are safe."""
    reason = getattr(error, "strerror", None) or ""
    return f"{type(error).__name__}: {reason}".rstrip(": ")


# --- HTTP ---------------------------------------------------------------------------------------------------


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """Exporters post once: a redirect is an answer."""

    def redirect_request(self, *_: Any) -> None:
        return None


_STATUS: Final = {
    401: Outcome.DENIED,
    403: Outcome.DENIED,
    404: Outcome.NO_SUCH_SIGNAL,
    405: Outcome.NO_SUCH_SIGNAL,
    415: Outcome.WRONG_PROTOCOL,
}


def _post(target: Target, timeout: float) -> Answer:
    handlers: list[urllib.request.BaseHandler] = [_Unfollowed()]
    if target.secure:
        handlers.append(urllib.request.HTTPSHandler(context=_tls(target.certificates)))
    parts = urlsplit(target.url)
    if parts.scheme not in ("http", "https"):
        return Answer(Outcome.UNSUITABLE, "it has to begin with http:// or https://")
    headers = {"content-type": "application/x-protobuf", **target.headers}
    user, _, host = parts.netloc.rpartition("@")
    if user:
        headers["authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    address = urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(address, data=b"", headers=headers, method="POST")  # noqa: S310
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            return Answer(Outcome.ANSWERS, f"HTTP {response.status}")
    except urllib.error.HTTPError as error:
        return Answer(_STATUS.get(error.code, Outcome.FAILS), f"HTTP {error.code}")
    except urllib.error.URLError as error:
        return _unreached(error.reason)
    except (http.client.HTTPException, OSError) as error:
        return _unreached(error)


def _unreached(reason: object) -> Answer:
    match reason:
        case ConnectionRefusedError():
            return Answer(Outcome.REFUSES)
        case ssl.SSLError():
            return Answer(Outcome.UNTRUSTED, reason.reason or _named(reason))
        case TimeoutError():
            return Answer(Outcome.NO_ROUTE, "no answer in time")
        case socket.gaierror():
            return Answer(Outcome.NO_ROUTE, "its name is not known")
        case http.client.HTTPException() | ConnectionError():
            return Answer(Outcome.WRONG_PROTOCOL, _named(reason))
        case OSError():
            return Answer(Outcome.NO_ROUTE, _named(reason))
    return Answer(Outcome.NO_ROUTE)


def _tls(certificates: tuple[str, str, str]) -> ssl.SSLContext:
    authority, certificate, key = certificates
    context = ssl.create_default_context(cafile=authority or None)
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context


# --- gRPC ---------------------------------------------------------------------------------------------------

_DETAILS: Final = (
    # Words of an UNAVAILABLE status, in the order in which they tell something.
    ("http/2", Outcome.WRONG_PROTOCOL),
    ("http1", Outcome.WRONG_PROTOCOL),
    ("ssl", Outcome.UNTRUSTED),
    ("handshake", Outcome.UNTRUSTED),
    ("refused", Outcome.REFUSES),
    ("dns", Outcome.NO_ROUTE),
    ("resol", Outcome.NO_ROUTE),
    ("lookup", Outcome.NO_ROUTE),
    ("timeout", Outcome.NO_ROUTE),
    ("unreachable", Outcome.NO_ROUTE),
    ("socket closed", Outcome.WRONG_PROTOCOL),
    ("connection reset", Outcome.WRONG_PROTOCOL),
)
_CODES: Final = {
    "UNIMPLEMENTED": Outcome.NO_SUCH_SIGNAL,
    "UNAUTHENTICATED": Outcome.DENIED,
    "PERMISSION_DENIED": Outcome.DENIED,
    "DEADLINE_EXCEEDED": Outcome.NO_ROUTE,
}


def _call(target: Target, timeout: float) -> Answer:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log would stand between our lines
    try:
        grpc: Any = import_module("grpc")
    except ImportError as error:
        return Answer(Outcome.UNSUITABLE, _named(error))
    place = urlsplit(target.url).netloc or target.url
    if target.secure:
        authority, certificate, key = (_read(path) for path in target.certificates)
        channel = grpc.secure_channel(place, grpc.ssl_channel_credentials(authority, key, certificate))
    else:
        channel = grpc.insecure_channel(place)
    with channel:
        export = channel.unary_unary(_METHODS[target.signal], request_serializer=bytes, response_deserializer=bytes)
        metadata = [(name.lower(), value) for name, value in target.headers.items()]
        try:
            export(b"", timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            return _status(error.code().name, error.details() or "")
    return Answer(Outcome.ANSWERS)


def _status(code: str, details: str) -> Answer:
    outcome = _CODES.get(code)
    if outcome is None and code in ("UNAVAILABLE", "INTERNAL", "UNKNOWN"):
        outcome = next((found for words, found in _DETAILS if words in details.lower()), None)
    return Answer(outcome or Outcome.FAILS, code)


def _read(path: str) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as handle:
        return handle.read()


_SENDERS: Final = {HTTP: _post, GRPC: _call}
