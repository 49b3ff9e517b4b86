"""The five mistakes: reason and place before the fix, none after it, and the hit rate of both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

pytest.importorskip("anthropic")
pytest.importorskip("openai")
pytest.importorskip("uvicorn")

from otel_promptcache.semconv import Cause, Reason, Status

pytestmark = pytest.mark.xdist_group("gotchas")
FOLDER = Path(__file__).resolve().parents[2] / "examples" / "gotchas"


class Expected(NamedTuple):
    reason: Reason
    cause: Cause | None
    places: list[tuple[str, int | None]]
    """Path and line of each call but the first, which can miss nothing."""
    before: float
    """Hit rate at most."""
    after: float
    """Hit rate at least."""


GOTCHAS = {
    "whitespace_drift": Expected(
        Reason.MESSAGES_CHANGED,
        Cause.WHITESPACE,
        [("messages[0].content", 2), ("messages[2].content", 1)],
        0.0,
        0.66,
    ),
    "dynamic_field": Expected(Reason.SYSTEM_CHANGED, Cause.TIMESTAMP, [("instructions", 1)] * 3, 0.0, 0.73),
    "tools_reordered": Expected(Reason.TOOLS_CHANGED, Cause.REORDERED, [("tools[0]", None)] * 3, 0.0, 0.72),
    "image_changed": Expected(
        Reason.MESSAGES_CHANGED, Cause.IMAGE, [("messages[0].content[0].source.data", None)] * 2, 0.41, 0.66
    ),
    "low_traffic_long_ttl": Expected(Reason.TTL_EXPIRED, None, [("", None)] * 3, 0.0, 0.74),
}


@pytest.fixture(scope="module")
def play() -> Iterator[ModuleType]:
    """The module that plays them, found as when it is run."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield import_module("play")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("play", *GOTCHAS):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def played(play: ModuleType) -> dict[str, Any]:
    return {name: play.play(name) for name in GOTCHAS}


def test_all_of_them_are_tried(play: ModuleType) -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - {"play"}
    assert files == set(GOTCHAS) == set(play.NAMES)


@pytest.mark.parametrize("name", GOTCHAS)
def test_broken(name: str, played: dict[str, Any]) -> None:
    expected, recording = GOTCHAS[name], played[name].broken
    first, *later = recording.calls
    assert first.status is Status.COLD
    assert {(call.reason, call.cause) for call in later} == {(expected.reason, expected.cause)}
    for call, (path, line) in zip(later, expected.places, strict=True):
        assert call.path == path
        assert line is None or call.line == line
    assert all(call.verdict.lost > 1000 for call in later)
    assert recording.hit_ratio <= expected.before


@pytest.mark.parametrize("name", GOTCHAS)
def test_fixed(name: str, played: dict[str, Any], play: ModuleType) -> None:
    expected, recording = GOTCHAS[name], played[name].fixed
    first, *later = recording.calls
    assert first.status is Status.COLD
    assert {(call.status, call.reason) for call in later} == {(Status.HIT, None)}
    assert recording.hit_ratio >= expected.after
    assert play.input_usd(recording) < play.input_usd(played[name].broken)


def test_the_page_says_what_the_program_prints(play: ModuleType) -> None:
    """But for the prices, which are those of the day."""

    def without_prices(lines: list[str]) -> list[str]:
        return [line.rsplit("|", 2)[0] for line in lines]

    page = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in page if line.startswith("|")]
    assert without_prices(shown) == without_prices(play.table()), "renew the table with examples/gotchas/play.py"
