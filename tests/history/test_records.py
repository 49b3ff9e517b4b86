"""Requests as bytes in a server that anybody may write to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_promptcache.history.records import COLUMNS, SCHEMA, Newer, Placed, Record, Unreadable, dumped, loaded
from otel_promptcache.model import Kind, Link, Scope, Section

WHOLE = Record(
    "id",
    1.5,
    "anthropic",
    Scope("anthropic", "e", "c", "claude-sonnet-4-6", "k"),
    route="r",
    link=Link(2**127, 2**63),
    length=2,
    leading=1,
    size=70,
    element=3,
    marks=((1, 300, True),),
    began=2.0,
    ended=3.0,
    total=2000,
    read=1000,
    segments=(
        Placed(b"12345678", Section.TOOLS, Kind.TOOL, 0, 0, 7, 20, "web_search_20250305"),
        Placed(b"abcdefgh", Section.MESSAGES, Kind.TEXT, 1, 3, 9, 50),
    ),
)


def test_a_record_comes_back_as_it_was() -> None:
    assert loaded(dumped(WHOLE)) == WHOLE
    assert loaded(dumped(WHOLE, segments=False)) == WHOLE._replace(segments=())


def test_every_column_is_a_field() -> None:
    """The documentation is made from the columns: nothing may be kept that is not among them."""
    assert {column.field for column in COLUMNS} | {"segments"} == set(Record._fields)
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


def test_this_schema_and_the_one_before_are_read() -> None:
    """Two versions of us share a server: the newer one reads both, the older one passes over what is newer."""
    data = dumped(WHOLE)
    assert loaded(bytes([SCHEMA - 1]) + data[1:]) == WHOLE
    with pytest.raises(Newer):
        loaded(bytes([SCHEMA + 1]) + data[1:])


def test_a_field_that_a_later_version_added_is_passed_over() -> None:
    data = dumped(WHOLE)
    assert loaded(data.replace(b'{"i":', b'{"new":[1],"i":', 1)) == WHOLE


@given(st.binary(max_size=200))
def test_garbage_is_unreadable(data: bytes) -> None:
    for garbage in (data, bytes([SCHEMA]) + data, dumped(WHOLE)[: len(data) % len(dumped(WHOLE))]):
        with pytest.raises(Unreadable):
            loaded(garbage)


@given(st.integers(0, len(dumped(WHOLE)) - 1), st.integers(0, 255))
def test_a_damaged_record_is_unreadable_or_a_record(at: int, byte: int) -> None:
    """Whatever is read can be computed with."""
    data = bytearray(dumped(WHOLE))
    data[at] = byte
    try:
        found = loaded(bytes(data))
    except Unreadable:
        return
    assert isinstance(found.at, int | float)
    assert len(found.segments) <= found.length
    assert all(0 < length <= found.length for length, _, _ in found.marks)
