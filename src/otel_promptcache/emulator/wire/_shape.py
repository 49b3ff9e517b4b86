"""What the fields and messages of a request have to look like: one walk, and one table for each format.

A flaw is found here and worded by the format, in its provider's error body.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, NamedTuple

Place = tuple[str | int, ...]
"""Names and indices from the body inwards."""

TYPE_NAMES: Final[dict[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "decimal",
    list: "array",
    dict: "object",
    type(None): "null value",
}


class Problem(Enum):
    """What is wrong with a place."""

    MISSING = auto()
    TYPE = auto()
    VALUE = auto()


class Flaw(NamedTuple):
    """The first thing that a provider would name."""

    place: Place
    problem: Problem
    wanted: Sequence[str] = ()
    """Names of types, or values, that could stand there."""
    given: object = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The messages of a format."""

    field: str
    roles: tuple[str, ...]
    parts: frozenset[str]
    """Types of the parts of a content."""
    items: frozenset[str] = frozenset()
    """Types of what may stand beside messages and has no role."""
    silent: frozenset[str] = frozenset()
    """Roles that may have no content."""


def fields(body: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> Iterator[Flaw]:
    """Fields that are given and of another type than the table says."""
    for name, allowed in types.items():
        value = body.get(name)
        if value is not None and type(value) not in allowed:
            yield _type((name,), value, *allowed)


def messages(items: Sequence[object], shape: Shape) -> Iterator[Flaw]:
    """What is no message, its role, its content and the parts of that."""
    for index, message in enumerate(items):
        at: Place = (shape.field, index)
        if type(message) is not dict:
            yield _type(at, message, dict)
            continue
        kind, role = message.get("type"), message.get("role")
        if shape.items and "role" not in message:
            yield from _one_of((*at, "type"), kind, shape.items)
            continue
        yield from _one_of((*at, "role"), role, shape.roles)
        content = message.get("content")
        if type(content) is list:
            yield from parts((*at, "content"), content, shape.parts)
        elif content is None and role in shape.silent:
            continue
        elif "content" not in message:
            yield Flaw((*at, "content"), Problem.MISSING)
        elif type(content) is not str:
            yield _type((*at, "content"), content, str, list)


def parts(at: Place, listed: Sequence[object], types: frozenset[str]) -> Iterator[Flaw]:
    """Objects with a type that is known, also inside of a tool's result."""
    for number, part in enumerate(listed):
        if type(part) is not dict:
            yield _type((*at, number), part, dict)
            continue
        yield from _one_of((*at, number, "type"), part.get("type"), types)
        inner = part.get("content")
        if part.get("type") == "tool_result" and inner is not None:
            if type(inner) is list:
                yield from parts((*at, number, "content"), inner, types)
            elif type(inner) is not str:
                yield _type((*at, number, "content"), inner, str, list)


def _one_of(at: Place, value: object, allowed: Sequence[str] | frozenset[str]) -> Iterator[Flaw]:
    if value is None:
        yield Flaw(at, Problem.MISSING)
    elif type(value) is not str:
        yield _type(at, value, str)
    elif value not in allowed:
        yield Flaw(at, Problem.VALUE, sorted(allowed), value)


def _type(at: Place, value: object, *allowed: type) -> Flaw:
    return Flaw(at, Problem.TYPE, [TYPE_NAMES[one] for one in allowed], value)
