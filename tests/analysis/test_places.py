"""The place where two JSON values part: field, line and character, in render order."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from otel_promptcache.analysis.places import Place, parting

SAME = {"a": [1, {"text": "one\ntwo\nthree"}], "b": None}


@pytest.mark.parametrize(
    ("old", "new", "path", "offset", "line"),
    [
        ("Grüße aus Köln", "Grüße aus Kyoto", (), 11, 1),
        ({"text": "eins\nzwei\ndrei"}, {"text": "eins\nzwo\ndrei"}, ("text",), 7, 2),
        ({"text": "ends"}, {"text": "ends\n"}, ("text",), 4, 1),
        ({"a": 1, "b": "x"}, {"a": 2, "b": "y"}, ("a",), None, None),
        ([{"x": "1"}, {"x": "2"}], [{"x": "1"}, {"x": "3"}], (1, "x"), 0, 1),
        # Keys in another order part at the object; a key more or less parts at the key.
        ({"s": {"a": 1, "b": 2}}, {"s": {"b": 2, "a": 1}}, ("s",), None, None),
        ({"a": 1, "c": 3}, {"a": 1, "b": 2, "c": 3}, ("b",), None, None),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 3}, ("b",), None, None),
        ([1, 2], [1, 2, 3], (2,), None, None),
        # True is not 1, and 1 is not 1.0: they are written otherwise.
        ({"strict": True}, {"strict": 1}, ("strict",), None, None),
        ({"n": 1}, {"n": 1.0}, ("n",), None, None),
        ("text", ["text"], (), None, None),
    ],
)
def test_places(old: Any, new: Any, path: tuple[Any, ...], offset: int | None, line: int | None) -> None:
    found = parting(old, new)
    assert found is not None
    assert (found.path, found.offset, found.line) == (path, offset, line)


def test_equal_values_do_not_part() -> None:
    assert parting(SAME, copy.deepcopy(SAME)) is None


def test_markers_are_no_difference() -> None:
    """A breakpoint that rolls along is the normal turn of a conversation."""
    marked = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    assert parting(marked, {"type": "text", "text": "x"}) is None


def test_depth_is_no_matter() -> None:
    """A request may be nested deeper than the interpreter can recurse."""
    deep: Any = "x"
    other: Any = "y"
    for _ in range(20_000):
        deep, other = [deep], [other]
    found = parting(deep, other)
    assert found is not None
    assert (len(found.path), found.offset) == (20_000, 0)


LEAVES = some.none() | some.booleans() | some.integers() | some.text(max_size=20)
VALUES = some.recursive(
    LEAVES, lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=5), inner, max_size=4)
)


@given(VALUES)
def test_a_value_never_parts_from_itself(value: Any) -> None:
    assert parting(value, copy.deepcopy(value)) is None


@given(some.text(max_size=200), some.text(max_size=200))
def test_the_character_is_the_first_that_differs(old: str, new: str) -> None:
    found = parting({"text": old}, {"text": new})
    if old == new:
        assert found is None
        return
    assert isinstance(found, Place)
    at = found.offset
    assert at is not None
    assert old[:at] == new[:at]
    assert old[at : at + 1] != new[at : at + 1]
    assert found.line == 1 + new[:at].count("\n")
