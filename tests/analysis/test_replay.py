"""Recorded traffic is judged as live traffic is, and no further than the file bears out."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from otel_promptcache.analysis import exchanges, findings, replay
from otel_promptcache.analysis.exchanges import Exchange
from otel_promptcache.analysis.findings import Shown
from otel_promptcache.analysis.replay import Judged
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.semconv import Cause, Reason, Status
from otel_promptcache.settings import Privacy

TEXT = "\n".join(f"Regel {number}: Antworte kurz, freundlich und ohne Zusagen zur Lieferzeit." for number in range(120))
SHOWN = Shown(Privacy.NAMES, HashKey("a key"))


def row(system: str, *turns: str, read: int, write: int = 0, **more: Any) -> dict[str, Any]:
    control = {"type": "ephemeral"}
    roles = ("user", "assistant") * len(turns)
    body = {
        "model": "claude-sonnet-5",
        "max_tokens": 64,
        "system": [{"type": "text", "text": system, "cache_control": control}],
        "messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)],
    }
    usage = {"input_tokens": 20, "cache_read_input_tokens": read, "cache_creation_input_tokens": write}
    return {"endpoint": "https://api.anthropic.com/v1/messages", "body": body, "usage": usage, **more}


def judged(folder: Path, *rows: dict[str, Any], texts: bool = True) -> list[Judged]:
    path = folder / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return [one for case in exchanges.read([str(path)]).cases() for one in replay.replay(case, texts=texts)]


def test_a_moved_time_is_found_to_the_character(tmp_path: Path) -> None:
    before, after = (f"{TEXT}\nEs ist {time} Uhr.\nEnde." for time in ("14:05", "14:06"))
    rows = [row(before, "Hallo", read=0, write=2200, t=0.0), row(after, "Hallo", read=0, write=2200, t=60.0)]
    first, second = judged(tmp_path, *rows)
    assert first.diagnosis.status is Status.COLD
    verdict = second.diagnosis
    assert (verdict.status, verdict.reason, verdict.cause) == (Status.MISS, Reason.SYSTEM_CHANGED, Cause.TIMESTAMP)
    assert second.earlier is first.exchange
    assert second.place is not None
    assert (second.place.path, second.place.offset) == (("system", 0, "text"), after.index("14:06") + 4)
    assert findings.where(second, SHOWN) == "system[0].text, line 121, column 12"
    assert second.lost_usd is not None
    assert second.lost_usd > 0


def test_hashes_alone_tell_the_line(tmp_path: Path) -> None:
    before, after = (f"{TEXT}\nEs ist {time} Uhr.\nEnde." for time in ("14:05", "14:06"))
    rows = [row(before, "Hallo", read=0, write=2200, t=0.0), row(after, "Hallo", read=0, write=2200, t=60.0)]
    second = judged(tmp_path, *rows, texts=False)[1]
    assert second.place is None
    assert (findings.path(second, SHOWN), findings.line(second)) == ("system[0]", 121)
    assert findings.row(second, SHOWN)["offset"] is None


def test_the_provider_is_not_blamed_without_times(tmp_path: Path) -> None:
    """In a log without times an unchanged prefix may well have run out."""
    rows = [row(TEXT, "Hallo", read=0, write=2200), row(TEXT, "Hallo", "Ja?", "Wo?", read=0, write=2200)]
    second = judged(tmp_path, *rows)[1]
    assert (second.diagnosis.status, second.diagnosis.reason) == (Status.MISS, Reason.UNKNOWN)
    assert findings.happened(second, SHOWN) == [
        "The prompt explains nothing, and the file does not say when it was sent."
    ]


def test_an_entry_that_ran_out(tmp_path: Path) -> None:
    rows = [row(TEXT, "Hallo", read=0, write=2200, t=0.0), row(TEXT, "Hallo", read=0, write=2200, t=1260.0)]
    second = judged(tmp_path, *rows)[1]
    assert second.diagnosis.reason is Reason.TTL_EXPIRED
    assert second.earlier is not None
    assert findings.happened(second, SHOWN)[-1] == "21 min had passed; an entry lives 5 min."


def test_order_in_the_file_is_not_order_in_time(tmp_path: Path) -> None:
    rows = [row(TEXT, "Hallo", read=2200, t=60.0), row(TEXT, "Hallo", read=0, write=2200, t=0.0)]
    later, earlier = judged(tmp_path, *rows)
    assert (later.diagnosis.status, earlier.diagnosis.status) == (Status.HIT, Status.COLD)


def test_equal_problems_are_one_finding(tmp_path: Path) -> None:
    rows = [row(f"Anfrage {n}\n{TEXT}", "Hallo", read=0, write=2200, t=60.0 * n) for n in range(5)]
    found = findings.summary(judged(tmp_path, *rows))
    assert found.calls == 5
    assert found.hit_rate == 0.0
    assert [len(finding.calls) for finding in found.findings] == [4]
    assert found.findings[0].lost_tokens == found.lost_tokens > 8_000


@pytest.mark.parametrize(
    ("cause", "tools", "said"),
    [
        ("added", ("a", "x", "b", "c"), "`x` was added at position 2."),
        ("removed", ("a", "c"), "`b` was removed from position 2."),
        ("reordered", ("a", "c", "b"), "Position 2 held `b` and holds `c`."),
    ],
)
def test_tools_are_named_where_they_may_be(cause: str, tools: tuple[str, ...], said: str, tmp_path: Path) -> None:
    def with_tools(names: tuple[str, ...], at: float) -> dict[str, Any]:
        found = row(TEXT, "Hallo", read=0, write=2200, t=at)
        found["body"]["tools"] = [
            {"name": name, "description": f"{name}: " + 20 * "Sucht in den Unterlagen. ", "input_schema": {}}
            for name in names
        ]
        return found

    second = judged(tmp_path, with_tools(("a", "b", "c"), 0.0), with_tools(tools, 9.0))[1]
    assert (second.diagnosis.reason, second.diagnosis.cause) == (Reason.TOOLS_CHANGED, cause)
    assert findings.happened(second, SHOWN)[-1] == said
    hidden = findings.happened(second, SHOWN._replace(privacy=Privacy.HASHES))[-1]
    assert hidden == re.sub(r"`(\w)`", lambda name: f"`{SHOWN.key.name(name[1])}`", said)


def test_it_is_deterministic(tmp_path: Path) -> None:
    rows = [row(f"{TEXT}\n{n // 3}", "Hallo", read=0, write=2200, t=60.0 * n) for n in range(9)]
    first, second = ([findings.row(one, SHOWN) for one in judged(tmp_path, *rows)] for _ in range(2))
    assert first == second


# --- What others have recorded ------------------------------------------------------------------------------


def told(recorded: Path) -> Iterator[tuple[str, Exchange, Judged]]:
    for folder in ("cassettes", "selfhosted"):
        for file in sorted((recorded / folder).glob("*.json")):
            for case in exchanges.read([str(file)]).cases():
                yield from ((file.stem, one.exchange, one) for one in replay.replay(case))


def test_every_cassette_is_read(recorded: Path) -> None:
    """And what was read from cache is what the recording counted."""
    count: dict[Status, int] = defaultdict(int)
    for name, exchange, one in told(recorded):
        count[one.diagnosis.status] += 1
        assert one.diagnosis.lost <= (one.usage.input_total or 0) - (one.usage.read or 0), name
        if one.diagnosis.status is Status.MISS:
            assert not one.usage.read, (name, exchange.number)
    assert count[Status.HIT] > 100
    assert count[Status.COLD] > 30


def test_a_hit_is_never_blamed(recorded: Path) -> None:
    """Whoever reads all that the call before had cached has lost nothing, whatever else is in the file."""
    for name, exchange, one in told(recorded):
        if exchange.dialect.name == "anthropic" and one.diagnosis.status is Status.HIT:
            assert one.diagnosis.reason is None, (name, exchange.number)


@pytest.fixture(scope="module")
def sessions(recorded: Path) -> dict[str, list[Judged]]:
    files = sorted((recorded / "sessions").glob("*.jsonl"))
    return {file.name: replay.replay(exchanges.read([str(file)]).exchanges) for file in files}


def test_the_session_of_a_file_is_a_conversation(tmp_path: Path) -> None:
    """Two questions in one go to a model that marks only where a message ends: the second has nothing to read."""
    rows = [
        {
            "endpoint": "https://api.openai.com/v1/chat/completions",
            "body": {
                "model": "gpt-5.6",
                "messages": [{"role": "system", "content": TEXT}, {"role": "user", "content": ask}],
            },
            "usage": {"prompt_tokens": 2200, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}},
            "session": session,
            "t": at,
        }
        for session in ("mine", "")
        for at, ask in ((0.0, "Wo ist mein Paket?"), (9.0, "Wann kommt es an?"))
    ]
    named = judged(tmp_path, *rows[:2])
    assert [one.diagnosis.reason for one in named] == [None, Reason.BREAKPOINT_MISSING]
    assert [one.diagnosis.reason for one in judged(tmp_path, *rows[2:])] == [None, None]


def test_sessions_add_up(sessions: dict[str, list[Judged]], recorded: Path) -> None:
    """Calls, reads, writes and the rest are those that were counted when the sessions were collected."""
    truth = (recorded / "SOURCES.md").read_text(encoding="utf-8")
    assert len(sessions) == 9
    for name, calls in sessions.items():
        found = re.search(rf"{name}.*calls=(\d+) read=(\d+) write=(\d+) uncached=(\d+)", truth)
        assert found is not None
        usages = [one.usage for one in calls]
        sums = (len(calls), *(sum(getattr(u, field) or 0 for u in usages) for field in ("read", "write", "uncached")))
        assert sums == tuple(map(int, found.groups())), name


def test_the_next_read_is_what_was_read_and_written(sessions: dict[str, list[Judged]]) -> None:
    """Of 659 calls all but a few; those are called misses, and none of them is guessed at."""
    allowed = {"model_changed", "ttl_expired", "history_compacted", "usage_not_reported", "unknown", None}
    kept = broken = 0
    for name, calls in sessions.items():
        for before, one in pairwise(calls):
            held = (before.usage.read or 0) + (before.usage.write or 0)
            assert one.diagnosis.reason in allowed, name
            assert one.diagnosis.cause is None
            if (one.usage.read or 0) >= held:
                kept += 1
                assert one.diagnosis.status is Status.HIT, (name, one.exchange.number)
            elif one.diagnosis.reason is not None:
                broken += 1
    assert kept > 600
    assert broken >= 15


def test_a_gap_in_a_session_is_seen(sessions: dict[str, list[Judged]]) -> None:
    expired = [one for calls in sessions.values() for one in calls if one.diagnosis.reason is Reason.TTL_EXPIRED]
    assert len(expired) >= 10
    for one in expired:
        assert one.earlier is not None
        assert one.exchange.at - one.earlier.at > 300


def test_a_compaction_is_named_where_the_transcript_says_so(sessions: dict[str, list[Judged]]) -> None:
    found = {
        name: [one for one in calls if one.diagnosis.reason is Reason.HISTORY_COMPACTED]
        for name, calls in sessions.items()
    }
    assert {name[:5]: len(calls) for name, calls in found.items() if calls} == {"cc_12": 1, "cc_18": 2}


@pytest.fixture(scope="module")
def answers(shared: Path) -> dict[bool, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """(expected, said) of each missed request of the labelled corpus; from hashes alone, and with texts."""
    name = str(shared / "diagnosis" / "corpus-dev.jsonl.gz")
    with gzip.open(name, "rt", encoding="utf-8") as lines:
        expected = {case["id"]: case["expected"] for case in map(json.loads, lines)}
    cases = exchanges.read([name]).cases()
    found: dict[bool, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for texts in (False, True):
        rows = [findings.row(one, SHOWN) for one in replay.every(cases, texts=texts)]
        about = [(expected[row["id"]], row) for row in rows]
        found[texts] = [(one, row) for one, row in about if row["request_index"] == one.get("request_index")]
    return found


@pytest.mark.parametrize("texts", [False, True])
def test_lines_and_characters_of_the_corpus(texts: bool, answers: dict[bool, list[Any]]) -> None:
    """The line from hashes alone, the character where both texts are at hand, in 97 of 100 texts at least."""
    judged = [
        (one["offset"], row["offset"], row["line"])
        for one, row in answers[texts]
        if one["kind"] == "text" and one["area"] in ("system", "messages")
    ]
    assert len(judged) > 100
    assert sum(line is not None for _, _, line in judged) >= 0.97 * len(judged)
    right = sum(said is not None and abs(said - offset) <= 1 for offset, said, _ in judged)
    assert right >= 0.97 * len(judged) if texts else right == 0
