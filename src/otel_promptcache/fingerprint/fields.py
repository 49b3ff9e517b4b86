"""The fields of a segment: where in its JSON a text stands, in the order in which it is written.

A segment that is a text and nothing else has one field, the empty path. Everything else is walked leaf by leaf, key
order as on the wire, within limits: a prompt built to be deep or endless costs no more than a large one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from otel_promptcache.model import Kind, Segment
from otel_promptcache.providers._wire import MARKERS, AsWritten, unmarked

Field = tuple[str | int, ...]
"""Keys and positions from a segment's value to one of its leaves; empty for the value itself."""

MAX_LEAVES: Final = 20_000
MAX_DEPTH: Final = 64
_LONGEST_INTEGER: Final = 10_000
"""Bits from which Python does not write a number in decimals."""


class Leaf(NamedTuple):
    """One scalar of a segment's value."""

    field: Field
    text: str


def plain_text(segment: Segment) -> str | None:
    """The text of a segment that is nothing else; None for everything that has fields."""
    value = segment.value
    if type(value) is str:
        return value
    if type(value) is not dict or segment.kind is not Kind.TEXT or type(value.get("text")) is not str:
        return None
    alone = len(value) - sum(name in value for name in MARKERS) == 2
    return value["text"] if alone else None


def leaves(segment: Segment) -> tuple[list[Leaf], bool]:
    """The leaves of a segment in wire order, and whether there were more than are looked at."""
    text = plain_text(segment)
    if text is not None:
        return [Leaf((), text)], False
    value = segment.value
    found: list[Leaf] = []
    for leaf in _walk(unmarked(value) if type(value) is dict else value):
        if len(found) >= MAX_LEAVES:
            return found, True
        found.append(leaf)
    return found, any(len(leaf.field) >= MAX_DEPTH for leaf in found)


def _walk(value: Any) -> Iterator[Leaf]:
    waiting: list[tuple[Field, Any]] = [((), value)]
    while waiting:
        field, item = waiting.pop()
        kind = type(item)
        if kind is str:
            yield Leaf(field, item)
        elif kind is dict and item and len(field) < MAX_DEPTH:
            waiting += [((*field, key), item[key]) for key in reversed(item)]
        elif kind is list and item and len(field) < MAX_DEPTH:
            waiting += [((*field, index), item[index]) for index in range(len(item) - 1, -1, -1)]
        else:
            yield Leaf(field, _scalar(item))


def _scalar(item: object) -> str:
    if item is None or item is True or item is False:
        return {None: "null", True: "true", False: "false"}[item]
    if type(item) is AsWritten:
        return item.text
    if type(item) is int:
        return str(item) if item.bit_length() < _LONGEST_INTEGER else hex(item)
    if type(item) is float:
        return repr(item)
    return "{}" if type(item) is dict else "[]" if type(item) is list else f"<{type(item).__name__}>"


def written(field: Field) -> bytes:
    """A field's path as bytes, to be hashed with its text."""
    return "\0".join(map(str, field)).encode("utf-8", "surrogatepass")
