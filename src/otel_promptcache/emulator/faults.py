"""Failures on demand, by the header ``x-emulator-fault`` or at the end of a model's name: ``gpt-5.6-fault-429``.

Or ordered beforehand, for the next requests whoever sends them: ``Emulator.fail``, ``POST /_emulator/faults``.
``429*2`` fails only the first two attempts of a call, told by the retry counter that the SDKs send along.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

HEADER: Final = "x-emulator-fault"
RETRIES: Final = "x-stainless-retry-count"

_IN_MODEL: Final = re.compile(r"fault-([a-z0-9_]+(?:\*\d+)?)$")
_TIMES: Final = re.compile(r"([a-z0-9_]+)(?:\*(\d+))?")


class Fault(StrEnum):
    """What can go wrong."""

    RATE_LIMIT = "429"
    """Refused, with ``retry-after``."""
    SERVER_ERROR = "500"
    OVERLOADED = "529"
    HTML = "html"
    """A proxy's page instead of an answer, status 200."""
    HTML_502 = "html_502"
    TRUNCATE = "truncate"
    """The body ends half-way; a stream has no end event."""
    MALFORMED = "malformed"
    """Broken JSON; in a stream, one broken event in the middle."""
    NO_USAGE = "no_usage"
    """The field is not there."""
    NULL_USAGE = "null_usage"
    """The field is null."""
    STALL = "stall"
    """Silence: before a JSON answer, in the middle of a stream."""
    ERROR_EVENT = "error_event"
    """An error after the stream has begun; without a stream, an error body with status 200."""
    GZIP = "gzip"
    """A compressed body."""
    SLOW_HEADERS = "slow_headers"
    """The head of the answer is late, whatever follows."""
    EVICT = "evict"
    """Everything leaves the cache before the request is looked up."""
    COLD = "cold"
    """The request lands on a machine that has nothing cached, and leaves its entries there."""


_KNOWN: Final = frozenset(fault.value for fault in Fault)
OUTAGES: Final = frozenset({Fault.RATE_LIMIT, Fault.SERVER_ERROR, Fault.OVERLOADED})
PAGES: Final[dict[Fault, int]] = {Fault.HTML: 200, Fault.HTML_502: 502}
"""HTTP status of the faults that never reach the provider."""

PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"


def requested(headers: Mapping[str, str], model: str) -> Fault | None:
    """The fault that this attempt is to meet. A name that is none raises ``ValueError``."""
    named = _IN_MODEL.search(model)
    wish = headers.get(HEADER) or (named[1] if named else "")
    if not wish:
        return None
    parts = _TIMES.fullmatch(wish)
    if parts is None or parts[1] not in _KNOWN:
        raise ValueError(f"{HEADER}: unknown fault '{wish}'; known are {', '.join(Fault)}, each also with *times")
    retries = headers.get(RETRIES, "0")
    if parts[2] and retries.isdecimal() and int(retries) >= int(parts[2]):
        return None
    return Fault(parts[1])


def on_document(fault: Fault | None, document: dict[str, Any]) -> dict[str, Any]:
    """A response object, or the data of an event, without usage where the fault says so."""
    if fault not in (Fault.NO_USAGE, Fault.NULL_USAGE):
        return document
    changed = dict(document)
    for name in ("message", "response"):
        if isinstance(changed.get(name), dict):
            changed[name] = on_document(fault, changed[name])
    if "usage" in changed:
        changed["usage"] = None
        if fault is Fault.NO_USAGE:
            del changed["usage"]
    return changed


def on_body(fault: Fault | None, body: bytes) -> bytes:
    """A JSON body as it leaves."""
    match fault:
        case Fault.TRUNCATE:
            return body[: len(body) // 2]
        case Fault.MALFORMED:
            return body[:-1] + b',"'
        case Fault.GZIP:
            return gzip.compress(body, mtime=0)
    return body


def on_stream(fault: Fault | None, frames: Sequence[bytes], error: bytes) -> list[bytes]:
    """The frames of a stream as they leave; ``error`` is the format's error event."""
    middle = max(1, len(frames) // 2)
    match fault:
        case Fault.TRUNCATE:
            return list(frames[:middle])
        case Fault.ERROR_EVENT:
            return [*frames[:middle], error]
        case Fault.MALFORMED:
            name, _, _ = frames[middle].rpartition(b"data: ")
            return [*frames[:middle], name + b'data: {"type": \n\n', *frames[middle + 1 :]]
        case Fault.GZIP:
            return _compressed(frames)
    return list(frames)


def _compressed(frames: Sequence[bytes]) -> list[bytes]:
    """One gzip stream, flushed after every frame as a proxy does."""
    deflate = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    flushed = [deflate.compress(frame) + deflate.flush(zlib.Z_SYNC_FLUSH) for frame in frames]
    return [*flushed, deflate.flush()]
