"""The change journal: what kind of change a route's stable prefix has seen, told once, and what is no change."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logged import ours

from otel_promptcache import fingerprint
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.journal import HOUR, Change, Journal, Where
from otel_promptcache.model import Link, Section
from otel_promptcache.providers import anthropic
from otel_promptcache.semconv import Cause, Pattern, Reason

KEY = HashKey("the fleet's")
CHAT = Where("/chat", "anthropic", "claude-sonnet-4-6")
RULES = "You answer questions about the garden.\nBe brief.\nNever guess.\nName your sources.\n"
A, B, C = (RULES + f"Greet with {word}." for word in ("hello", "good day", "hi there"))
OTHER = "Translate what you are given into Latin, word by word, and keep the line breaks.\nSay nothing else.\n"
FIND = {"name": "find", "description": "Finds plants by their names and by their colours.", "input_schema": {}}
KEEP = {"name": "keep", "description": "Keeps a note of what has been found so far.", "input_schema": {}}


class Told(list[Change]):
    """A journal's changes, and the calls that it is told of."""

    def __init__(self, file: Path | None = None, key: HashKey = KEY) -> None:
        super().__init__()
        self.key = key
        self.journal = Journal(key, self.append, str(file or ""))
        self.number = 0

    def call(
        self,
        system: Any,
        *,
        where: Where = CHAT,
        at: float | None = None,
        service: str = "1",
        name: Any = ("", ""),
        **body: Any,
    ) -> None:
        self.number += 1
        prompt = anthropic.prompt({"model": where.model, "system": system, **body})
        leading = [(one.section, self.key.digest(one.role, fingerprint.canonical(one))) for one in prompt.segments]
        digest = ",".join(fingerprint.identity(pair for pair in leading if pair[0] <= Section.SYSTEM))
        now = 100.0 * self.number if at is None else at
        if not self.journal.settled(where, digest, now):
            link = Link(self.number, self.number)
            self.journal.saw(where, digest, prompt, now=now, service=service, name=name, link=link)

    def calls(self, *systems: str, **more: Any) -> None:
        for system in systems:
            self.call(system, **more)

    @property
    def patterns(self) -> list[Pattern]:
        return [change.pattern for change in self]


# --- Patterns -----------------------------------------------------------------------------------------------

SEQUENCES = [
    ("nothing changes", [A] * 9, []),
    ("one edit", [A, A, B, B, B, B, B], [Pattern.ONCE]),
    ("and another", [A, A, B, B, B, B, C, C, C, C], [Pattern.ONCE, Pattern.ONCE]),
    ("two at the same time", [A, A, B, A, B, A, B, B, A], [Pattern.ROLLOUT]),
    ("one edit that turns out to be a roll-out", [A, B, B, B, A, B, A], [Pattern.ONCE, Pattern.ROLLOUT]),
    ("a look at another version", [A, B, A, A, A, A, A], []),
    ("and back", [*[A] * 9, *[B] * 9, *[A] * 9], [Pattern.ONCE, Pattern.ONCE]),
    ("back by two versions", [*[A] * 9, *[B] * 9, *[C] * 9, *[A] * 9], [Pattern.ONCE] * 3),
    ("to and fro", [*[A] * 9, *[B] * 9, *[A] * 9, *[B] * 9, *[C] * 9], [Pattern.ONCE] * 4),
    ("a roll-out that ends", [A, A, B, A, B, A, *[B] * 99, *[C] * 9], [Pattern.ROLLOUT, Pattern.ONCE]),
    ("a roll-out, and back", [A, A, B, A, B, A, *[B] * 120, *[A] * 9], [Pattern.ROLLOUT, Pattern.ONCE]),
    ("a roll-out in long rows", [A, A, B, A, *[B] * 20, *[A] * 20, *[B] * 20, *[A] * 20, B, A, B], [Pattern.ROLLOUT]),
    ("every request", [RULES + f"Request {n}." for n in range(9)], [Pattern.EVERY_REQUEST]),
    ("every request but the first ones", [A, A, *(RULES + f"Request {n}." for n in range(9))], [Pattern.EVERY_REQUEST]),
    (
        "every other request",
        [text for n in range(9) for text in (A, RULES + f"Request {n}.")],
        [Pattern.EVERY_REQUEST],
    ),
    (
        "until it comes to rest",
        [*(RULES + f"{n}." for n in range(9)), A, A, A, A, B, B, B],
        [Pattern.EVERY_REQUEST, Pattern.ONCE],
    ),
    ("another agent", [A, OTHER, A, OTHER, OTHER, A, A, OTHER], []),
    ("another agent that changes", [A, OTHER, OTHER + "!", A, OTHER + "!", OTHER + "!", A], [Pattern.ONCE]),
]


