"""A real Phoenix, to which our spans are posted as they are, with its keys, and as its transform leaves them.

``make backends`` installs it and runs this.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import pytest
from backends.collecting import transforming
from backends.mapping import TOKENS, load
from backends.recording import CALLS, KIMI, PARENT, TALK, Recorded, Truth, conversation_of, record, span_id
from servers import listens, until
from servers.phoenix import GRPC, PORT, Phoenix, phoenix

pytestmark = [pytest.mark.backends, pytest.mark.server, pytest.mark.slow]
DOCUMENTED = load()["phoenix"]
LISTED = {calls.__name__ for calls in (conversation_of, *CALLS)} - {"hour", "batch", "compatible", "private", "failed"}
"""Calls that cost what Phoenix' own list says they do."""
QUERY = """
query Spans($project: ID!) { node(id: $project) { ... on Project { spans(first: 1000) { edges { node {
  spanId name spanKind statusCode attributes
  tokenCountPrompt tokenCountCompletion cumulativeTokenCountPrompt
  costSummary { total { cost } }
  costDetailSummaryEntries { tokenType isPrompt value { tokens } }
  trace { session { sessionId } costSummary { total { cost } } }
} } } } } }
"""


@dataclass(frozen=True)
class Seen:
    """What Phoenix' own page has of a span."""

    name: str
    kind: str
    status: str
    input: int
    output: int
    read: int
    write: int
    uncached: int
    usd: float | None
    within: int
    """Input tokens of the span and all under it."""
    session: str
    model: str
    provider: str

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Seen:
        llm = json.loads(node["attributes"]).get("llm", {})
        details = {one["tokenType"]: one["value"]["tokens"] for one in node["costDetailSummaryEntries"]}
        return cls(
            name=node["name"],
            kind=node["spanKind"],
            status=node["statusCode"],
            input=node["tokenCountPrompt"] or 0,
            output=node["tokenCountCompletion"] or 0,
            read=details.get("cache_read", 0),
            write=details.get("cache_write", 0),
            uncached=details.get("input", 0),
            usd=((node["costSummary"] or {}).get("total") or {}).get("cost"),
            within=node["cumulativeTokenCountPrompt"] or 0,
            session=(node["trace"]["session"] or {}).get("sessionId", ""),
            model=llm.get("model_name", ""),
            provider=llm.get("provider", ""),
        )


@dataclass(frozen=True)
class Posted:
    """Spans that were posted, and what became of them."""

    recorded: Recorded
    attributes: Mapping[str, Mapping[str, Any]]
    seen: Mapping[str, Seen]

    def calls(self) -> Iterator[tuple[Truth, Mapping[str, Any], Seen]]:
        for key, truth in self.recorded.truths.items():
            yield truth, self.attributes[key], self.seen[key]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """Reached by nobody but through its socket."""
    if os.environ.get("PROMPTCACHE_BACKENDS") != "true":
        pytest.skip("make backends runs it")
    with phoenix(tmp_path_factory.mktemp("phoenix")) as found:
        assert not listens(PORT), "Phoenix is not in a namespace of its own"
        assert not listens(GRPC), "Phoenix is not in a namespace of its own"
        yield found


@pytest.fixture(scope="module")
def posted(running: Phoenix, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Posted]:
    """Three recordings: as they are, with its keys, and as an exporter behind its transform sends them."""
    source = record()
    with transforming(tmp_path_factory.mktemp("transforms")) as collector:
        mended = source.with_attributes(collector.through(DOCUMENTED.transform, source))
    recordings = {"plain": record(), "keyed": record(backends="phoenix"), "mended": mended}
    return {name: _post(running, one, LISTED) for name, one in recordings.items()}


def _post(running: Phoenix, recorded: Recorded, priced: AbstractSet[str]) -> Posted:
    """Posts them, and waits until they are there, and priced, which comes some seconds later."""
    running.post(recorded.otlp)
    wanted = [span_id(span) for span in recorded.spans]
    costly = [key for key, truth in recorded.truths.items() if truth.name in priced]
    found: dict[str, Seen] = {}

    def arrived() -> bool:
        found.update(_all(running))
        return set(wanted) <= found.keys() and all(found[key].usd is not None for key in costly)

    until(arrived)
    return Posted(recorded, recorded.attributes, {key: found[key] for key in wanted})


def _all(running: Phoenix) -> dict[str, Seen]:
    try:
        projects = json.loads(running.request("GET", "/v1/projects"))["data"]
        ids = [one["id"] for one in projects if one["name"] == "default"]
        edges = running.ask(QUERY, project=ids[0])["node"]["spans"]["edges"] if ids else []
    except AssertionError as error:
        raise ConnectionError(error) from error  # it has answered, and may do so otherwise a moment later
    return {edge["node"]["spanId"]: Seen.of(edge["node"]) for edge in edges}


HOW = ("plain", "keyed", "mended")
NEW_MODEL = """
mutation New($model: CreateModelMutationInput!) { createModel(input: $model) { __typename } }
"""
REFRESH = 30
"""Seconds after which a new price is known everywhere in it: it looks every five, if the machine lets it."""


