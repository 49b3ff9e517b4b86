"""One OTLP export request, over HTTP or gRPC, and what became of it."""

from __future__ import annotations

import gzip
import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib import import_module
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from otel_promptcache.cli._doctor_requests import plain, words


class Outcome(StrEnum):
    """How an endpoint took it."""

    ANSWERS = "answers"
    REJECTS = "answers, but rejects what it is sent"
    THROTTLES = "throttles: it wants to be sent less"
    BUSY = "refuses what it is sent, for now"
    TOO_LARGE = "answers, but does not take a full batch"
    WRONG_PATH = "answers, but at another path"
    NO_SUCH_SIGNAL = "answers, but does not take"
    DENIED = "answers, but wants other credentials"
    FAILS = "answers with an error"
    WRONG_PROTOCOL = "answers, but speaks another protocol"
    TLS_ONLY = "answers, but over TLS only"
    WITHOUT_TLS = "answers, but without TLS"
    UNTRUSTED = "answers, but TLS fails"
    HANGS = "hangs: it takes the connection, and does not answer"
    BREAKS_OFF = "breaks off before it has answered"
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
    compression: str = ""
    """``gzip`` or ``deflate``, else nothing is compressed."""


class Answer(NamedTuple):
    """The outcome, the status or error behind it, and what the endpoint said where it took the request."""

    outcome: Outcome
    detail: str = ""
    body: bytes = b""


HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"
_METHODS: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_PORTS: Final = {"http": 80, "https": 443}
_READ: Final = 65536
"""Bytes of an answer that are looked at."""


def send(target: Target, timeout: float, body: bytes = b"") -> Answer:
    """Sends an export request. One with nothing in it is zero bytes in protobuf, and valid."""
    try:
        return _SENDERS[target.protocol](target, timeout, body)
    except (OSError, ValueError) as error:  # an unreadable certificate, an address that is none
        return Answer(Outcome.UNSUITABLE, _named(error))


def address(target: Target) -> tuple[str, int] | None:
    """Host and port, None where the address has none."""
    parts = urlsplit(target.url if "://" in target.url else f"//{target.url}")
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def listens(target: Target, timeout: float) -> bool:
    """Whether somebody takes a connection there."""
    place = address(target)
    try:
        with socket.create_connection(place or ("", 0), timeout):
            return place is not None
    except OSError:
        return False


