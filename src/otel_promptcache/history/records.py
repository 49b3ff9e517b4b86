"""One request as the shared history keeps it: numbers, codes and keyed hashes, as bytes.

A record begins with the version of its meaning, so that two versions of us can share a server: a reader takes its own
version and the one before, and passes over what it does not know. Whatever else stands under a key of ours is
``Unreadable``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from math import isfinite
from typing import Any, Final, NamedTuple

from otel_promptcache.model import Kind, Link, Scope, Section

SCHEMA: Final = 1
"""Version of a record's meaning; readers accept this one and the one before."""
READABLE: Final = (SCHEMA, SCHEMA - 1)

DIGEST: Final = 8
"""Bytes kept of a segment's keyed digest."""
BEGINNING: Final = 19
"""Bytes by which two records are told to be of one request: schema, and the id, which is the first column."""
MAX_SEGMENTS: Final = 4096
"""Segments of one request that are kept; behind them only its size is."""
_PLACED: Final = struct.Struct(f"<{DIGEST}sBBhHI")


class Unreadable(ValueError):  # noqa: N818 - it says what the bytes are
    """Bytes that are no record of a version that this one reads."""


class Newer(Unreadable):
    """A record of a version that this one has not heard of: another worker's, and to be left alone."""


class Placed(NamedTuple):
    """One segment of a request that was sent."""

    digest: bytes
    section: Section
    kind: Kind
    speaker: int
    """Whose message it is, as far as the rules ask: see ``SPEAKERS``."""
    element: int
    role: int
    """Two bytes of the role's keyed digest."""
    size: int
    label: str = ""
    """The name of a parameter, the type of a tool that runs at the provider."""


SPEAKERS: Final = ("", "user", "tool")


class Record(NamedTuple):
    """One request. Times are seconds of the server's clock."""

    id: str
    at: float
    dialect: str
    scope: Scope
    """Provider and model; keyed digests of endpoint, credential and cache key."""
    route: str = ""
    """Keyed digest, as are the names below."""
    conversation: str = ""
    previous_id: str = ""
    conversation_id: str = ""
    response_id: str = ""
    lineage: str = ""
    link: Link | None = None
    length: int = 0
    """Segments."""
    leading: int = 0
    """Segments in front of the messages."""
    size: int = 0
    """Bytes of all segments."""
    element: int = 0
    """Place of the last segment's element."""
    marks: tuple[tuple[int, int, bool], ...] = ()
    """Breakpoints: length, lifetime in seconds, whether the application set it."""
    used: tuple[float | None, ...] = ()
    """When the entry at each breakpoint was written or last read, once the response is over; None for no entry."""
    tokens: tuple[int, ...] = ()
    """Tokens up to each breakpoint, where a response told them, else 0."""
    live: int = 0
    """Leading segments that it was expected to read."""
    automatic: bool = False
    retention: int | None = None
    began: float | None = None
    ended: float | None = None
    failed: bool = False
    total: int | None = None
    """Input tokens, as are the next two."""
    read: int | None = None
    write: int | None = None
    server_tools: int = 0
    served: str = ""
    rewrites: int = 0
    frozen: int = 0
    adrift: int = 0
    segments: tuple[Placed, ...] = ()
    """The first segments, where they are kept."""


class _Column(NamedTuple):
    field: str
    name: str
    """In the bytes."""
    meaning: str


COLUMNS: Final = (
    _Column("id", "i", "Random id of the request"),
    _Column("at", "t", "When it was sent, by the server's clock"),
    _Column("dialect", "d", "API: `anthropic`, `openai_chat`, ..."),
    _Column("scope", "s", "Provider, model; keyed digests of endpoint, credential, cache key"),
    _Column("route", "r", "Keyed digest of the route"),
    _Column("conversation", "c", "Keyed digest of the conversation's name"),
    _Column("previous_id", "p", "Keyed digest of the id of the response that it continues"),
    _Column("conversation_id", "ci", "Keyed digest of the id of the conversation that the provider holds"),
    _Column("response_id", "ri", "Keyed digest of the id of its response"),
    _Column("lineage", "l", "Random id of the conversation, as inferred"),
    _Column("link", "k", "Trace id and span id"),
    _Column("length", "n", "Segments"),
    _Column("leading", "f", "Segments in front of the messages"),
    _Column("size", "z", "Bytes of the prompt"),
    _Column("element", "e", "Place of the last message"),
    _Column("marks", "m", "Breakpoints: place, lifetime, whether the application set it"),
    _Column("used", "u", "When the entry at each was written or last read"),
    _Column("tokens", "uk", "Tokens up to each, where known"),
    _Column("live", "g", "Leading segments that it was expected to read"),
    _Column("automatic", "a", "Whether the provider caches without a breakpoint"),
    _Column("retention", "x", "Lifetime that was asked for, in seconds"),
    _Column("began", "b", "When the response began"),
    _Column("ended", "o", "When it ended"),
    _Column("failed", "w", "Whether the request failed"),
    _Column("total", "ut", "Input tokens"),
    _Column("read", "ur", "Tokens read from the cache"),
    _Column("write", "uw", "Tokens written to it"),
    _Column("server_tools", "us", "Uses of tools that run at the provider"),
    _Column("served", "v", "Model that answered"),
    _Column("rewrites", "q", "Requests in a row that rewrote the history"),
    _Column("frozen", "y", "Requests in a row whose last breakpoint stood still"),
    _Column("adrift", "ya", "Requests in a row that marked only what did not come again"),
)
"""What is kept of a request besides its segments; the documentation is made from it."""

