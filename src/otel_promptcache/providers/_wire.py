"""What the dialects share: fast keys of wire values, and the list a prompt is built in."""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, Self

from otel_promptcache.model import Kind, Section, Segment, Segments, Usage, text_segment

MAX_COUNT: Final = 10**12
"""No prompt has as many tokens; beyond 64 bits a metric could not be exported, nor any other beside it."""

MAX_SEGMENTS: Final = 20_000
MAX_CHARACTERS: Final = 16 * 2**20
MAX_ITEMS: Final = 100_000
"""Of one object or list. Beyond any of these the fingerprint covers the beginning only and says ``truncated``."""

MAX_MARKS: Final = 100
"""Breakpoints, the last of them: no provider looks at more than 80."""

_RUN: Final = 8
"""Messages from which a run is kept as one."""

MARKERS: Final = frozenset({"cache_control", "prompt_cache_breakpoint"})
"""Fields that place a breakpoint: part of the request, never of the cached text."""

_MOST_LOOKED_AT: Final = 500
"""Objects and lists in which marks are looked for that are not where they are used: those of a few long messages."""
_MARKED_PARTS: Final = ("content", "output", "messages", "input", "system", "tools")

_NESTING: Final = ("content", "output")
"""Fields in which the result of a tool has parts of its own, which can be marked too."""


def structure(value: Any) -> bytes:
    """Bytes that are equal exactly when two wire values are; key order is significant, and so is the type of a number.

    Version 2 of marshal has neither back references nor interning flags, so its bytes depend on the value alone.
    """
    try:
        return marshal.dumps(value, 2)
    except ValueError:  # nested too deep, or an object that is not plain JSON
        return b"".join(_written(value))


def _written(value: Any) -> Iterator[bytes]:
    """The same for what marshal does not take, piece by piece and without recursion."""
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is dict:
            yield b"{%d" % len(item)
            waiting += [part for pair in reversed(item.items()) for part in reversed(pair)]
        elif kind is list or kind is tuple:
            yield b"[%d" % len(item)
            waiting += reversed(item)
        else:
            data = _scalar(item)
            yield b"%s%d:" % (kind.__name__.encode("utf-8", "surrogatepass"), len(data))
            yield data


def _scalar(item: Any) -> bytes:
    if isinstance(item, str):
        return str.encode(item, "utf-8", "surrogatepass")
    if type(item) is AsWritten:
        return item.text.encode()
    try:
        return marshal.dumps(item, 2)
    except ValueError:
        return repr_type(item).encode()


class AsWritten(float):
    """A number of a JSON text that Python would write in another way: `1e0` is not `1.0` to whoever reads the bytes."""

    __slots__ = ("text",)

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str


def bulk(value: object, depth: int = 4) -> int:
    """Characters of the strings in a value, a few levels deep: told before anything is copied or hashed. Too much where
    an object or a list has more items than are looked at."""
    if type(value) is str:
        return len(value)
    if not depth:
        return 0
    if isinstance(value, (dict, list)) and len(value) > MAX_ITEMS:
        return MAX_CHARACTERS + 1
    if type(value) is dict:
        return sum([bulk(item, depth - 1) for item in value.values()])
    return sum([bulk(item, depth - 1) for item in value]) if type(value) is list else 0


def repr_type(value: object) -> str:
    """A stand-in for what cannot be serialised. Its content is not read: that could run anybody's code."""
    return f"<{type(value).__name__}>"


