"""Tables of an earlier version, and what a later one makes of them: nothing is lost, and rows of both are asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boards.model import QUERIES
from servers import clickhouse
from servers.estate import SCHEMA, empty_clickhouse, question, statements

from otel_promptcache import semconv

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("stack")]
Ask = Callable[[str], list[dict[str, Any]]]
NEW = "promptcache_hit_depth"
"""A column that the version before did not have, for the sake of this test."""
BEING_MADE = "schema_sql_is_not_through"
"""Why a table takes no rows; the engine says it to who sends one."""


def before(text: str) -> str:
    """The file as it was before there was that field: tables without its column, views that put it with the others."""
    text = re.sub(rf"(?m)^.*\b{NEW}\b.*\n", "", text)
    assert "'promptcache.hit_depth'" in text
    return text.replace("'promptcache.hit_depth', ", "")


def insert(ask: Ask, call: str, schema: int, **said: str) -> None:
    attributes = {
        semconv.CALL_ID: call,
        semconv.SCHEMA_VERSION: str(schema),
        semconv.STATUS: "hit",
        semconv.COST_TOTAL: "0.5",
        semconv.HIT_DEPTH: "0.25",
        **{name.replace("__", "."): value for name, value in said.items()},
    }
    pairs = ", ".join(f"'{name}', '{value}'" for name, value in attributes.items())
    ask(
        "INSERT INTO promptcache_events (Timestamp, EventName, ServiceName, LogAttributes, ResourceAttributes) "
        f"SELECT now64(9), '{semconv.EVENT_CALL}', 'shop', map({pairs}), map('service.name', 'shop')"
    )


@pytest.fixture(scope="module")
def upgraded() -> Iterator[Ask]:
    """Made by the version before, filled by it and by this one; upgraded; filled by both again, and by a next one."""
    text = SCHEMA.read_text()
    with clickhouse() as ask:
        for statement in statements(before(text)):
            ask(statement)
        insert(ask, "old-1", semconv.SCHEMA - 1)
        insert(ask, "new-1", semconv.SCHEMA)
        for _ in range(2):  # and again, by mistake
            for statement in statements(text):
                ask(statement)
        insert(ask, "old-2", semconv.SCHEMA - 1)
        insert(ask, "new-2", semconv.SCHEMA)
        insert(ask, "next", semconv.SCHEMA + 1, promptcache__of_tomorrow="yes")
        yield ask


def test_every_row_is_there_once_with_its_schema(upgraded: Ask) -> None:
    found = upgraded(
        "SELECT promptcache_call_id AS id, promptcache_schema AS schema FROM promptcache_calls ORDER BY id"
    )
    now = semconv.SCHEMA
    assert [(row["id"], int(row["schema"])) for row in found] == [
        ("new-1", now),
        ("new-2", now),
        ("next", now + 1),
        ("old-1", now - 1),
        ("old-2", now - 1),
    ]


def test_a_new_field_has_its_column_from_then_on(upgraded: Ask) -> None:
    """Before that it was kept with what had none."""
    found = upgraded(f"SELECT promptcache_call_id AS id, {NEW} AS value, other FROM promptcache_calls")
    rows = {row["id"]: (row["value"], row["other"]) for row in found}
    assert rows["new-1"] == (None, {"promptcache.hit_depth": "0.25"})
    assert rows["new-2"] == (0.25, {})


def test_a_field_of_tomorrow_is_kept(upgraded: Ask) -> None:
    (row,) = upgraded("SELECT other FROM promptcache_calls WHERE promptcache_call_id = 'next'")
    assert row["other"] == {"promptcache.of_tomorrow": "yes"}


@pytest.mark.parametrize("upgrading", [False, True], ids=["new", "upgraded"])
def test_a_gateway_may_run_while_the_tables_are_made(tmp_path: Path, upgrading: bool) -> None:
    """What comes between two statements is refused, so that the gateway sends it again, or is in its table whole."""
    text = SCHEMA.read_text()
    with empty_clickhouse(tmp_path) as server:
        ask = server.ask
        if upgrading:
            for statement in statements(before(text)):
                ask(statement)
        taken = []
        for place, statement in enumerate(statements(text)):
            ask(statement)
            try:
                insert(ask, f"call-{place:02}", semconv.SCHEMA)
                taken.append(place)
            except RuntimeError as error:
                assert BEING_MADE in str(error), error  # noqa: PT017 - not all are refused
        # Before the upgrade, where there is something to upgrade, and when it is done.
        assert taken == ([0, place] if upgrading else [place])
        found = ask(f"SELECT promptcache_call_id AS id, {NEW} AS new, other FROM promptcache_calls ORDER BY id")
        assert [row["id"] for row in found] == [f"call-{place:02}" for place in taken]
        assert (found[-1]["new"], found[-1]["other"]) == (0.25, {})


@pytest.mark.parametrize("file", sorted(QUERIES.glob("*.sql")), ids=lambda file: file.stem)
def test_the_dashboards_questions_can_be_asked(upgraded: Ask, file: Any) -> None:
    """Of a table that has rows of three versions."""
    upgraded(question(file))


def test_versions_side_by_side_are_named(upgraded: Ask) -> None:
    """By the query of the dashboard *Trust*."""
    found = upgraded(question(QUERIES / "ledger_health.sql", service="shop"))
    assert {int(row["schema"]): int(row["calls"]) for row in found} == {
        semconv.SCHEMA - 1: 2,
        semconv.SCHEMA: 2,
        semconv.SCHEMA + 1: 1,
    }


def test_names_of_processes_are_no_dictionary(upgraded: Ask) -> None:
    """There is one a process, of which there is no end: more than a dictionary is good for."""
    found = upgraded(
        "SELECT DISTINCT type FROM system.columns WHERE name = 'service_instance_id' AND table LIKE 'promptcache_%'"
    )
    assert [row["type"] for row in found] == ["String"]