@pytest.mark.parametrize(("systems", "expected"), [case[1:] for case in SEQUENCES], ids=[case[0] for case in SEQUENCES])
def test_patterns(systems: list[str], expected: list[Pattern]) -> None:
    """Told when it is clear, and once."""
    told = Told()
    told.calls(*systems)
    assert told.patterns == expected


def test_a_version_after_a_roll_out_is_told_against_what_was_rolled_out() -> None:
    """Else the wrong deploy would be blamed."""
    told = Told()
    told.calls(A, A, service="1")
    told.calls(B, A, B, A, *[B] * 20, service="2")
    told.calls(C, C, C, service="3")
    assert [(change.old.service, change.new.service) for change in told] == [("1", "2"), ("2", "3")]


def test_what_is_back_for_good_costs_a_look_up() -> None:
    """As what was never gone."""
    told = Told()
    told.calls(*[A] * 5, *[B] * 5, *[C] * 5, *[A] * 5)
    digest = told.journal._routes[CHAT].strands[0].current.digest
    assert told.journal.settled(CHAT, digest, 1e9)


def test_a_busy_route_is_looked_at_now_and_then() -> None:
    """Once it is known that every request has a version of its own: comparing them all would cost more than it says."""
    told = Told()
    for number in range(500):
        told.call(RULES + f"Request {number}.", at=number / 10)
    assert told.patterns == [Pattern.EVERY_REQUEST]
    assert len(told.journal._routes[CHAT].strands[0].versions) <= 5


def test_where_and_what() -> None:
    """The place and kind of the change, who brought it, the first call that had it."""
    told = Told()
    told.calls(A, A, service="1.4", name=("greeter", "7"))
    told.calls(B, B, B, B, service="1.5", name=("greeter", "8"))
    (change,) = told
    assert change.where == CHAT
    assert change.difference is not None
    assert change.difference[:4] == (Reason.SYSTEM_CHANGED, "system", Cause.EDITED, 5)
    assert (change.old.service, change.new.service) == ("1.4", "1.5")
    assert (change.old.prompt_version, change.new.prompt_version) == ("7", "8")
    assert (change.new.link, change.new.at) == (Link(3, 3), 300.0)
    assert change.old.digest != change.new.digest


CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], tuple[Reason, str, Cause | None]]] = [
    ("tools", {"tools": [FIND]}, {"tools": [FIND, KEEP]}, (Reason.TOOLS_CHANGED, "tools[1]", Cause.ADDED)),
    ("order", {"tools": [FIND, KEEP]}, {"tools": [KEEP, FIND]}, (Reason.TOOLS_CHANGED, "tools[0]", Cause.REORDERED)),
    (
        "effort",
        {},
        {"output_config": {"effort": "low"}},
        (Reason.PARAMETERS_CHANGED, "output_config.effort", Cause.REASONING_EFFORT),
    ),
]


@pytest.mark.parametrize(
    ("before", "after", "expected"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES]
)
def test_sections(before: Any, after: Any, expected: Any) -> None:
    """Everything in front of the messages is the prefix."""
    told = Told()
    for body in (before, before, after, after, after):
        told.call(A, **body)
    (change,) = told
    assert change.difference is not None
    assert change.difference[:3] == expected


