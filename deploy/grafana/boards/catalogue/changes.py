"""What changed: by deploy, and by what the journal saw of prompts."""

from boards.catalogue.marks import DEPLOYS, INFO
from boards.catalogue.overview import hit_rate_by_route
from boards.model import Board, Column, Look, Mark, Panel, Prom, Section, Sql
from boards.promql import (
    BAR,
    RATE,
    REASON,
    ROUTE,
    SERVICE,
    TEAM,
    VERSION,
    by,
    called,
    increase,
    select,
    series,
    with_version,
)
from otel_promptcache import semconv

OF_ROUTE = (SERVICE, ROUTE, TEAM)
"""What recorded series can be filtered by."""


def _grown(metric: semconv.Metric) -> str:
    return by(with_version(f"increase({select(series(metric))}[{RATE}])"), SERVICE, VERSION)


EDITS = Mark(
    name="Prompt changes (ClickHouse)",
    ask=Sql(file="prefix_changes_marks.sql"),
    colour="orange",
    title="prompt",
    text="text",
)

BOARD = Board(
    name="changes",
    title="Prompt cache / What changed",
    why="Which deploy or edit of a prompt lies under a step in the graphs.",
    marks=(DEPLOYS, EDITS),
    sections=(
        Section(
            title="By deploy",
            panels=(
                Panel(
                    title="Which version loses what share of its money?",
                    why="USD lost ÷ USD spent in 30 minutes, by version and reason. A version that begins above the "
                    "one before has broken a prefix: PromptCacheLossAfterDeploy.",
                    look=Look.LINES,
                    asks=(
                        Prom(
                            ask=f"sum by ({SERVICE}, {VERSION}, {REASON}) ("
                            f"{select('version:promptcache_lost_usd:increase30m', OF_ROUTE)})"
                            f" / on ({SERVICE}, {VERSION}) group_left () sum by ({SERVICE}, {VERSION}) ("
                            f"{select('version:promptcache_cost_usd:increase30m', OF_ROUTE)})",
                            legend=called(SERVICE, VERSION, REASON),
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    title="What is each version's hit rate?",
                    why="Old and new side by side while both run. Read tokens ÷ input tokens.",
                    look=Look.LINES,
                    asks=(
                        Prom(
                            ask=f"{_grown(semconv.M_READ)} / {_grown(semconv.M_INPUT)}",
                            legend=called(SERVICE, VERSION),
                        ),
                    ),
                    unit="percentunit",
                    ceiling=1,
                ),
                hit_rate_by_route(),
                Panel(
                    title="Which reason came with it?",
                    why="USD lost by reason. system_changed, tools_changed and parameters_changed are edits.",
                    look=Look.BARS,
                    asks=(Prom(ask=increase(semconv.M_LOST_COST, REASON, window=BAR), legend=called(REASON)),),
                    unit="currencyUSD",
                ),
                Panel(
                    title="Which versions run, and in how many processes?",
                    why="From the resource of each process: service.version is what tells deploys apart.",
                    look=Look.TABLE,
                    asks=(Prom(ask=f"count by ({SERVICE}, {VERSION}) ({INFO})"),),
                    columns=(
                        (SERVICE, Column(name="service")),
                        (VERSION, Column(name="version")),
                        ("Value #A", Column(name="processes")),
                    ),
                    sort="service",
                    width=24,
                    height=6,
                ),
            ),
        ),
        Section(
            title="The journal (ClickHouse)",
            folded=True,
            panels=(
                Panel(
                    title="Which prompts were changed, where and how?",
                    why="Events promptcache.prefix.changed: a route's stable prefix took a new digest. once: an edit; "
                    "rollout: two versions at a time; every_request: something in it changes of itself.",
                    look=Look.TABLE,
                    asks=(Sql(file="prefix_changes.sql"),),
                    width=24,
                    height=10,
                ),
                Panel(
                    title="What does each version of a prompt cost?",
                    why="Calls, hit rate and loss by prefix, with the versions that sent it.",
                    look=Look.TABLE,
                    asks=(Sql(file="prefix_versions.sql"),),
                    columns=(
                        ("hit_rate", Column(name="hit rate", unit="percentunit")),
                        ("usd", Column(name="spent", unit="currencyUSD")),
                        ("lost_usd", Column(name="lost", unit="currencyUSD")),
                    ),
                    width=24,
                ),
            ),
        ),
    ),
)
