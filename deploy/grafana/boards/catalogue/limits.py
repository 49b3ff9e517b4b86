"""Latency and limits: how soon an answer begins, and how much a provider still allows."""

from boards.catalogue.marks import DEPLOYS
from boards.catalogue.overview import first_chunk_by_status
from boards.model import Board, Colour, Column, Look, Panel, Prom, Section, Sql
from boards.promql import (
    BAR,
    LIMIT_KIND,
    MODEL,
    OF_MODEL,
    PROVIDER,
    ROUTE,
    STATUS,
    called,
    increase,
    quantile,
    select,
    series,
)
from otel_promptcache import semconv

LEFT = (
    f"min by ({PROVIDER}, {MODEL}, {LIMIT_KIND}) ({select(series(semconv.M_LIMIT_LEFT), OF_MODEL)})"
    f" / max by ({PROVIDER}, {MODEL}, {LIMIT_KIND}) ({select(series(semconv.M_LIMIT), OF_MODEL)} > 0)"
)
OF_A_LIMIT = called(MODEL, LIMIT_KIND)

BOARD = Board(
    name="limits",
    title="Prompt cache / Latency and limits",
    why="How soon answers begin, with and without the cache, and what is left of the provider's limits.",
    marks=(DEPLOYS,),
    sections=(
        Section(
            title="Latency",
            panels=(
                first_chunk_by_status(8),
                Panel(
                    title="How late does an answer begin at worst (p95)?",
                    why="Time to the first chunk of streams, by model. A point's exemplar leads to its trace.",
                    look=Look.LINES,
                    asks=(
                        Prom(ask=quantile(0.95, semconv.M_FIRST_CHUNK, MODEL), legend=called(MODEL), exemplars=True),
                    ),
                    unit="s",
                    width=8,
                ),
                Panel(
                    title="How long do calls take, by what the cache did (p95)?",
                    why="From the request to the last byte. Long answers hide what the cache saves.",
                    look=Look.LINES,
                    asks=(Prom(ask=quantile(0.95, semconv.M_DURATION, STATUS), legend=called(STATUS), exemplars=True),),
                    unit="s",
                    width=8,
                ),
            ),
        ),
        Section(
            title="Rate limits",
            panels=(
                Panel(
                    title="What is left of each limit?",
                    why="Remaining ÷ limit, as the newest headers say, for two minutes; the least of all processes.",
                    look=Look.RANK,
                    asks=(Prom(ask=LEFT, legend=OF_A_LIMIT),),
                    unit="percentunit",
                    ceiling=1,
                    steps=((0.1, Colour.FAIR), (0.25, Colour.GOOD)),
                    width=8,
                ),
                Panel(
                    title="How did the headroom develop?",
                    why="The same over time. Near zero, calls are refused.",
                    look=Look.LINES,
                    asks=(Prom(ask=LEFT, legend=OF_A_LIMIT),),
                    unit="percentunit",
                    ceiling=1,
                    width=8,
                ),
                Panel(
                    title="Who was refused, and what became of the call?",
                    why="Responses 429, retried ones too, by model and by what the cache did for the call in the end.",
                    look=Look.BARS,
                    asks=(
                        Prom(
                            ask=increase(semconv.M_REFUSED, MODEL, STATUS, window=BAR),
                            legend=called(MODEL, STATUS),
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    title="How much of the limits did misses spend?",
                    why="Lost tokens that counted against a limit on which reads do not count: headroom for nothing.",
                    look=Look.BARS,
                    asks=(Prom(ask=increase(semconv.M_LIMIT_LOST, ROUTE, window=BAR), legend=called(ROUTE)),),
                ),
                Panel(
                    title="How long were we asked to wait?",
                    why="The newest retry-after, for two minutes.",
                    look=Look.LINES,
                    asks=(
                        Prom(
                            ask=f"max by ({MODEL}) ({select(series(semconv.M_RETRY_AFTER), OF_MODEL)})",
                            legend=called(MODEL),
                        ),
                    ),
                    unit="s",
                ),
            ),
        ),
        Section(
            title="Calls (ClickHouse)",
            folded=True,
            panels=(
                Panel(
                    title="How much later does an answer begin for each token that is not read?",
                    why="One point a streamed call: input tokens that were not read, time to the first chunk.",
                    look=Look.SCATTER,
                    asks=(Sql(file="first_chunk.sql"),),
                    columns=(
                        ("unread_tokens", Column(name="tokens not read", unit="short")),
                        ("first_chunk", Column(name="time to first chunk", unit="s")),
                    ),
                    width=24,
                    height=10,
                ),
            ),
        ),
    ),
)
