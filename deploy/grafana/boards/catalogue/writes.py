"""Writes and TTL: whether what is written is read, and for how long it should live."""

from boards.catalogue.marks import DEPLOYS
from boards.model import Board, Colour, Column, Look, Panel, Prom, Section, Sql
from boards.promql import BAR, ROUTE, TTL, called, increase, or_zero
from otel_promptcache import semconv

READS_A_WRITE = f"{increase(semconv.M_READ, ROUTE)} / ({increase(semconv.M_WRITE, ROUTE)} > 0)"

BOARD = Board(
    name="writes",
    title="Prompt cache / Writes and TTL",
    why="Whether cache writes pay: what is written, how often it is read, and how long it should live.",
    marks=(DEPLOYS,),
    since="now-24h",
    sections=(
        Section(
            title="Do writes pay?",
            panels=(
                Panel(
                    title="Paid for writes that nobody read",
                    why="The premium of entries that expired unread. It is known only when they expire.",
                    look=Look.FIGURE,
                    asks=(Prom(ask=or_zero(increase(semconv.M_UNREAD)), legend="unread"),),
                    unit="currencyUSD",
                    width=6,
                ),
                Panel(
                    title="When did writes expire unread, and for which lifetime were they?",
                    why="One lifetime after they were written. A longer one costs more to write.",
                    look=Look.BARS,
                    asks=(Prom(ask=increase(semconv.M_UNREAD, TTL, window=BAR), legend=called(TTL)),),
                    unit="currencyUSD",
                    width=10,
                ),
                Panel(
                    title="Which routes write for nobody?",
                    why="Mark the end of what requests share, or nothing at all where prompts are sent once.",
                    look=Look.TABLE,
                    asks=(Prom(ask=increase(semconv.M_UNREAD, ROUTE, TTL)),),
                    columns=(
                        (ROUTE, Column(name="route")),
                        (TTL, Column(name="lifetime")),
                        ("Value #A", Column(name="unread", unit="currencyUSD")),
                    ),
                    sort="unread",
                    width=8,
                ),
                Panel(
                    title="How often is a written token read?",
                    why="Tokens read ÷ tokens written, by route. From 1 on a 5-minute write has paid for itself, "
                    "from 2 on one of an hour; below that the cache costs money.",
                    look=Look.RANK,
                    asks=(Prom(ask=READS_A_WRITE, legend=called(ROUTE)),),
                    unit="none",
                    decimals=1,
                    steps=((1, Colour.FAIR), (2, Colour.GOOD)),
                ),
                Panel(
                    title="How much is written, how much read?",
                    why="Tokens. Writes that go on without reads behind them are entries that nobody comes back to.",
                    look=Look.BARS,
                    asks=(
                        Prom(ask=increase(semconv.M_READ, window=BAR), legend="read"),
                        Prom(ask=increase(semconv.M_WRITE, window=BAR), legend="write"),
                    ),
                    colours=(("read", Colour.GOOD), ("write", Colour.WRITE)),
                ),
            ),
        ),
        Section(
            title="Prefixes (ClickHouse)",
            folded=True,
            panels=(
                Panel(
                    title="Which prefixes pay for themselves?",
                    why="By prefix and lifetime: calls that wrote, calls that read, the premium of the writes, what "
                    "the reads saved, and the two together.",
                    look=Look.TABLE,
                    asks=(Sql(file="prefixes.sql"),),
                    columns=(
                        ("hit_rate", Column(name="hit rate", unit="percentunit")),
                        ("premium_usd", Column(name="premium", unit="currencyUSD")),
                        ("saved_usd", Column(name="saved", unit="currencyUSD")),
                        ("payback_usd", Column(name="payback", unit="currencyUSD")),
                    ),
                    width=24,
                    height=10,
                ),
                Panel(
                    title="How long is it from one call to the next with the same prefix?",
                    why="Start to start. The rows part at 5 minutes, 30 minutes and an hour: what lies above a "
                    "lifetime's line finds its entry expired.",
                    look=Look.HEATMAP,
                    asks=(Sql(file="gaps.sql"),),
                    width=24,
                ),
            ),
        ),
    ),
)
