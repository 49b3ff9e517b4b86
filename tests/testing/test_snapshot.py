"""Snapshots: what is kept of a prefix, how two compare, and the file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from otel_promptcache.fingerprint import HashKey
from otel_promptcache.providers import BY_NAME
from otel_promptcache.semconv import Cause, Reason
from otel_promptcache.snapshot import (
    Prefix,
    Snapshot,
    SnapshotError,
    compare,
    difference,
    differences,
    dumped,
    loaded,
    searched,
    take,
)

KEY = HashKey("snapshot")
PRODUCTION = HashKey("production")
MODEL = "claude-sonnet-4-6"
FOUR = "one\ntwo\nIt is 2026-11-21 14:05.\nfour"


def prefix(system: str, *, production: bool = True, model: str = MODEL, **more: Any) -> Prefix:
    """The prefix of an Anthropic request with this system prompt."""
    block = {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}
    body = {"model": model, "system": [block], "messages": [{"role": "user", "content": "words"}], **more}
    prompt = BY_NAME["anthropic"].prompt(body)
    return searched(take(prompt, "anthropic", KEY, PRODUCTION if production else None), prompt)


def marked(*lifetimes: int, text: str = FOUR) -> Prefix:
    """The prefix of a request with a system block for each lifetime of its breakpoint in seconds, 0 for none."""
    control = {0: None, 300: {"type": "ephemeral"}, 3600: {"type": "ephemeral", "ttl": "1h"}}
    blocks = [
        {"type": "text", "text": f"{number} {text}"} | ({"cache_control": control[ttl]} if ttl else {})
        for number, ttl in enumerate(lifetimes)
    ]
    body = {"model": MODEL, "system": blocks, "messages": [{"role": "user", "content": "words"}]}
    return take(BY_NAME["anthropic"].prompt(body), "anthropic", KEY, PRODUCTION)


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "description": f"Does {name}.", "input_schema": {"type": "object"}} for name in names]


class TestDifference:
    """Where two prefixes part, found by hashes alone."""

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            (prefix(FOUR), prefix(FOUR.replace("14:05", "15:17")), ("system_changed", "system[0]", "timestamp", 3)),
            (prefix(FOUR), prefix(FOUR.replace("two", "too")), ("system_changed", "system[0]", "edited", 2)),
            (prefix(FOUR), prefix(FOUR.replace("two", "two ")), ("system_changed", "system[0]", "whitespace", 2)),
            (prefix(FOUR), prefix("four\n" + FOUR[:-5]), ("system_changed", "system[0]", "reordered", 1)),
            (prefix(FOUR), prefix(FOUR, tools=tools("a")), ("tools_changed", "tools[0]", "added", None)),
            (
                prefix(FOUR, tools=tools("a", "b")),
                prefix(FOUR, tools=tools("a")),
                ("tools_changed", "tools[1]", "removed", None),
            ),
            (
                prefix(FOUR, tools=tools("a", "b")),
                prefix(FOUR, tools=tools("b", "a")),
                ("tools_changed", "tools[0]", "reordered", None),
            ),
            (
                prefix(FOUR),
                prefix(FOUR, tool_choice={"type": "any"}),
                ("parameters_changed", "tool_choice", "tool_choice", None),
            ),
            (prefix(FOUR), prefix(FOUR, model="claude-opus-5-5"), ("model_changed", "model", None, None)),
        ],
    )
    def test_place_and_kind(self, old: Prefix, new: Prefix, expected: tuple[Any, ...]) -> None:
        """As the diagnosis would say of two requests, also after a way through the file."""
        for before, after in ((old, new), tuple(kept(old, new))):
            found = difference(before, after)
            assert found is not None
            assert (found.reason, found.path, found.cause, found.line) == expected

    def test_messages_are_no_part_of_it(self) -> None:
        """Whatever is asked."""
        asked = [{"role": "user", "content": "other words"}]
        assert difference(prefix(FOUR), prefix(FOUR, messages=asked)) is None

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ([300], [0], ("breakpoint_missing", "system[0].cache_control", "removed")),
            ([0], [300], ("parameters_changed", "system[0].cache_control", "added")),
            ([300], [3600], ("parameters_changed", "system[0].cache_control.ttl", None)),
            ([300, 300], [300, 0], ("breakpoint_missing", "system[1].cache_control", "removed")),
            ([0, 300], [300, 0], ("breakpoint_missing", "system[1].cache_control", "removed")),
        ],
        ids=["removed", "added", "another lifetime", "one of two", "moved to the front"],
    )
    def test_breakpoints(self, old: list[int], new: list[int], expected: tuple[Any, ...]) -> None:
        """The text is the same, and nothing is cached any more: a marker that is gone is told before all others."""
        for before, after in ((marked(*old), marked(*new)), tuple(kept(marked(*old), marked(*new)))):
            assert not before.same_as(after)
            found = difference(before, after)
            assert found is not None
            assert (found.reason, found.path, found.cause) == expected

    def test_a_breakpoint_that_goes_with_its_text(self) -> None:
        """Is a difference of its own: the text is written again once, the marker is missed every time."""
        found = differences(marked(300), marked(0, text="other words"))
        assert [one.reason for one in found] == ["system_changed", "breakpoint_missing"]
        assert [one.reason for one in differences(marked(300), marked(300, text="other"))] == ["system_changed"]
        assert differences(marked(300), marked(300)) == []

    @given(some.lists(some.text("abc ", min_size=1, max_size=6), min_size=1, max_size=8), some.integers(min_value=0))
    def test_the_line_is_the_one_that_was_edited(self, lines: list[str], at: int) -> None:
        """Whichever line is rewritten, that one is named."""
        at %= len(lines)
        edited = [*lines[:at], lines[at] + "X", *lines[at + 1 :]]
        found = difference(prefix("\n".join(lines)), prefix("\n".join(edited)))
        assert found is not None
        assert (found.reason, found.cause, found.line) == (Reason.SYSTEM_CHANGED, Cause.EDITED, at + 1)


def kept(*prefixes: Prefix) -> list[Prefix]:
    """Prefixes that have been written and read."""
    return list(loaded(dumped(Snapshot("key", {"test": prefixes}))).tests["test"])


class TestCompare:
    """The prefixes of a test against those of its snapshot."""

    def test_additional_and_missing_ones(self) -> None:
        """Are mismatches too."""
        one, two = prefix(FOUR), prefix("other")
        assert compare([one], [one]) == []
        assert [(found.number, found.old, found.new) for found in compare([one], [one, two])] == [(2, None, two)]
        assert [(found.number, found.old, found.new) for found in compare([one, two], [one])] == [(2, two, None)]

    def test_calls_that_run_at_once_come_in_any_order(self) -> None:
        """What is the same belongs together wherever it stands, so that only what is new is blamed."""
        one, two, three = prefix(FOUR), prefix("other"), prefix("third")
        assert compare([one, two], [two, one]) == []
        assert [(found.number, found.old, found.new) for found in compare([one, two], [three, one, two])] == [
            (1, None, three)
        ]
        (found,) = compare([one, two], [two, edited := prefix(FOUR.replace("two", "too"))])
        assert (found.number, found.old, found.new) == (2, one, edited)

    def test_the_same_text_belongs_together(self) -> None:
        """Though it has lost its breakpoint."""
        (found,) = compare([marked(300), prefix("other")], [prefix("other"), marked(0)])
        assert found.difference is not None
        assert found.difference.reason is Reason.BREAKPOINT_MISSING


class TestFile:
    """JSON, hashes only."""

    @given(some.text(max_size=200), some.text(max_size=40))
    def test_what_is_written_is_read(self, system: str, name: str) -> None:
        """Every text, every name."""
        snapshot = Snapshot(tests={name: [prefix(system), prefix(system, tools=tools("a"), production=False)]})
        assert loaded(dumped(snapshot)) == snapshot

    def test_no_text(self) -> None:
        """Neither of the system prompt, nor of tools or their names, nor a key of the deployment."""
        said = dumped(Snapshot(tests={"test": [prefix("secret words\n" * 3, tools=tools("secret_tool"))]}))
        assert "secret" not in said
        assert "production-key" not in said
        for row in json.loads(said)["tests"]["test"][0]["parts"]:
            assert set(row) <= {
                *("path", "section", "kind", "element", "item", "bytes", "digest"),
                *("label", "breakpoint", "loose", "lines", "times"),
            }

    def test_a_segment_is_a_line(self) -> None:
        """So that a review shows which of them changed."""
        before = dumped(Snapshot("key", {"test": [prefix(FOUR, tools=tools("a", "b"))]})).splitlines()
        after = dumped(Snapshot("key", {"test": [prefix(FOUR + "5", tools=tools("a", "b"))]})).splitlines()
        changed = [line for line, other in zip(before, after, strict=True) if line != other]
        assert len(changed) == 2  # the segment, and what production calls the prefix

    def test_digests_are_under_the_files_own_key(self) -> None:
        """Two files tell nothing about each other."""
        body = {"model": MODEL, "system": FOUR, "messages": []}
        one, two = (take(BY_NAME["anthropic"].prompt(body), "anthropic", HashKey(key)) for key in ("a", "b"))
        assert one.parts[0].digest != two.parts[0].digest
        assert one.parts[0].detail != two.parts[0].detail

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", "<<<<<<< HEAD\n{}", '{"format": 1, "key": "k", "tests": {"t": [{}]}}', "null"],
    )
    def test_what_is_no_snapshot(self, text: str) -> None:
        """Is refused with what to do: most often a merge went wrong."""
        with pytest.raises(SnapshotError, match=r"is no snapshot .*--promptcache-update"):
            loaded(text, "file.json")

    def test_a_format_of_the_future(self) -> None:
        """Is refused by its number."""
        with pytest.raises(SnapshotError, match="has format 2, and this version reads format 1 only"):
            loaded('{"format": 2}')

    def test_what_production_calls_it_survives_a_machine_without_the_key(self) -> None:
        """As long as the prefix is the same."""
        snapshot = Snapshot("key", {"test": [prefix(FOUR)]})
        same = snapshot.updated({"test": [prefix(FOUR, production=False)]})
        other = snapshot.updated({"test": [prefix("other", production=False)]})
        assert same.tests["test"][0].production == prefix(FOUR).production
        assert other.tests["test"][0].production is None


def test_what_is_known_is_not_searched() -> None:
    """Lines that were there before are not what changes, however they look."""
    text = "Session 7f3a9c21-0b1d-4d6e-9f00-1a2b3c4d5e6f\nIt is 2026-11-21 14:05."
    prompt = BY_NAME["anthropic"].prompt({"model": MODEL, "max_tokens": 9, "system": text, "messages": []})
    whole = searched(taken := take(prompt, "anthropic", KEY), prompt).parts[-1].detail
    assert taken.parts[-1].detail is not None
    assert taken.parts[-1].detail.hints == ()
    assert whole is not None
    assert whole.hints == ((Cause.IDENTIFIER, (1,)), (Cause.TIMESTAMP, (2,)))
    rest = searched(taken, prompt, frozenset(whole.lines[:1])).parts[-1].detail
    assert rest is not None
    assert rest.hints == ((Cause.TIMESTAMP, (2,)),)
