"""schema.py [--check]: writes schema.sql from the table of names, so that every field of an event has its column.

``--check`` writes nothing, and fails where the file is another. Needs the package itself, and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from otel_promptcache import semconv

FILE = Path(__file__).with_name("schema.sql")
LANDING = "promptcache_events"
"""What the Collector's exporter inserts into: `logs_table_name` in its configuration."""
CLOSED = "schema_sql_is_not_through"
"""A constraint that no row meets, while a row could find a view missing or old. Its name is what a Collector logs."""
TYPES = {"string": "String", "int": "Nullable(Int64)", "double": "Nullable(Float64)", "boolean": "Nullable(Bool)"}
"""What an event does not say is null, so that no sum takes it for a zero; a text is empty."""
FEW = {"low", "bounded", "bounded by prompt versions"}
FAMILIES = {
    semconv.ATTRIBUTION: {"team": "string", "tenant": "string", "feature": "string", "user": "string"},
    semconv.WRITE_TOKENS_BY_TTL: dict.fromkeys(("5m", "30m", "1h", "12h", "24h"), "int"),
    semconv.NATIVE: {"type": "string", "reason": "string", "missed_tokens": "int", "reusable_tokens": "int"},
    semconv.PRICE_CONTEXT: dict.fromkeys(
        ("tier", "speed", "geo", "processing", "upstream", "account", "ttls", "parts"), "string"
    ),
}
"""Fields of which the table of names has the first part. Others of a family are in the column `other`."""
COMMON = (semconv.PROVIDER, semconv.REQUEST_MODEL, semconv.ROUTE)
OF_RESOURCE = (
    "service.name",
    "service.version",
    "service.namespace",
    "service.instance.id",
    "deployment.environment.name",
)
EACH_ITS_OWN = {"service.instance.id"}
"""Of the resource; one value a process, which no dictionary of values makes smaller."""


class Table(NamedTuple):
    """A kind of event, one row each."""

    name: str
    event: str
    signal: str
    meaning: str
    key: tuple[str, ...]
    """Columns that tell one row from another, beside service and time: what is sent twice is there once."""
    also: tuple[str, ...] = ()
    """Fields that are said of other signals in the table of names."""
    families: tuple[str, ...] = ()
    days: int = 400


TABLES = (
    Table(
        "promptcache_calls",
        semconv.EVENT_CALL,
        "ledger",
        "The ledger: one row a call.",
        (semconv.CALL_ID,),
        families=tuple(FAMILIES),
    ),
    Table(
        "promptcache_changes",
        semconv.EVENT_CHANGED,
        "journal",
        "The change journal: one row a change of a prompt.",
        (semconv.CHANGE_OLD, semconv.CHANGE_NEW),
        (*COMMON, semconv.REASON, semconv.CAUSE, semconv.PATH, semconv.LINE, semconv.PROMPT_NAME, semconv.KEY_ID),
    ),
    Table(
        "promptcache_advice",
        semconv.EVENT_ADVICE,
        "advice",
        "Advice on breakpoints and lifetimes: one row each time that it is given.",
        (semconv.ROUTE, semconv.ADVICE, semconv.REQUEST_MODEL),
        COMMON,
        (semconv.ATTRIBUTION,),
    ),
)


def column(name: str) -> str:
    return name.replace(".", "_")


def columns(table: Table) -> dict[str, tuple[str, str]]:
    """Field to column type and to how it is read from the attributes of the log record."""
    found = {}
    for field in semconv.FIELDS.values():
        if (table.signal in field.signals.split(", ") or field.name in table.also) and field.type in TYPES:
            found[field.name] = (field.type, field.cardinality)
    for family, members in FAMILIES.items():
        found.pop(family, None)
        if family in table.families:
            found |= {f"{family}.{key}": (kind, "high") for key, kind in members.items()}
    return {name: _typed(name, kind, cardinality) for name, (kind, cardinality) in found.items()}


def _typed(name: str, kind: str, cardinality: str) -> tuple[str, str]:
    value = f"LogAttributes['{name}']"
    if kind == "string":
        return ("LowCardinality(String)" if cardinality in FEW else "String"), value
    if kind == "boolean":
        return TYPES[kind], f"multiIf({value} = 'true', true, {value} = 'false', false, NULL)"
    return TYPES[kind], f"to{'Int64' if kind == 'int' else 'Float64'}OrNull({value})"


