"""Trust: what is in none of these figures, and what watching costs."""

from boards.model import Board, Colour, Column, Look, Panel, Prom, Section, Sql
from boards.promql import (
    BAR,
    MODEL,
    OF_MODEL,
    OF_SERVICE,
    PHASE,
    PROVIDER,
    ROUTE,
    SERVICE,
    TEAM,
    WHERE,
    by,
    called,
    increase,
    label,
    or_zero,
    quantile,
    select,
    series,
)
from otel_promptcache import semconv

LOOKUP = label(semconv.LOOKUP)
OURS, SCHEMA, KEY = label(semconv.PACKAGE_VERSION), label(semconv.SCHEMA_VERSION), label(semconv.KEY_ID)
INFO = select(series(semconv.M_INFO), OF_SERVICE)
KEYED = select(series(semconv.M_INFO), OF_SERVICE, where={KEY: "~.+"})
CALLS = increase(semconv.M_CALLS)
SHARES = ((0.01, Colour.FAIR), (0.05, Colour.BAD))


def _share(title: str, why: str, part: str) -> Panel:
    """Of all calls."""
    return Panel(
        title=title,
        why=why,
        look=Look.FIGURE,
        asks=(Prom(ask=f"({or_zero(part)}) / {CALLS}", legend="of all calls"),),
        unit="percentunit",
        decimals=2,
        steps=SHARES,
        width=6,
        height=5,
    )


LABELS = ((ROUTE, "route"), (MODEL, "model"), (TEAM, "team"))


def _values(of: str) -> str:
    """How many values of a label are in use."""
    return f"count(group by ({of}) ({select(series(semconv.M_CALLS), OF_SERVICE, where={of: '~.+'})}))"


