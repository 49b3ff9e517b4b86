"""The dashboards: as their builders make them, readable, and with data from the real pipeline in every panel."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from boards.__main__ import DASHBOARDS, files, stale
from boards.catalogue import BOARDS
from boards.model import QUERIES, Board, Look, Panel, Prom, Sql
from boards.promql import series
from servers import DEPLOY, ROOT, until, until_empty, until_is
from servers.stack import Stack, filled_in

from otel_promptcache import semconv

pytestmark = pytest.mark.xdist_group("stack")  # one stack, however many workers there are
PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
QUESTIONS = {
    (board.name, panel.title, letter): ask
    for board, panel in PANELS
    for letter, ask in zip("ABCDEFGH", panel.asks, strict=False)
}
ASKED = {name: ask for name, ask in QUESTIONS.items() if isinstance(ask, Prom)} | {
    (board.name, mark.name, "mark"): mark.ask for board in BOARDS for mark in board.marks if isinstance(mark.ask, Prom)
}
NEEDS_TIME = {
    ("money", "Where will the month end?", "C"): "the rest of the month is told from whole hours",
}
"""What may be empty here, and why."""
ZERO = {
    ("overview", "Alerts firing", "A"): "nothing has gone on for long enough",
    ("blame", "Who could have kept it?", "D"): "reasons that nobody can act on lose next to nothing",
    ("blame", "Who loses money when?", "D"): "reasons that nobody can act on lose next to nothing",
}
"""What is 0 here, and why."""
WHOLE_HOURS = {
    ("money", "How much of its budget has each team spent?", "A"),
    ("money", "Where will the month end?", "B"),
}
"""What is 0 here, unless the clock strikes while the tests run."""


def of_metrics(board: Board) -> list[dict[str, Any]]:
    """Every panel of a checked-in dashboard, those in folded rows too."""
    made = json.loads((DASHBOARDS / f"{board.name}.json").read_text())
    return [one for panel in made["panels"] for one in (panel, *panel.get("panels", ()))]


# --- The files ----------------------------------------------------------------------------------------------


def test_the_files_are_what_the_builders_make() -> None:
    """`make dashboards` writes them."""
    assert stale() == []


def test_another_file_is_noticed(tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    assert stale(tmp_path) == []
    (tmp_path / "money.json").write_text("{}")
    (tmp_path / "trust.json").unlink()
    (tmp_path / "twenty-first.json").write_text("{}")
    assert stale(tmp_path) == ["money.json", "trust.json", "twenty-first.json"]


def test_the_dashboards_there_are() -> None:
    assert {board.name: board.title for board in BOARDS} == {
        "overview": "Prompt cache / Overview",
        "money": "Prompt cache / Whose money",
        "changes": "Prompt cache / What changed",
        "blame": "Prompt cache / Ours or theirs",
        "writes": "Prompt cache / Writes and TTL",
        "limits": "Prompt cache / Latency and limits",
        "layers": "Prompt cache / Layers",
        "trust": "Prompt cache / Trust",
        "ledger": "Prompt cache / Ledger",
    }
    readme = (DEPLOY / "README.md").read_text()
    assert all(f"| {board.title.removeprefix('Prompt cache / ')} |" in readme for board in BOARDS)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_dashboard_can_be_filtered_and_left(board: Board) -> None:
    made = json.loads((DASHBOARDS / f"{board.name}.json").read_text())
    variables = [one["name"] for one in made["templating"]["list"]]
    assert {"datasource", "service", "route", "provider", "model", "team"} <= set(variables)
    assert ("ledger" in variables) == any(isinstance(ask, Sql) for panel in board.panels for ask in panel.asks)
    assert made["uid"] == f"promptcache-{board.name}"
    assert [link["title"] for link in made["links"]] == ["Prompt cache", "Runbook"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_panels_do_not_overlap(board: Board) -> None:
    """Each has its own cells of a grid 24 wide, and an id of its own."""
    cells: set[tuple[int, int]] = set()
    panels = [panel for panel in of_metrics(board) if panel["type"] != "row"]
    for panel in panels:
        place = panel["gridPos"]
        x, y = place.get("x", 0), place.get("y", 0)
        taken = {(column, row) for column in range(x, x + place["w"]) for row in range(y, y + place["h"])}
        assert max(column for column, _ in taken) < 24, panel["title"]
        assert not taken & cells, panel["title"]
        cells |= taken
    assert len({panel["id"] for panel in of_metrics(board)}) == len(of_metrics(board))


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{board.name}: {panel.title}" for board, panel in PANELS])
def test_a_panel_explains_itself(board: Board, panel: Panel) -> None:
    """What it means, in a sentence; a unit; a name for everything that it draws; columns that have names."""
    assert panel.why.endswith((".", "ms.")), panel.why
    assert panel.asks
    if panel.look is Look.TABLE:
        told = {field for field, _ in panel.columns}
        for letter, ask in zip("ABCDEFGH", panel.asks, strict=False):
            if isinstance(ask, Prom):
                assert f"Value #{letter}" in told
    else:
        assert panel.unit
        assert all(ask.legend for ask in panel.asks if isinstance(ask, Prom))


def test_what_needs_the_ledger_is_folded() -> None:
    """So that nothing fails where there is no ClickHouse; one dashboard is about nothing else."""
    for board in BOARDS:
        for section in board.sections:
            rows = {isinstance(ask, Sql) for panel in section.panels for ask in panel.asks}
            assert rows <= {True} or rows == {False}, section.title
            if rows == {True}:
                assert section.title.endswith("(ClickHouse)")
                assert section.folded == (board.name != "ledger")


def test_every_query_of_the_ledger_is_asked() -> None:
    asked = {ask.file for ask in QUESTIONS.values() if isinstance(ask, Sql)}
    asked |= {mark.ask.file for board in BOARDS for mark in board.marks if isinstance(mark.ask, Sql)}
    assert asked == {path.name for path in QUERIES.glob("*.sql")}


def test_every_metric_is_on_a_dashboard() -> None:
    """But the older histogram, which is a copy of the counters."""
    asked = " ".join(ask.ask for ask in ASKED.values())
    metrics = (*semconv.METRICS, *semconv.ENGINE_METRICS)
    missing = {metric.name for metric in metrics if series(metric) not in asked}
    assert missing == {semconv.M_TOKEN_USAGE.name}


@pytest.mark.parametrize("name", ASKED, ids=": ".join)
def test_an_expression_parses(name: tuple[str, str, str]) -> None:
    """With its types: a rate of no range, or a sum of a range, is refused."""
    expression = filled_in(ASKED[name].ask)
    assert "$" not in expression.replace('"$1"', "")  # of a label_replace
    promql_parser.parse(expression)


def test_links_lead_to_what_is_there() -> None:
    """Dashboards by uid, pages of this repository by path and anchor."""
    uids = {board.uid for board in BOARDS}
    for board in BOARDS:
        text = (DASHBOARDS / f"{board.name}.json").read_text()
        assert set(re.findall(r"/d/([\w-]+)", text)) <= uids
        for page in re.findall(r"/blob/main/([\w/.-]+)", text):
            assert (ROOT / page).exists(), page
    reasons = (ROOT / "docs" / "reasons.md").read_text()
    assert all(re.search(rf"^#+ `?{reason.value}`?$", reasons, re.MULTILINE) for reason in semconv.Reason)


# --- Data ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["2", "3"])
def shown(stack: Stack, request: pytest.FixtureRequest) -> Stack:
    """As one version of Prometheus after the other shows it."""
    return stack if request.param == "3" else replace(stack, prometheus=stack.older)


@pytest.mark.verifies("dashboards' expressions with data, in either Prometheus")
@pytest.mark.server
@pytest.mark.parametrize("name", sorted(set(ASKED) - set(NEEDS_TIME)), ids=": ".join)
def test_an_expression_finds_data(shown: Stack, name: tuple[str, str, str]) -> None:
    """In a Prometheus that scrapes the Collector: numbers, and not only zeros."""
    values = shown.values(ASKED[name].ask)
    assert values
    assert any(values) == (name not in ZERO) or name in WHOLE_HOURS


def test_what_may_be_empty_is_asked() -> None:
    assert {*NEEDS_TIME, *ZERO, *WHOLE_HOURS} <= set(ASKED)


def expressions(board: str, title: str) -> list[str]:
    (panel,) = (panel for one, panel in PANELS if (one.name, panel.title) == (board, title))
    return [ask.ask for ask in panel.asks if isinstance(ask, Prom)]


def labels(shown: Stack, board: str, title: str, label: str, **chosen: str) -> set[str]:
    (expression, *_) = expressions(board, title)
    return {found.get(label, "") for found, value in shown.found(expression, **chosen) if value}


@pytest.mark.server
def test_panels_say_what_happened(shown: Stack) -> None:
    """Who, where, why: as the application told it, with a name for what it did not tell."""

    def seen(board: str, title: str, label: str, **chosen: str) -> set[str]:
        return labels(shown, board, title, label, **chosen)

    cost = "What does it cost, and what does the cache save?"
    lost = "What did misses cost today, by team, route and reason?"
    assert seen("overview", cost, "promptcache_cost_class") == {"read", "write", "uncached", "output"}
    assert "hit" in seen("overview", "Does a hit answer sooner?", "promptcache_status", service="bot")
    assert seen("money", lost, "promptcache_reason", service="shop") == {"system_changed", "messages_changed"}
    assert {"provider_evicted", "marker_lost"} <= seen("money", lost, "promptcache_reason", service="bot")
    assert seen("money", lost, "promptcache_attr_team", service="shop") == {"search", "support"}
    spends = "What does each team spend and save?"
    assert seen("money", spends, "promptcache_attr_team", service="shop") == {"search", "support", "unattributed"}
    tenants = "What does each tenant spend and save?"
    assert seen("money", tenants, "promptcache_attr_tenant", service="bot") == {"acme", "unattributed"}
    versions = "What is each version's hit rate?"
    assert seen("changes", versions, "service_version", service="bot") == {"1", "2"}
    assert seen("blame", "Who is right when they differ?", "promptcache_native_agreement") >= {"agree"}
    shared = "Who else uses the engines?"
    assert seen("layers", shared, "promptcache_engine") == {"vllm", "sglang"}
    unpriced = "Which models have no price?"
    assert seen("trust", unpriced, "gen_ai_request_model", service="shop") == {"claude-of-tomorrow"}


@pytest.mark.server
def test_figures_are_right(shown: Stack) -> None:
    """Those of Trust, where they can be counted by hand: two keys, one version, a hundred routes and no more."""

    def figures(title: str, **chosen: str) -> list[list[float]]:
        return [shown.values(expression, **chosen) for expression in expressions("trust", title)]

    assert figures("Hash keys in use", service="bot") == [[2]]
    assert not shown.prometheus.query(filled_in(expressions("trust", "Hash keys in use")[0], service="shop"))
    assert figures("Versions of the instrumentation that run") == [[1]]
    routes, models, teams = figures("How near is each label to its limit of a hundred values?", service="bot")
    assert routes == [101]  # __other__ is one more
    assert (len(models), teams) == (1, [1])


@pytest.mark.server
def test_time_to_first_chunk_is_told_in_fractions_of_a_second(shown: Stack) -> None:
    """By the buckets that Prometheus has: with OpenTelemetry's own a median is 2.5 s, however soon an answer comes."""
    found = shown.found(f"group by (le) ({series(semconv.M_FIRST_CHUNK)}_bucket)")
    assert {float(labels["le"]) for labels, _ in found} >= {0.01, 0.04, 0.16, 0.64, 2.56}