def statements(table: Table) -> list[str]:
    fields = columns(table)
    rows = [
        ("timestamp", "DateTime64(9) CODEC(Delta, ZSTD(1))", "Timestamp"),
        ("trace_id", "String", "TraceId"),
        ("span_id", "String", "SpanId"),
        *(
            (
                column(name),
                "String" if name in EACH_ITS_OWN else "LowCardinality(String)",
                f"ResourceAttributes['{name}']",
            )
            for name in OF_RESOURCE
        ),
        *((column(name), kind, value) for name, (kind, value) in fields.items()),
    ]
    known = ", ".join(f"'{name}'" for name in (*fields, semconv.EVENT_NAME))
    rows.append(
        (
            "other",
            "Map(LowCardinality(String), String)",
            f"mapFilter((name, value) -> NOT has([{known}], name), LogAttributes)",
        )
    )
    declared = ",\n".join(f"    {name} {kind}" for name, kind, _ in rows)
    read = ",\n".join(f"    {value} AS {name}" for name, _, value in rows)
    key = ", ".join(("service_name", "timestamp", *map(column, table.key)))
    stored = f"{table.name}_stored"
    table_of_rows = f"""\
-- {table.meaning}
CREATE TABLE IF NOT EXISTS {stored} (
{declared},
    INDEX by_trace trace_id TYPE bloom_filter GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY ({key})
TTL toDateTime(timestamp) + INTERVAL {table.days} DAY
SETTINGS ttl_only_drop_parts = 1"""
    added = ",\n".join(f"    ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind, _ in rows)
    select = f"""\
SELECT
{read}
FROM {LANDING}
WHERE if(EventName = '', LogAttributes['{semconv.EVENT_NAME}'], EventName) = '{table.event}'"""
    filled = f"CREATE MATERIALIZED VIEW IF NOT EXISTS {table.name}_filled TO {stored} AS\n{select}"
    asked = f"""\
CREATE OR REPLACE VIEW {table.name} AS
SELECT * FROM {stored} FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1"""
    return [
        table_of_rows,
        f"-- Columns that tables of an earlier version do not have.\nALTER TABLE {stored}\n{added}",
        filled,
        f"ALTER TABLE {table.name}_filled MODIFY QUERY\n{select}",
        asked,
    ]


def schema() -> str:
    """The whole file."""
    landing = f"""\
-- Written by schema.py; change that. Run once, and again after an upgrade; Collectors may be running:
--     clickhouse-client --multiquery < schema.sql
-- From the first statement to the last {LANDING} takes no rows ({CLOSED}), and they
-- wait in the Collectors' queues: one that came before its view would be in no other table. If it broke off, run it
-- again.
--
-- The exporter inserts into {LANDING}; the views below sort its rows into a table for each kind of event. A
-- retried export brings a row twice: ask {", ".join(table.name for table in TABLES)},
-- where each is once. The tables end with _stored; how long they keep what is in their TTL:
--     ALTER TABLE promptcache_calls_stored MODIFY TTL toDateTime(timestamp) + INTERVAL 90 DAY

-- What arrived in the last days, as it arrived: enough to fill a table anew.
CREATE TABLE IF NOT EXISTS {LANDING} (
    Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
    TraceId String,
    SpanId String,
    TraceFlags UInt8,
    SeverityText LowCardinality(String),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String),
    Body String,
    ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String),
    ScopeSchemaUrl LowCardinality(String),
    ScopeName LowCardinality(String),
    ScopeVersion LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String),
    EventName LowCardinality(String),
    CONSTRAINT {CLOSED} CHECK false
) ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, Timestamp)
TTL toDateTime(Timestamp) + INTERVAL 7 DAY
SETTINGS ttl_only_drop_parts = 1"""
    parts = [
        landing,
        f"ALTER TABLE {LANDING} ADD CONSTRAINT IF NOT EXISTS {CLOSED} CHECK false",
        *(statement for table in TABLES for statement in statements(table)),
        f"-- From here on there is a place for every row.\nALTER TABLE {LANDING} DROP CONSTRAINT IF EXISTS {CLOSED}",
    ]
    return ";\n\n".join(parts) + ";\n"


def main() -> int:
    text = schema()
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text)
    elif not FILE.exists() or FILE.read_text() != text:
        print(f"{FILE.name} is not what the table of names makes: run schema.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