def takes_tls(target: Target, timeout: float) -> bool:
    """Whether TLS is spoken there, whoever vouches for it: nothing is sent but the beginning of a conversation."""
    place = address(target)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(place or ("", 0), timeout) as plain,
            context.wrap_socket(plain, server_hostname=place[0] if place else None),
        ):
            return True
    except (OSError, ValueError):
        return False


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
    413: Outcome.TOO_LARGE,
    415: Outcome.WRONG_PROTOCOL,
    429: Outcome.THROTTLES,
    502: Outcome.BUSY,
    503: Outcome.BUSY,
    504: Outcome.BUSY,
}
_COMPRESSED: Final[dict[str, Callable[[bytes], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def _post(target: Target, timeout: float, body: bytes) -> Answer:
    handlers: list[urllib.request.BaseHandler] = [_Unfollowed()]
    if target.secure:
        handlers.append(urllib.request.HTTPSHandler(context=_tls(target.certificates)))
    parts = urlsplit(target.url)
    if parts.scheme not in _PORTS:
        return Answer(Outcome.UNSUITABLE, "it has to begin with http:// or https://")
    headers = {"content-type": "application/x-protobuf", **target.headers}
    if target.compression in _COMPRESSED:
        headers["content-encoding"] = target.compression
        body = _COMPRESSED[target.compression](body)
    user, _, host = parts.netloc.rpartition("@")
    if user:
        headers["authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    place = urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(place, data=body, headers=headers, method="POST")  # noqa: S310
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            said = response.read(_READ)
            if response.length and len(said) < _READ:
                return Answer(Outcome.BREAKS_OFF, f"HTTP {response.status}")
            return Answer(Outcome.ANSWERS, f"HTTP {response.status}", said)
    except urllib.error.HTTPError as error:
        return _refused(_STATUS.get(error.code, Outcome.FAILS), f"HTTP {error.code}{_wait(error)}", _words(error))
    except urllib.error.URLError as error:
        return _unreached(error.reason)
    except (http.client.HTTPException, OSError) as error:
        return _unreached(error)


_TALKATIVE: Final = frozenset({Outcome.BUSY, Outcome.THROTTLES, Outcome.FAILS})
"""Where a receiver's own words help, and are no echo of a header."""


def _refused(outcome: Outcome, status: str, said: str) -> Answer:
    if "too large" in said or "larger than max" in said:
        return Answer(Outcome.TOO_LARGE, status)
    return Answer(outcome, f"{status}: {said}" if said and outcome in _TALKATIVE else status)


def _words(error: urllib.error.HTTPError) -> str:
    """A receiver's own words, where they come in one piece."""
    try:
        return words(error.read(_READ))
    except (http.client.HTTPException, OSError):
        return ""


def _wait(error: urllib.error.HTTPError) -> str:
    """When to come again, where that is said in seconds."""
    said = error.headers.get("retry-after", "")
    return f", Retry-After {said} s" if said.isdecimal() else ""


def _unreached(reason: object) -> Answer:
    match reason:
        case ConnectionRefusedError():
            return Answer(Outcome.REFUSES)
        case ssl.SSLCertVerificationError():
            return Answer(Outcome.UNTRUSTED, reason.verify_message or _named(reason))
        case ssl.SSLError():
            return Answer(Outcome.UNTRUSTED, reason.reason or _named(reason))
        case TimeoutError():
            return Answer(Outcome.NO_ROUTE, "no answer in time")
        case socket.gaierror():
            return Answer(Outcome.NO_ROUTE, "its name is not known")
        case http.client.BadStatusLine() if not isinstance(reason, ConnectionError):
            return Answer(Outcome.WRONG_PROTOCOL, _named(reason))
        case http.client.HTTPException() | ConnectionError():
            return Answer(Outcome.BREAKS_OFF, _named(reason))
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
    ("connection refused", Outcome.REFUSES),
    ("dns", Outcome.NO_ROUTE),
    ("resol", Outcome.NO_ROUTE),
    ("lookup", Outcome.NO_ROUTE),
    ("timeout", Outcome.NO_ROUTE),
    ("unreachable", Outcome.NO_ROUTE),
    ("socket closed", Outcome.BREAKS_OFF),
    ("connection reset", Outcome.BREAKS_OFF),
)
_CODES: Final = {
    "UNIMPLEMENTED": Outcome.NO_SUCH_SIGNAL,
    "UNAUTHENTICATED": Outcome.DENIED,
    "PERMISSION_DENIED": Outcome.DENIED,
    "DEADLINE_EXCEEDED": Outcome.NO_ROUTE,
    "RESOURCE_EXHAUSTED": Outcome.THROTTLES,
}


def _call(target: Target, timeout: float, body: bytes) -> Answer:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log would stand between our lines
    try:
        grpc: Any = import_module("grpc")
    except ImportError as error:
        return Answer(Outcome.UNSUITABLE, _named(error))
    place = urlsplit(target.url).netloc or target.url
    compression = grpc.Compression.Gzip if target.compression == "gzip" else grpc.Compression.NoCompression
    if target.secure:
        authority, certificate, key = (_read(path) for path in target.certificates)
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        channel = grpc.secure_channel(place, credentials, compression=compression)
    else:
        channel = grpc.insecure_channel(place, compression=compression)
    with channel:
        export = channel.unary_unary(_METHODS[target.signal], request_serializer=bytes, response_deserializer=bytes)
        metadata = [(name.lower(), value) for name, value in target.headers.items()]
        try:
            said: bytes = export(body, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            return _status(error.code().name, error.details() or "")
    return Answer(Outcome.ANSWERS, body=said)


def _status(code: str, details: str) -> Answer:
    outcome = _CODES.get(code)
    told = details.lower()
    if outcome is None and code in ("UNAVAILABLE", "INTERNAL", "UNKNOWN"):
        outcome = next((found for some, found in _DETAILS if some in told), None)
        if outcome is not None:
            return Answer(outcome, code)
        outcome = Outcome.BUSY if code == "UNAVAILABLE" else None  # in words of whoever serves there
    return _refused(outcome or Outcome.FAILS, code, plain(details))


def _read(path: str) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as handle:
        return handle.read()


_SENDERS: Final[dict[str, Callable[[Target, float, bytes], Answer]]] = {HTTP: _post, GRPC: _call}