def test_a_prompt_of_one_line() -> None:
    """Hashes cannot show which words of it stayed; that it is as long as it was says enough."""
    told = Told()
    told.calls(*["You are a gardener. " * 20 + word for word in ("a", "a", "b", "b", "b")])
    assert told.patterns == [Pattern.ONCE]


def test_names_are_what_counts() -> None:
    """Two prompts that the application names alike are one, however different; two names are two."""
    told = Told()
    for name in ("one", "one", "two", "two", "two"):
        told.call(A if name == "one" else B, name=(name, "1"))
    assert told.patterns == []
    told.calls(OTHER, OTHER, OTHER, name=("one", "2"))
    assert told.patterns == [Pattern.ONCE]


def test_routes_and_models_are_apart() -> None:
    told = Told()
    for route in ("/chat", "/mail", "/news"):
        for model in ("claude-sonnet-4-6", "claude-opus-5"):
            told.calls(*[RULES + route + model] * 4, where=Where(route, "anthropic", model))
    assert told.patterns == []


def test_calls_an_hour() -> None:
    """Of the hour before, where there is one: the current one has hardly begun."""
    told = Told()
    for number in range(120):
        told.call(A, at=1 + number * HOUR / 100)
    for number in range(3):
        told.call(B, at=1 + 1.2 * HOUR + number)
    assert [change.calls_per_hour for change in told] == [100]


# --- Bounds -------------------------------------------------------------------------------------------------


def agent(number: int, greeting: str = "hello") -> str:
    """The system prompt of one of many agents: they have nothing in common."""
    return "\n".join(hashlib.md5(f"{number} {line}".encode()).hexdigest() for line in range(number % 9 + 3)) + greeting


def test_memory_is_bounded() -> None:
    """A route for every request: some thousand are known, and no more; the newest are, however many there were."""
    told = Told()
    for number in range(3000):
        told.call(RULES + str(number), where=Where(f"/{number}", "anthropic", "m"))
        told.call(A)
    told.calls(B, B, B)
    assert len(told.journal._known) <= 4096
    assert len(told.journal._routes) <= 1024
    assert told.patterns == [Pattern.ONCE]


def test_every_digest_that_a_route_still_has_is_known() -> None:
    """Were one forgotten that its route has, each call with it would seem to bring a new version."""
    told = Told()
    for number in range(600):
        where = Where(f"/{number}", "anthropic", "m")
        for version in range(8):
            told.calls(*[RULES + f"Version {version}."] * 3, where=where)
    journal = told.journal
    held = [one.digest for route in journal._routes.values() for strand in route.strands for one in strand.versions]
    assert len(held) == len(journal._known) <= 4096
    assert set(told.patterns) == {Pattern.ONCE}


def test_a_route_of_many_agents() -> None:
    """It tells some apart; for one more it forgets who was silent for longest, and is not asked at every call."""
    told = Told()
    for number in range(100):
        told.calls(agent(0), agent(number + 1), at=number * 10.0)
    assert len(told.journal._routes[CHAT].strands) == 16
    for minute, greeting in enumerate(["good day"] * 3, start=20):
        told.call(agent(0, greeting), at=minute * 60.0)
    assert told.patterns == [Pattern.ONCE]


@given(st.lists(st.sampled_from([A, B, C, OTHER]), max_size=40))
def test_any_sequence(systems: list[str]) -> None:
    """A pair of versions is told of twice at most, no version is told to have become itself, and the order in which
    calls come decides alone."""
    one, two = Told(), Told()
    one.calls(*systems)
    two.calls(*systems)
    assert one.patterns == two.patterns
    pairs = [(change.old.digest, change.new.digest) for change in one]
    assert all(old != new for old, new in pairs)
    assert all(change.difference is not None for change in one)


# --- Across restarts ----------------------------------------------------------------------------------------


