"""A labelled corpus of cache misses, some two hundred bodies as production sends them: how many are explained."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otel_promptcache import diagnosis, fingerprint, providers
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Sight
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Diagnosis, Link, Prompt, Scope
from otel_promptcache.providers.rules import rules_for

Case = dict[str, Any]

BEGUN, ENDED, SENT = range(3)
"""At one moment, what ends is told before what starts."""


class Said(NamedTuple):
    diagnosis: Diagnosis
    path: str


def diagnosed(case: Case) -> list[Said]:
    """What is said of each request of a case, in a fresh history, told of everything at its time."""
    dialect = providers.BY_NAME[case["provider"]]
    memory = Memory(HashKey("test"), 100_000)
    events = sorted(
        event
        for number, request in enumerate(case["requests"])
        for event in (
            (request["t"], SENT, number),
            (request["t"] + request["ttft"], BEGUN, number),
            (request["t"] + request["duration"], ENDED, number),
        )
    )
    calls: dict[int, tuple[Prompt, Scope, Sight]] = {}
    said: dict[int, Said] = {}
    for moment, what, number in events:
        request = case["requests"][number]
        if what == SENT:
            prompt = dialect.prompt(request["body"])
            scope = Scope(dialect.provider, request["endpoint"], "k", prompt.model, prompt.cache_key)
            sight = memory.sent(prompt, scope, now=moment, route="r", conversation="", link=Link(1, number))
            for info, segment in sight.fresh:
                info.detail = fingerprint.detail(segment)
            calls[number] = prompt, scope, sight
            continue
        prompt, scope, sight = calls[number]
        if what == BEGUN:
            memory.begun(sight)
        else:
            usage = dialect.usage(request["usage"])
            verdict = diagnosis.diagnose(prompt, sight, usage, rules_for(scope.provider, scope.model))
            memory.ended(sight, usage, request.get("response_id", ""), None)
            said[number] = Said(verdict, dialect.path(verdict.place) if verdict.place else "")
    return [said[number] for number in range(len(case["requests"]))]


def block(path: str) -> str:
    """The tool, system block or content block that a path lies in; the first block is the same as the string."""
    path = re.sub(r"^(instructions|system)$", r"\1[0]", path)
    found = re.match(
        r"tools\[\d+\]|(?:system|instructions)\[\d+\]|(?:messages|input)\[\d+\](?:\.content(?:\[\d+\])?)?|[a-z_.]+",
        path,
    )
    return re.sub(r"\.content(\[0\])?$", "", found.group()) if found else path


@pytest.fixture(scope="module")
def corpus(shared: Path) -> list[tuple[Case, list[Said]]]:
    with gzip.open(shared / "diagnosis" / "corpus-dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [(case, diagnosed(case)) for case in map(json.loads, lines)]


@pytest.fixture(scope="module")
def labels(shared: Path) -> dict[str, dict[str, list[str] | None]]:
    """The reasons and causes that are right for each label."""
    return json.loads((shared / "diagnosis" / "labels.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def misses(corpus: list[tuple[Case, list[Said]]]) -> list[tuple[Case, Said]]:
    """The request that each case is about."""
    found = ((case, said) for case, said in corpus if case["expected"]["reason"] != "none")
    return [(case, said[case["expected"]["request_index"]]) for case, said in found]


def test_the_corpus_is_there(corpus: list[tuple[Case, list[Said]]]) -> None:
    """An empty file must not pass for a good one."""
    assert len(corpus) == 256
    assert len(misses(corpus)) == 214


def test_clean_traffic_is_never_blamed(corpus: list[tuple[Case, list[Said]]]) -> None:
    """Rolling markers, sampling parameters, times in the tail, interleaved conversations: not one false alarm."""
    alarms = [
        (case["id"], number, one.diagnosis.reason)
        for case, said in corpus
        if case["expected"]["reason"] == "none"
        for number, one in enumerate(said)
        if one.diagnosis.reason is not None
    ]
    assert alarms == []


def test_the_reason_is_right(corpus: list[tuple[Case, list[Said]]], labels: dict[str, Any]) -> None:
    """In 85 of 100 misses at least; what is wrong is shown by label."""
    wrong: dict[str, list[str]] = defaultdict(list)
    for case, said in misses(corpus):
        label = case["expected"]["reason"]
        if said.diagnosis.reason not in labels[label]["reason"]:
            wrong[label].append(f"{case['id']}: {said.diagnosis.reason}")
    count = sum(map(len, wrong.values()))
    assert 1 - count / len(misses(corpus)) >= 0.85, dict(wrong)


def test_the_place_is_right(corpus: list[tuple[Case, list[Said]]]) -> None:
    """The very tool or block, in 95 of 100 cases at least."""
    placed = [
        (case, said)
        for case, said in misses(corpus)
        if case["expected"]["path"] and case["expected"]["area"] in ("tools", "system", "messages")
    ]
    wrong = [(case["id"], said.path) for case, said in placed if block(said.path) != block(case["expected"]["path"])]
    assert len(placed) > 100
    assert 1 - len(wrong) / len(placed) >= 0.95, wrong


def test_reported_tokens_are_never_exceeded(corpus: list[tuple[Case, list[Said]]]) -> None:
    """Nobody can lose more than was sent and not read."""
    for case, said in corpus:
        for request, one in zip(case["requests"], said, strict=True):
            usage = providers.BY_NAME[case["provider"]].usage(request["usage"])
            assert usage is not None
            assert usage.input_total is not None
            assert 0 <= one.diagnosis.lost <= usage.input_total - (usage.read or 0), case["id"]
