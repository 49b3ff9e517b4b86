"""Whose money: who spends it, who loses it, and what for."""

from boards.catalogue.marks import DEPLOYS
from boards.model import Board, Colour, Column, Look, Panel, Prom, Section
from boards.promql import BAR, FEATURE, RANGE, REASON, ROUTE, TEAM, TENANT, by, called, increase, or_zero, saving
from otel_promptcache import semconv

_ITS = {label: f"${{__data.fields.{label}:percentencode}}" for label in (TEAM, ROUTE, REASON)}
_CHOSEN = f"var-team={_ITS[TEAM]}&var-route={_ITS[ROUTE]}&var-reason={_ITS[REASON]}"
_REASONS = "https://github.com/otel-promptcache/otel-promptcache/blob/main/docs/reasons.md"
CALLS = (("Its calls in the ledger", f"/d/promptcache-ledger?${{__url_time_range}}&{_CHOSEN}"),)
EXPLAINED = (("What it means, and what to do", f"{_REASONS}#{_ITS[REASON]}"),)
ROW = (
    (TEAM, Column(name="team", links=CALLS)),
    (ROUTE, Column(name="route", links=CALLS)),
    (REASON, Column(name="reason", links=EXPLAINED)),
    ("Value #A", Column(name="lost", unit="currencyUSD", links=CALLS)),
    ("Value #B", Column(name="lost tokens", unit="short")),
)

PARTIES = (
    (TEAM, "team", "`attribute(team=...)`"),
    (TENANT, "tenant", "`attribute(tenant=...)`, with tenant in OTEL_PROMPTCACHE_METRIC_KEYS"),
    (FEATURE, "feature", "`attribute(feature=...)`"),
)
"""Label, name, and where it comes from."""


def spends(label: str, name: str, origin: str) -> Panel:
    return Panel(
        title=f"What does each {name} spend and save?",
        why=f"From {origin}. Saving: cost without caching less the cost. Calls that name none: unattributed.",
        look=Look.TABLE,
        asks=(
            Prom(ask=increase(semconv.M_COST, label)),
            Prom(ask=saving(label, window=RANGE)),
            Prom(ask=increase(semconv.M_LOST_COST, label)),
        ),
        columns=(
            (label, Column(name=name)),
            ("Value #A", Column(name="spent", unit="currencyUSD")),
            ("Value #B", Column(name="saved", unit="currencyUSD")),
            ("Value #C", Column(name="lost", unit="currencyUSD")),
        ),
        sort="spent",
        width=8,
    )


BOARD = Board(
    name="money",
    title="Prompt cache / Whose money",
    why="Who spends, who saves, and what misses cost whom.",
    marks=(DEPLOYS,),
    since="now/d",
    sections=(
        Section(
            title="Misses",
            panels=(
                Panel(
                    title="What did misses cost today, by team, route and reason?",
                    why="A row leads to its calls in the ledger, its reason to what to do about it.",
                    look=Look.TABLE,
                    asks=(
                        Prom(ask=increase(semconv.M_LOST_COST, TEAM, ROUTE, REASON)),
                        Prom(ask=increase(semconv.M_LOST_TOKENS, TEAM, ROUTE, REASON)),
                    ),
                    columns=ROW,
                    sort="lost",
                    width=14,
                    height=10,
                ),
                Panel(
                    title="When was it lost, and to which reason?",
                    why="What a stable application would have read, at the price paid less the price of reading.",
                    look=Look.BARS,
                    asks=(Prom(ask=increase(semconv.M_LOST_COST, REASON, window=BAR), legend=called(REASON)),),
                    unit="currencyUSD",
                    width=10,
                    height=10,
                ),
            ),
        ),
        Section(title="Spend and saving", panels=tuple(spends(*party) for party in PARTIES)),
        Section(
            title="Budgets of the calendar month",
            panels=(
                Panel(
                    title="How much of its budget has each team spent?",
                    why="Of this month (UTC), up to the last whole hour. Budgets: deploy/prometheus/budgets.yaml.",
                    look=Look.RANK,
                    asks=(
                        Prom(
                            ask=by(
                                "team:promptcache_spend_usd:month_to_date / team:promptcache_budget_usd:month", TEAM
                            ),
                            legend=called(TEAM),
                        ),
                    ),
                    unit="percentunit",
                    ceiling=1,
                    steps=((0.8, Colour.FAIR), (1, Colour.BAD)),
                    width=8,
                ),
                Panel(
                    title="Where will the month end?",
                    why="So far, and at the end if the rest of the month goes on like the last week.",
                    look=Look.TABLE,
                    asks=tuple(
                        Prom(ask=by(one, TEAM))
                        for one in (
                            "team:promptcache_budget_usd:month",
                            "team:promptcache_spend_usd:month_to_date",
                            "team:promptcache_spend_usd:month_forecast",
                        )
                    ),
                    columns=(
                        (TEAM, Column(name="team")),
                        ("Value #A", Column(name="budget", unit="currencyUSD")),
                        ("Value #B", Column(name="so far", unit="currencyUSD")),
                        ("Value #C", Column(name="at its end", unit="currencyUSD")),
                    ),
                    sort="at its end",
                    width=8,
                ),
                Panel(
                    title="Which money has no team?",
                    why="Share of the cost whose calls name no team. They need attribute(team=...), or baggage keys.",
                    look=Look.FIGURE,
                    asks=(
                        Prom(
                            ask=f"({or_zero(increase(semconv.M_COST, where={TEAM: ''}))}) / {increase(semconv.M_COST)}",
                            legend="unattributed",
                        ),
                    ),
                    unit="percentunit",
                    decimals=1,
                    steps=((0.05, Colour.FAIR), (0.2, Colour.BAD)),
                    width=8,
                ),
            ),
        ),
    ),
)