@pytest.mark.parametrize("how", HOW)
def test_it_shows_what_its_mapping_says(posted: dict[str, Posted], how: str) -> None:
    """Tokens, model, provider, session; and a cost where its list has the model."""
    for truth, attributes, seen in posted[how].calls():
        expected = DOCUMENTED.shows(attributes)
        for name in TOKENS:
            assert getattr(seen, name) == (getattr(expected, name) or 0), (truth, name)
        assert seen.model == expected.model
        assert seen.session == truth.session
        assert seen.provider == (truth.provider if seen.kind == "llm" else seen.provider)
        if expected.usd is None:
            assert seen.usd is None
        else:
            assert seen.usd == pytest.approx(expected.usd, abs=1e-9), truth


@pytest.mark.parametrize("how", HOW)
def test_kind_and_status(posted: dict[str, Posted], how: str) -> None:
    """Calls are models' calls, and one of them failed."""
    for truth, _, seen in posted[how].calls():
        assert seen.kind == ("unknown" if truth.name == "batch" and how == "plain" else "llm")
        assert seen.status == ("ERROR" if truth.error else "UNSET")


def test_as_they_are_written_tokens_are_plain_input(posted: dict[str, Posted]) -> None:
    """And so the cost is too low wherever something is written; it is right everywhere else."""
    for truth, _, seen in posted["plain"].calls():
        assert seen.write == 0
        if truth.name in LISTED:
            assert truth.usd is not None
            if truth.write:
                assert seen.uncached == (truth.uncached or 0) + truth.write
                assert seen.usd is not None
                assert seen.usd < truth.usd - 1e-4
            else:
                assert seen.usd == pytest.approx(truth.usd, abs=1e-9)


@pytest.mark.parametrize("how", ["keyed", "mended"])
def test_its_cost_is_ours(posted: dict[str, Posted], how: str) -> None:
    """To 1e-9, with its keys, by whichever way they came; of every call that is priced by public lists."""
    compared = 0
    for truth, _, seen in posted[how].calls():
        assert (seen.input, seen.read, seen.write) == (truth.input or 0, truth.read or 0, truth.write or 0)
        if truth.name in LISTED:
            assert seen.usd == pytest.approx(truth.usd, abs=1e-9)
            compared += 1
    assert compared == 15


def test_what_its_list_does_not_know(posted: dict[str, Posted]) -> None:
    """Lifetimes of an hour, batches, and models that are not on it."""
    by_name: dict[str, list[tuple[Truth, Seen]]] = {}
    for truth, _, seen in posted["keyed"].calls():
        by_name.setdefault(truth.name, []).append((truth, seen))
    written, read = by_name["hour"]
    # Written for an hour is twice the input's price, for five minutes 1.25 times; 3 USD a million.
    assert (written[0].usd or 0) - (written[1].usd or 0) == pytest.approx(3000 * 3 * 0.75 / 1e6)
    assert read[1].usd == pytest.approx(read[0].usd, abs=1e-9)
    ((truth, seen),) = by_name["batch"]
    assert seen.usd == pytest.approx(2 * (truth.usd or 0), abs=1e-9)
    assert [seen.usd for _, seen in (*by_name["private"], *by_name["compatible"])] == [None, None, None]


@pytest.mark.parametrize("how", HOW)
def test_a_trace_counts_its_tokens_once(posted: dict[str, Posted], how: str) -> None:
    """Over the application's own span, which belongs to the conversation too."""
    (parent,) = [seen for seen in posted[how].seen.values() if seen.name == PARENT]
    under = [truth.input or 0 for truth in posted[how].recorded.truths.values() if truth.session == TALK]
    assert (len(under), parent.within, parent.session) == (3, sum(under), TALK)


def test_prices_of_ones_own(running: Phoenix, posted: dict[str, Posted]) -> None:
    """A model that is not on its list costs what we say, once Phoenix is told the price of each class: from then on."""
    assert [seen.usd for truth, _, seen in posted["keyed"].calls() if truth.name == "compatible"] == [None, None]
    costs = [
        {"tokenType": "input", "kind": "PROMPT", "costPerMillionTokens": 1.0},
        {"tokenType": "cache_read", "kind": "PROMPT", "costPerMillionTokens": 0.5},
        {"tokenType": "output", "kind": "COMPLETION", "costPerMillionTokens": 3.0},
    ]
    running.ask(NEW_MODEL, model={"name": KIMI, "namePattern": KIMI, "costs": costs})
    time.sleep(REFRESH)
    again = _post(running, record(backends="phoenix"), LISTED | {"compatible"})
    for truth, _, seen in again.calls():
        if truth.name == "compatible":
            assert seen.usd == pytest.approx(truth.usd, abs=1e-9)
    now = until(lambda: _all(running))
    before = [key for key, truth in posted["keyed"].recorded.truths.items() if truth.name == "compatible"]
    assert [now[key].usd for key in before] == [None, None]