BOARD = Board(
    name="trust",
    title="Prompt cache / Trust",
    why="Whether the other dashboards can be believed: what is in none of their sums, and what watching costs.",
    sections=(
        Section(
            title="What is not counted",
            panels=(
                _share(
                    "Calls without a price",
                    "In no sum of money. A price file names the model: OTEL_PROMPTCACHE_PRICE_FILE.",
                    increase(semconv.M_UNPRICED),
                ),
                _share(
                    "Calls without usage",
                    "In no sum of tokens or money. Streams of Chat Completions: OTEL_PROMPTCACHE_STREAM_USAGE.",
                    increase(semconv.M_NO_USAGE),
                ),
                Panel(
                    title="Errors of ours",
                    why="Contained: the application did not notice. By room in the graph below.",
                    look=Look.FIGURE,
                    asks=(Prom(ask=or_zero(increase(semconv.M_ERRORS, filters=OF_SERVICE)), legend="errors"),),
                    unit="none",
                    decimals=0,
                    steps=((1, Colour.FAIR), (100, Colour.BAD)),
                    width=6,
                    height=5,
                ),
                _share(
                    "Calls past the hundredth label",
                    f"A label keeps its first hundred values; later ones are {semconv.OVERFLOW}. Often ids in routes.",
                    increase(semconv.M_CALLS, where={ROUTE: semconv.OVERFLOW}),
                ),
                Panel(
                    title="Which models have no price?",
                    why="Calls in the time range.",
                    look=Look.TABLE,
                    asks=(Prom(ask=increase(semconv.M_UNPRICED, SERVICE, PROVIDER, MODEL)),),
                    columns=(
                        (SERVICE, Column(name="service")),
                        (PROVIDER, Column(name="provider")),
                        (MODEL, Column(name="model")),
                        ("Value #A", Column(name="calls", unit="short")),
                    ),
                    sort="calls",
                    width=8,
                ),
                Panel(
                    title="Whose answers have no usage?",
                    why="Calls in the time range.",
                    look=Look.TABLE,
                    asks=(Prom(ask=increase(semconv.M_NO_USAGE, SERVICE, ROUTE, MODEL)),),
                    columns=(
                        (SERVICE, Column(name="service")),
                        (ROUTE, Column(name="route")),
                        (MODEL, Column(name="model")),
                        ("Value #A", Column(name="calls", unit="short")),
                    ),
                    sort="calls",
                    width=8,
                ),
                Panel(
                    title="How near is each label to its limit of a hundred values?",
                    why=f"Values in use, by label. At a hundred, new ones become {semconv.OVERFLOW}.",
                    look=Look.RANK,
                    asks=tuple(Prom(ask=_values(one), legend=name) for one, name in LABELS),
                    unit="none",
                    ceiling=100,
                    steps=((80, Colour.FAIR), (100, Colour.BAD)),
                    width=8,
                ),
            ),
        ),
        Section(
            title="What watching costs",
            panels=(
                Panel(
                    title="How long does a call wait for us?",
                    why="Our own time on the caller's thread: the middle one, and one in a hundred. Alert above 10 ms.",
                    look=Look.LINES,
                    asks=tuple(
                        Prom(
                            ask=quantile(of, semconv.M_OVERHEAD, PHASE, filters=OF_SERVICE),
                            legend=f"{called(PHASE)} {name}",
                        )
                        for of, name in ((0.5, "p50"), (0.99, "p99"))
                    ),
                    unit="s",
                    steps=((0.01, Colour.BAD),),
                ),
                Panel(
                    title="Where do errors of ours happen?",
                    why="By room. A handful is a provider's surprise; many are worth an issue.",
                    look=Look.BARS,
                    asks=(
                        Prom(
                            ask=increase(semconv.M_ERRORS, WHERE, window=BAR, filters=OF_SERVICE),
                            legend=called(WHERE),
                        ),
                        Prom(
                            ask=increase(semconv.M_LIMIT_MALFORMED, window=BAR, filters=OF_MODEL),
                            legend="rate-limit headers without a number",
                        ),
                    ),
                ),
            ),
        ),
        Section(
            title="Do all workers speak alike?",
            panels=(
                Panel(
                    title="Versions of the instrumentation that run",
                    why="One is best. Meanings have a version of their own (schema): a reader of N understands N - 1.",
                    look=Look.FIGURE,
                    asks=(Prom(ask=f"count(group by ({OURS}) ({INFO}))", legend="versions"),),
                    unit="none",
                    steps=((2, Colour.FAIR), (3, Colour.BAD)),
                    width=6,
                ),
                Panel(
                    title="Hash keys in use",
                    why="Of processes with OTEL_PROMPTCACHE_HASH_KEY: more than one in a service, and what one worker "
                    "sent another does not recognise (PromptCacheKeyMismatch).",
                    look=Look.FIGURE,
                    asks=(
                        Prom(
                            ask=f"count by ({SERVICE}) (group by ({SERVICE}, {KEY}) ({KEYED}))",
                            legend=called(SERVICE),
                        ),
                    ),
                    unit="none",
                    steps=((2, Colour.BAD),),
                    width=6,
                ),
                Panel(
                    title="Which version and key has each service?",
                    why="Processes, by version of this package and of the meanings (schema), and by their hash key.",
                    look=Look.TABLE,
                    asks=(Prom(ask=f"count by ({SERVICE}, {OURS}, {SCHEMA}, {KEY}) ({INFO})"),),
                    columns=(
                        (SERVICE, Column(name="service")),
                        (OURS, Column(name="version")),
                        (SCHEMA, Column(name="schema")),
                        (KEY, Column(name="key")),
                        ("Value #A", Column(name="processes")),
                    ),
                    sort="service",
                ),
                Panel(
                    title="How long has each service been silent?",
                    why="Since its newest counters. They are gone five minutes after its last word: "
                    "PromptCacheTelemetryAbsent.",
                    look=Look.RANK,
                    asks=(
                        Prom(
                            ask=f"time() - max_over_time(timestamp(count by ({SERVICE}) "
                            f"({select(series(semconv.M_CALLS), OF_SERVICE)}))[6h:15s])",
                            legend=called(SERVICE),
                        ),
                    ),
                    unit="s",
                    steps=((300, Colour.FAIR), (900, Colour.BAD)),
                    width=12,
                ),
                Panel(
                    title="Does the shared history answer in time?",
                    why="Look-ups with OTEL_PROMPTCACHE_HISTORY_URL, by outcome. late, failed and skipped ones are no "
                    "misfortune: the worker's own memory decides, and knows less.",
                    look=Look.BARS,
                    asks=(
                        Prom(
                            ask=increase(semconv.M_LOOKUPS, LOOKUP, window=BAR, filters=OF_SERVICE),
                            legend=called(LOOKUP),
                        ),
                    ),
                    colours=(("answered", Colour.GOOD), ("late", Colour.FAIR), ("failed", Colour.BAD)),
                    width=6,
                ),
                Panel(
                    title="How often did a worker meet another key?",
                    why="Kinds of workers with another hash key in the shared history, as each worker saw them so far.",
                    look=Look.LINES,
                    asks=(
                        Prom(
                            ask=by(select(series(semconv.M_KEY_MISMATCH), OF_SERVICE), SERVICE), legend=called(SERVICE)
                        ),
                    ),
                    unit="none",
                    width=6,
                ),
            ),
        ),
        Section(
            title="The ledger (ClickHouse)",
            folded=True,
            panels=(
                Panel(
                    title="Is every call in the ledger once, and under which schema?",
                    why="Calls, calls without a price or usage, and repeated ids, by service, schema and key.",
                    look=Look.TABLE,
                    asks=(Sql(file="ledger_health.sql"),),
                    width=24,
                ),
            ),
        ),
    ),
)