def test_a_deploy(tmp_path: Path) -> None:
    """With a file the journal knows what the version before it sent; without, it begins anew."""
    file = tmp_path / "journal.json"
    Told(file).calls(A, A, A, service="1.4")
    then = Told(file)
    then.calls(A, A, service="1.5")
    assert then.patterns == []
    then = Told(file)
    then.calls(B, B, B, service="1.6")
    (change,) = then
    assert (change.pattern, change.old.service, change.new.service) == (Pattern.ONCE, "1.4", "1.6")
    assert change.difference is not None
    assert change.difference[:4] == (Reason.SYSTEM_CHANGED, "system", Cause.EDITED, 5)
    without = Told()
    without.calls(B, B, B)
    assert without.patterns == []


def test_a_process_that_makes_one_call(tmp_path: Path) -> None:
    """What it has seen counts in the next one."""
    file = tmp_path / "journal.json"
    patterns = []
    for system in (A, B, B, B, B):
        told = Told(file)
        told.call(system)
        patterns += told.patterns
    assert patterns == [Pattern.ONCE]


def test_a_busy_file_is_not_written_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing it takes longer the more there is in it: what changes in the meantime is written later, or at the end."""
    monkeypatch.setattr("otel_promptcache.journal.file.perf_counter", iter(range(1000)).__next__)
    file = tmp_path / "journal.json"
    told = Told(file)
    told.call(agent(0))
    written = file.read_bytes()
    told.call(agent(1))
    assert file.read_bytes() == written
    told.journal.save()
    assert len(file.read_bytes()) > len(written)
    monkeypatch.undo()
    then = Told(file)
    then.calls(*[agent(1, "good day")] * 3)
    assert then.patterns == [Pattern.ONCE]


def test_what_a_change_is_told_of_though_the_disk_is_full(tmp_path: Path) -> None:
    """The file cannot be written: what the journal has to say it says."""
    file = tmp_path / "gone" / "journal.json"
    told = Told(file)
    for system in (A, B, B, B):
        with contextlib.suppress(OSError):
            told.call(system)
    assert told.patterns == [Pattern.ONCE]


def test_what_is_in_the_file(tmp_path: Path) -> None:
    """Hashes: no text, no key."""
    file = tmp_path / "journal.json"
    Told(file).calls(A, A, B)
    written = file.read_text()
    assert "garden" not in written
    assert "fleet" not in written
    assert [path.name for path in tmp_path.iterdir()] == ["journal.json"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 1, "key": "%s", "strands": [{}]}', "\x00" * 99],
)
def test_a_file_that_cannot_be_read(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Is said once, and written anew."""
    file = tmp_path / "journal.json"
    file.write_text(text.replace("%s", KEY.id))
    Told(file).calls(A, A)
    assert [record.message.partition(" (")[0] for record in ours(caplog)] == [
        "otel-promptcache: OTEL_PROMPTCACHE_JOURNAL_FILE cannot be read"
    ]
    caplog.clear()
    later = Told(file)
    later.calls(B, B, B)
    assert (later.patterns, ours(caplog)) == ([Pattern.ONCE], [])


def test_a_count_without_end_in_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """JSON has no infinity, Python's reader has one."""
    file = tmp_path / "journal.json"
    Told(file).calls(A, A)
    file.write_text(re.sub(r'"calls": \d+', '"calls": Infinity', file.read_text()))
    assert "Infinity" in file.read_text()
    Told(file)
    assert "cannot be read (OverflowError)" in caplog.text


def test_the_file_of_another_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its digests compare with none of ours: of changes nothing is said, for nothing is known; of the key once."""
    file = tmp_path / "journal.json"
    Told(file, HashKey("another")).calls(A, A)
    told = Told(file)
    [warned] = [record.getMessage() for record in ours(caplog)]
    assert Reason.KEY_MISMATCH in warned
    assert "OTEL_PROMPTCACHE_HASH_KEY" in warned
    told.calls(B, B, B)
    assert told.patterns == []