def unmarked(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block without breakpoint fields, also those of parts nested in a tool's result."""
    if not MARKERS.isdisjoint(block):
        block = {name: value for name, value in block.items() if name not in MARKERS}
    for field in _NESTING:
        parts = block.get(field)
        if type(parts) is list and any(type(part) is dict and not MARKERS.isdisjoint(part) for part in parts):
            block = {**block, field: [unmarked(part) if type(part) is dict else part for part in parts]}
    return block


def marker(block: object, name: str) -> object | None:
    """The breakpoint field of a block or, where it has none, of the last part nested in it that does."""
    if type(block) is not dict:
        return None
    mark = block.get(name)
    if len(block) == 2:  # a type and a text, like most
        return mark
    if mark is None:
        for field in _NESTING:
            parts = block.get(field)
            if type(parts) is list:
                marks = (part.get(name) for part in reversed(parts) if type(part) is dict)
                mark = next((found for found in marks if found is not None), mark)
    return mark


def marks(body: Mapping[str, Any]) -> bool:
    """Whether a request body marks any place. Looks at so much of it, and nothing that would be used up by looking."""
    waiting: list[object] = [body]
    for _ in range(_MOST_LOOKED_AT):
        if not waiting:
            return False
        item = waiting.pop()
        if isinstance(item, Mapping):
            if any(isinstance(item.get(name), Mapping) for name in MARKERS):
                return True
            waiting += [item[name] for name in _MARKED_PARTS if name in item]
        elif type(item) is list:
            waiting += item
    return False


def text_of(block: object, types: frozenset[str]) -> str | None:
    """The text of a block that is nothing but text, else None. A string is such a block.

    ``{"type": "text", "text": t}`` and ``t`` are the same prompt, and so must have the same key.
    """
    if type(block) is str:
        return block
    if type(block) is dict:
        kind, text = block.get("type"), block.get("text")
        if type(text) is str and type(kind) is str and kind in types:
            return text if len(block) - sum(name in block for name in MARKERS) == 2 else None
    return None


class Builder:
    """Collects segments within the limits. One per request; not shared between threads."""

    __slots__ = ("characters", "segments", "text_only", "truncated")

    def __init__(self) -> None:
        self.segments = Segments()
        self.characters = 0
        self.truncated = False
        self.text_only = True

    @property
    def full(self) -> bool:
        """Whether nothing more goes in."""
        return self.characters > MAX_CHARACTERS or len(self.segments) >= MAX_SEGMENTS

    def limited(self, value: object) -> list[Any]:
        """``as_list``, as far as it can be of any use: somebody may have sent a million of nothing."""
        found = as_list(value)
        room = MAX_SEGMENTS + 1 - len(self.segments)
        if len(found) <= room:
            return found
        self.truncated = True
        return found[:room]

    def text(self, section: Section, element: int, item: int, role: str, text: str, kind: Kind = Kind.TEXT) -> None:
        """Adds a segment that is text and nothing else. Long conversations make hundreds of these for every call."""
        self.characters += len(text)
        if self.characters > MAX_CHARACTERS or len(self.segments) >= MAX_SEGMENTS:
            self.truncated = True
            return
        self.segments.append(text_segment(section, element, role, text, item, kind))

    def plain_messages(self, messages: list[Any], start: int) -> int:
        """Adds the messages from ``start`` on that are a role and a string and nothing else; returns where the run
        ends. This loop is most of what a long conversation costs that was sent before."""
        roles: list[str] = []
        texts: list[str] = []
        room = max(0, MAX_SEGMENTS - len(self.segments))
        try:
            for message in islice(messages, start, start + room):
                role, text = message["role"], message["content"]
                if type(text) is not str or type(role) is not str or len(message) != 2 or type(message) is not dict:
                    break
                roles.append(role)
                texts.append(text)
        except Exception:  # noqa: S110 - no such field, no dictionary, or somebody's own: nothing plain
            pass
        self.characters += sum(map(len, texts))
        end = start + len(texts)
        if self.characters > MAX_CHARACTERS or (len(texts) == room and end < len(messages)):
            self.truncated = True
            while self.characters > MAX_CHARACTERS and texts:
                self.characters -= len(texts.pop())
            self.characters = MAX_CHARACTERS + 1  # what follows stands behind a gap
            end = len(messages)
        if len(texts) >= _RUN:
            self.segments.add_run(start, roles[: len(texts)], texts)
        else:
            for index, text in enumerate(texts):
                self.segments.append(text_segment(Section.MESSAGES, start + index, roles[index], text))
        return end

    def block(self, section: Section, element: int, item: int, role: str, value: object, kind: Kind) -> None:
        """Adds a segment that is any JSON value."""
        if self.full or self.characters + bulk(value) > MAX_CHARACTERS:
            self.characters = MAX_CHARACTERS + 1  # what follows stands behind a gap
            self.truncated = True
            return
        data = structure(unmarked(value) if type(value) is dict else value)
        self.characters += len(data)
        if kind in _NOT_TEXT:
            self.text_only = False
        self.segments.append(Segment(hash((role, data)), section, kind, element, item, role, value))

    def parameter(self, name: str, value: object) -> None:
        """Adds a request parameter that belongs to the cache key; the segment's role is its name."""
        self.segments.append(parameter(name, value))

    def held(self, identity: str) -> None:
        """Adds the history that the server holds, known only by the id of the response it ends with."""
        self.segments.append(Segment(hash(("held", identity)), Section.HELD, Kind.HELD, 0, -1, "held", identity))


def parameter(name: str, value: object) -> Segment:
    """The segment of a request parameter that belongs to the cache key."""
    return Segment(hash((name, structure(value))), Section.PARAMETERS, Kind.PARAMETER, 0, -1, name, value)


_NOT_TEXT: Final = frozenset({Kind.IMAGE, Kind.DOCUMENT, Kind.AUDIO})


def as_list(value: object) -> list[Any]:
    """The value if it is a list, a list of it if it is anything but None, else nothing."""
    if type(value) is list:
        return value
    return [] if value is None else list(value) if isinstance(value, tuple) else [value]


def count(value: object) -> int | None:
    """A token count, or None for what is no count. Providers send null, strings and floats at times."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


WRITE_CLASSES: Final = ((300, "ephemeral_5m_input_tokens"), (3600, "ephemeral_1h_input_tokens"))
"""Lifetimes in seconds of what Anthropic writes, and the fields of ``cache_creation`` that count it. Gateways that
speak the dialects of OpenAI pass them on."""


def written_by_lifetime(split: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Tokens by lifetime of a ``cache_creation`` object."""
    told = [(ttl, count(split.get(field))) for ttl, field in WRITE_CLASSES]
    return tuple([(ttl, tokens) for ttl, tokens in told if tokens is not None])


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: missing levels read as missing fields."""
    return value if isinstance(value, dict) else {}


def string(value: object) -> str:
    """The value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def server_tool(value: object) -> str:
    """The type of a tool that runs at the provider, empty for the application's own."""
    kind = value.get("type") if type(value) is dict else None
    return kind if type(kind) is str and kind not in ("function", "custom") else ""


def in_context(usage: Usage, **said: str) -> Usage:
    """The usage with more said of what its price depends on (tier, speed, geo, processing, upstream), and each of its
    parts with the same: only the whole call is told where and how it ran. Searches stay with the first part."""
    whole = usage._replace(**said)  # type: ignore[arg-type]
    if not whole.parts:
        return whole
    shared = {name: getattr(whole, name) for name in ("tier", "speed", "geo", "processing", "upstream")}
    parts = [
        part._replace(usage=part.usage._replace(**shared, web_searches=0 if number else whole.web_searches, parts=()))
        for number, part in enumerate(whole.parts)
    ]
    return whole._replace(parts=tuple(parts))
