"""The SQL of the dashboards, in ClickHouse's own engine, on the ledger that the application has sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boards.model import QUERIES
from servers import clickhouse
from servers.estate import question
from servers.stack import Stack  # noqa: TC002 - pytest reads it

from otel_promptcache import semconv

pytestmark = pytest.mark.xdist_group("stack")  # one stack, however many workers there are
FILES = sorted(path.name for path in QUERIES.glob("*.sql"))
TABLES = {"promptcache_calls": semconv.EVENT_CALL, "promptcache_changes": semconv.EVENT_CHANGED}
TYPES = {"string": "String", "int": "Int64", "double": "Float64", "boolean": "Bool"}
OF_FAMILIES = {
    **{f"{semconv.ATTRIBUTION}.{key}": "String" for key in ("team", "tenant", "feature")},
    **{f"{semconv.WRITE_TOKENS_BY_TTL}.{ttl}": "Int64" for ttl in ("5m", "30m", "1h")},
}
"""Fields of which the table of names has the first part."""
Ask = Callable[..., list[dict[str, Any]]]


def column(name: str) -> str:
    return name.replace(".", "_")


def columns(event: str, numbers: str) -> dict[str, str]:
    """The columns of a table: every field that such an event can have, and what a record has beside its fields."""
    signal = {semconv.EVENT_CALL: "ledger", semconv.EVENT_CHANGED: "journal"}[event]
    fields = [field for field in semconv.FIELDS.values() if {signal, "ledger"} & set(field.signals.split(", "))]
    found = {field.name: TYPES[field.type] for field in fields if field.type in TYPES} | OF_FAMILIES
    found |= dict.fromkeys(("trace_id", "span_id", "service.name", "service.version"), "String")
    typed = {column(name): kind if kind == "String" else numbers.format(kind) for name, kind in found.items()}
    return typed | {"timestamp": "DateTime64(9)"}


def rows(stack: Stack, event: str, known: dict[str, str]) -> list[dict[str, Any]]:
    found = []
    for record in stack.collector.ledger_events():
        if record["eventName"] == event:
            row = {column(name): value for name, value in record.items()}
            row |= {"trace_id": record["traceId"], "span_id": record["spanId"]}
            row["timestamp"] = int(record["timeUnixNano"]) / 1e9
            found.append({name: value for name, value in row.items() if name in known})
    return found


@pytest.fixture(scope="module", params=["Nullable({})", "{}"], ids=["absent is null", "absent is zero"])
def ask(stack: Stack, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks a file's question of tables that hold the ledger; whatever way they tell what a call did not say."""
    folder: Path = tmp_path_factory.mktemp("clickhouse")
    with clickhouse() as query:
        for table, event in TABLES.items():
            known = columns(event, request.param)
            declared = ", ".join(f"{name} {kind}" for name, kind in known.items())
            query(f"CREATE OR REPLACE TABLE {table} ({declared}) ENGINE = MergeTree ORDER BY tuple()")
            file = folder / f"{table}.json"
            file.write_text("\n".join(map(json.dumps, rows(stack, event, known))))
            query(f"INSERT INTO {table} SELECT * FROM file('{file}', JSONEachRow, '{declared}')")

        def asked(name: str, **chosen: str) -> list[dict[str, Any]]:
            return query(question(QUERIES / name, **chosen))

        yield asked


@pytest.mark.verifies("SQL")
@pytest.mark.server
@pytest.mark.parametrize("name", FILES)
def test_a_query_finds_rows(ask: Ask, name: str) -> None:
    assert ask(name)


@pytest.mark.server
def test_a_row_of_whose_money_leads_to_its_calls(ask: Ask) -> None:
    """By team, route and reason, as the link has them; what has no team is asked for by the name it is shown by."""
    found = ask("calls.sql", team="search", route="/chat", reason="system_changed")
    assert [(row["status"], row["path"], row["lost"]) for row in found] == [("miss", "system[0]", 2000)] * 2
    assert all(len(row["trace_id"]) == 32 for row in found)
    nobody = ask("calls.sql", team="unattributed", service="shop")
    assert {(row["team"], row["route"]) for row in nobody} == {("", "/summary")}
    assert ask("calls_summary.sql", service="shop")[0]["calls"] == 20


@pytest.mark.server
def test_the_ledger_is_whole(ask: Ask) -> None:
    """One id a call; what has no price and what has no usage; one schema and a key for each version."""
    found = ask("ledger_health.sql", service="shop")
    assert [(row["calls"], row["repeated"], row["without_usage"]) for row in found] == [(20, 0, 2)]
    assert found[0]["unpriced"] == 2
    assert len({row["key"] for row in ask("ledger_health.sql", service="bot")}) == 2


@pytest.mark.server
def test_payback_is_saving_by_prefix(ask: Ask) -> None:
    """What reads saved less what writes cost more is what the calls cost less than they would have."""
    found = ask("prefixes.sql", service="shop", route="/chat")
    assert {row["ttl"] for row in found} == {"5m"}
    read_twice = max(found, key=lambda row: row["reads"])
    assert (read_twice["writes"], read_twice["reads"]) == (1, 3)
    assert read_twice["premium_usd"] == pytest.approx(2000 * 0.75e-6)
    assert read_twice["saved_usd"] == pytest.approx(3 * 2000 * 2.7e-6)
    assert read_twice["payback_usd"] == pytest.approx(read_twice["saved_usd"] - read_twice["premium_usd"])


@pytest.mark.server
def test_gaps_fall_into_the_rows_of_lifetimes(ask: Ask) -> None:
    """Calls of a moment ago, and of five and ten minutes later by the clock that was moved on."""
    total: dict[str, int] = {}
    for row in ask("gaps.sql"):
        for name, count in row.items():
            if name != "time":
                total[name] = total.get(name, 0) + count
    assert total["under 1 min"] > 10
    assert set(total) == {"under 1 min", "1 to 5 min", "5 to 30 min", "30 to 60 min", "over 1 h"}


@pytest.mark.server
def test_the_journal_names_what_changed(ask: Ask) -> None:
    found = ask("prefix_changes.sql")
    assert {(row["route"], row["section"], row["reason"]) for row in found} == {("/bot", "system", "system_changed")}
    assert all("/bot: " in row["text"] for row in ask("prefix_changes_marks.sql"))