SEGMENT_COLUMNS: Final = (
    ("digest", f"{DIGEST} bytes of a keyed digest of role and content"),
    ("section, kind", "Tools, system, messages, ...; text, image, tool result, ..."),
    ("speaker", "`user`, `tool` or another"),
    ("element", "Place in its section"),
    ("role", "2 bytes of a keyed digest of the role"),
    ("size", "Bytes"),
    ("label", "Name of a parameter of the API, or type of a tool that runs at the provider"),
)
"""What is kept of a segment."""


def dumped(record: Record, *, segments: bool = True) -> bytes:
    """A record as bytes, with or without its segments."""
    defaults = Record._field_defaults
    said: dict[str, Any] = {}
    for column in COLUMNS:
        value = getattr(record, column.field)
        if column.field not in defaults or value != defaults[column.field]:
            said[column.name] = value
    kept = record.segments[:MAX_SEGMENTS] if segments else ()
    labels = {str(at): one.label for at, one in enumerate(kept) if one.label}
    if labels:
        said["lb"] = labels
    head = json.dumps(said, separators=(",", ":")).encode()
    return b"%c%b\0%b" % (SCHEMA, head, b"".join(map(_packed, kept)))


def _packed(one: Placed) -> bytes:
    return _PLACED.pack(
        one.digest,
        one.section << 4 | one.kind,
        one.speaker,
        min(one.element, 0x7FFF),
        one.role,
        min(one.size, 2**32 - 1),
    )


def loaded(data: bytes, least: int = 1) -> Record:
    """The record in these bytes, of a request of as many segments at least. Raises Unreadable."""
    if not data or data[0] not in READABLE:
        raise (Newer if data[:1] == b"%c" % (SCHEMA + 1) else Unreadable)("schema")
    try:
        head, _, packed = data[1:].partition(b"\0")
        said = json.loads(head)
        values = {column.field: said[column.name] for column in COLUMNS if column.name in said}
        values["scope"] = Scope(*map(str, values["scope"]))
        if values.get("link") is not None:
            values["link"] = Link(*map(int, values["link"]))
        values["marks"] = tuple((int(a), int(b), bool(c)) for a, b, c in values.get("marks", ()))
        values["used"] = tuple(None if one is None else float(one) for one in values.get("used", ()))
        values["tokens"] = tuple(values.get("tokens", ()))
        values["segments"] = tuple(_unpacked(packed, said.get("lb", {})))
        return _checked(Record(**values), least)
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, struct.error) as error:
        raise Unreadable(type(error).__name__) from None


def _unpacked(data: bytes, labels: dict[str, str]) -> Iterator[Placed]:
    for at, (digest, what, speaker, element, role, size) in enumerate(_PLACED.iter_unpack(data)):
        yield Placed(
            digest, Section(what >> 4), Kind(what & 15), speaker, element, role, size, str(labels.get(str(at), ""))
        )


def _checked(record: Record, least: int) -> Record:
    """A record whose values are of the kinds that they should be: it is computed with."""
    numbers: list[object] = [record.at, record.length, record.leading, record.size, record.element, record.live]
    numbers += [record.server_tools, record.rewrites, record.frozen, record.adrift, *record.tokens]
    absent: list[object] = [record.began, record.ended, record.total, record.read, record.write, record.retention]
    numbers += [one for one in (*absent, *record.used) if one is not None]
    texts = [record.id, record.dialect, record.route, record.conversation, record.lineage, record.served]
    texts += [record.previous_id, record.conversation_id, record.response_id]
    if not set(map(type, numbers)) <= {int, float} or not all(map(isfinite, numbers)):  # type: ignore[arg-type]
        raise Unreadable("no number")
    if set(map(type, texts)) != {str}:
        raise Unreadable("no text")
    if not least <= record.length < 1_000_000 or len(record.segments) > record.length:
        raise Unreadable("length")
    if any(not 0 < length <= record.length for length, _, _ in record.marks):
        raise Unreadable("marks")
    return record
