"""Ledger: the calls themselves, one row each. The rows of other dashboards lead here."""

from boards.model import Board, Column, Look, Panel, Section, Sql

RANGE = "%22range%22:%7B%22from%22:%22${__from}%22,%22to%22:%22${__to}%22%7D"


def _trace(source: str) -> str:
    """Explore, with the trace of a row. Both data sources take an id as their query."""
    query = "%7B%22refId%22:%22A%22,%22queryType%22:%22traceql%22,%22query%22:%22${__data.fields.trace_id}%22%7D"
    pane = f"%7B%22t%22:%7B%22datasource%22:%22{source}%22,%22queries%22:%5B{query}%5D,{RANGE}%7D%7D"
    return f"/explore?schemaVersion=1&panes={pane}"


BOARD = Board(
    name="ledger",
    title="Prompt cache / Ledger",
    why="The calls themselves, from ClickHouse: one row each, whatever a trace sampler kept.",
    sections=(
        Section(
            title="Calls (ClickHouse)",
            panels=(
                Panel(
                    title="What is all of it worth?",
                    why="Of the calls below, and of those that did not fit: calls, cost, loss.",
                    look=Look.FIGURE,
                    asks=(Sql(file="calls_summary.sql"),),
                    columns=(
                        ("usd", Column(name="cost", unit="currencyUSD")),
                        ("lost_usd", Column(name="lost", unit="currencyUSD")),
                        ("hit_rate", Column(name="hit rate", unit="percentunit")),
                    ),
                    width=24,
                    height=4,
                ),
                Panel(
                    title="Which calls lost the most?",
                    why="The five hundred dearest misses. The trace id leads to the span, which links to the call that "
                    "should have been matched; `otel-promptcache explain` says of an id what to do.",
                    look=Look.TABLE,
                    asks=(Sql(file="calls.sql"),),
                    columns=(
                        (
                            "trace_id",
                            Column(
                                name="trace",
                                links=(
                                    ("Trace in Jaeger", _trace("${jaeger}")),
                                    ("Trace in Tempo", _trace("${tempo}")),
                                ),
                            ),
                        ),
                        ("usd", Column(name="cost", unit="currencyUSD")),
                        ("lost_usd", Column(name="lost", unit="currencyUSD")),
                        ("seconds", Column(name="took", unit="s")),
                    ),
                    width=24,
                    height=18,
                ),
            ),
        ),
    ),
)