@pytest.mark.verifies("dashboards' exemplars that lead to traces")
@pytest.mark.server
@pytest.mark.parametrize("name", [name for name, ask in ASKED.items() if ask.exemplars], ids=": ".join)
def test_points_lead_to_traces(shown: Stack, name: tuple[str, str, str]) -> None:
    """Exemplars come the whole way, and Jaeger has the traces that they name."""
    found = until(lambda: shown.prometheus.exemplars(filled_in(ASKED[name].ask)))
    assert all(len(one["trace_id"]) == 32 for one in found)
    assert until(lambda: shown.jaeger.trace(found[-1]["trace_id"]))


@pytest.mark.server
def test_filters_offer_what_is_there(shown: Stack) -> None:
    """The variables of the dashboards, by their own queries."""
    made = json.loads((DASHBOARDS / "ledger.json").read_text())
    queries = {one["name"]: one["query"] for one in made["templating"]["list"] if one["type"] == "query"}

    def offered(name: str) -> set[str]:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", queries[name]).groups()
        return {found[label] for found, _ in shown.prometheus.query(f'group by ({label}) ({metric}{{{label}!=""}})')}

    until_is(lambda: offered("service"), {"shop", "bot", "fleet", "engines"})
    until_is(lambda: offered("team"), {"search", "support"})
    until_is(lambda: offered("provider"), {"anthropic", "openai", "vllm"})
    until_empty(lambda: {"claude-sonnet-4-6", "claude-of-tomorrow", "gpt-4.1-mini"} - offered("model"))
    until_empty(lambda: {"/agent", "/chat", "/summary", "/bot", "__other__"} - offered("route"))
    until_empty(lambda: {"system_changed", "messages_changed", "provider_evicted"} - offered("reason"))
