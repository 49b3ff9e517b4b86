"""Overview: how calls go, and what the cache does for them."""

from boards.catalogue.marks import DEPLOYS
from boards.model import Board, Colour, Look, Panel, Prom, Section
from boards.promql import (
    BAR,
    COST_CLASS,
    MODEL,
    OF_CALLS,
    RANGE,
    RATE,
    ROUTE,
    STATUS,
    called,
    counted,
    hit_rate,
    increase,
    or_zero,
    quantile,
    rate,
    saving,
    select,
    series,
    uncached,
)
from otel_promptcache import semconv

FAILED = {"error_type": "~.+"}
CLASSES = (("read", Colour.GOOD), ("write", Colour.WRITE), ("uncached", Colour.UNCACHED), ("output", Colour.OUTPUT))
ERRORS = f"rate({select(series(semconv.M_DURATION) + '_count', OF_CALLS, where=FAILED)}[{RATE}])"
ALL = f"rate({select(series(semconv.M_DURATION) + '_count')}[{RATE}])"


def hit_rate_by_route(width: int = 12) -> Panel:
    """The same graph on several dashboards, beside what it explains."""
    return Panel(
        title="How much of the input is read from cache?",
        why="Tokens read from cache ÷ all input tokens, by route. A step down is a change: see What changed.",
        look=Look.LINES,
        asks=(Prom(ask=hit_rate(ROUTE), legend=called(ROUTE)),),
        unit="percentunit",
        ceiling=1,
        width=width,
    )


def first_chunk_by_status(width: int = 12) -> Panel:
    return Panel(
        title="Does a hit answer sooner?",
        why="Median time to the first chunk of streams, by what the cache did. A point's exemplar leads to its trace.",
        look=Look.LINES,
        asks=(Prom(ask=quantile(0.5, semconv.M_FIRST_CHUNK, STATUS), legend=called(STATUS), exemplars=True),),
        unit="s",
        colours=(("hit", Colour.GOOD), ("partial", Colour.FAIR), ("miss", Colour.BAD)),
        width=width,
    )


FIGURES = (
    Panel(
        title="Hit rate",
        why="Tokens read from cache ÷ all input tokens, over the whole time range.",
        look=Look.FIGURE,
        asks=(Prom(ask=hit_rate(window=RANGE), legend="hit rate"),),
        unit="percentunit",
        decimals=1,
        width=4,
        height=4,
    ),
    Panel(
        title="Cost",
        why="USD of all calls whose price is known, output included. What is not in it: Trust.",
        look=Look.FIGURE,
        asks=(Prom(ask=increase(semconv.M_COST), legend="cost"),),
        unit="currencyUSD",
        width=4,
        height=4,
    ),
    Panel(
        title="Saved by the cache",
        why="Cost without caching less the cost. Below zero, writes have cost more than reads have saved.",
        look=Look.FIGURE,
        asks=(Prom(ask=saving(window=RANGE), legend="saving"),),
        unit="currencyUSD",
        steps=((0, Colour.GOOD),),
        width=4,
        height=4,
    ),
    Panel(
        title="Lost to misses",
        why="What a stable application would have read and this one paid for. By team, route and reason: Whose money.",
        look=Look.FIGURE,
        asks=(Prom(ask=or_zero(increase(semconv.M_LOST_COST)), legend="lost"),),
        unit="currencyUSD",
        width=4,
        height=4,
    ),
    Panel(
        title="Failed calls",
        why="Share of calls that ended in an error, over the whole time range.",
        look=Look.FIGURE,
        asks=(
            Prom(
                ask=f"({or_zero(counted(semconv.M_DURATION, where=FAILED))}) / {counted(semconv.M_DURATION)}",
                legend="failed",
            ),
        ),
        unit="percentunit",
        decimals=2,
        steps=((0.01, Colour.FAIR), (0.05, Colour.BAD)),
        width=4,
        height=4,
    ),
    Panel(
        title="Alerts firing",
        why="Of the rules in deploy/prometheus; each leads to its page in the runbook.",
        look=Look.FIGURE,
        asks=(Prom(ask='count(ALERTS{alertname=~"PromptCache.+",alertstate="firing"}) or vector(0)', legend="firing"),),
        unit="none",
        steps=((1, Colour.BAD),),
        width=4,
        height=4,
    ),
)

BOARD = Board(
    name="overview",
    title="Prompt cache / Overview",
    why="How calls to models go, and what the provider's prompt cache does for them.",
    marks=(DEPLOYS,),
    sections=(
        Section(
            title="In this time range",
            panels=FIGURES,
        ),
        Section(
            title="Calls",
            panels=(
                Panel(
                    title="How many calls a second?",
                    why="Calls that carry a prompt, by route. Retries are part of their call.",
                    look=Look.AREAS,
                    asks=(Prom(ask=rate(semconv.M_CALLS, ROUTE), legend=called(ROUTE)),),
                    unit="reqps",
                    width=8,
                ),
                Panel(
                    title="What share of calls fails?",
                    why="Calls that ended in an error, by model. The provider's error type is on the span.",
                    look=Look.LINES,
                    asks=(Prom(ask=f"sum by ({MODEL}) ({ERRORS}) / sum by ({MODEL}) ({ALL})", legend=called(MODEL)),),
                    unit="percentunit",
                    width=8,
                ),
                Panel(
                    title="How long do calls take (p95)?",
                    why="From the request to the last byte, by model. A point's exemplar leads to its trace.",
                    look=Look.LINES,
                    asks=(Prom(ask=quantile(0.95, semconv.M_DURATION, MODEL), legend=called(MODEL), exemplars=True),),
                    unit="s",
                    width=8,
                ),
            ),
        ),
        Section(title="Cache", panels=(first_chunk_by_status(), hit_rate_by_route())),
        Section(
            title="Tokens and money",
            panels=(
                Panel(
                    title="Which class are the tokens of?",
                    why="Read is the cheapest input, written the dearest. Uncached: what nobody marked or stored.",
                    look=Look.BARS,
                    asks=(
                        Prom(ask=increase(semconv.M_READ, window=BAR), legend="read"),
                        Prom(ask=increase(semconv.M_WRITE, window=BAR), legend="write"),
                        Prom(ask=uncached(window=BAR), legend="uncached"),
                        Prom(ask=increase(semconv.M_OUTPUT, window=BAR), legend="output"),
                    ),
                    colours=CLASSES,
                ),
                Panel(
                    title="What does it cost, and what does the cache save?",
                    why="USD by token class, and as a line what the cache saved. Below zero: written for nobody.",
                    look=Look.BARS,
                    asks=(
                        Prom(ask=increase(semconv.M_COST, COST_CLASS, window=BAR), legend=called(COST_CLASS)),
                        Prom(ask=saving(window=BAR), legend="saving"),
                    ),
                    unit="currencyUSD",
                    colours=CLASSES,
                    over=("saving",),
                ),
            ),
        ),
    ),
)
