"""Ours or theirs: who can act on what is lost, and whether the provider says so too."""

from boards.catalogue.marks import DEPLOYS
from boards.catalogue.money import EXPLAINED
from boards.model import Board, Colour, Column, Look, Panel, Prom, Section
from boards.promql import AGREEMENT, BAR, MODEL, RANGE, REASON, VERDICT, called, increase, or_zero
from otel_promptcache import semconv
from otel_promptcache.vocabulary import REASON_INFO, Agreement, Reason

ACTORS = ("application", "configuration", "provider", "none")
MEANT = "application: the code or the prompt; configuration: keys, routes, gateways; provider: show it the ids."


def _lost_to(actor: str, window: str) -> str:
    """What was lost for reasons that somebody can act on: a reason's actor is a row of our vocabulary."""
    reasons = "|".join(reason.value for reason, info in REASON_INFO.items() if info.actor == actor)
    return or_zero(increase(semconv.M_LOST_COST, window=window, where={REASON: f"~{reasons}"}))


SPOKEN = f"~{'|'.join(one.value for one in Agreement if one is not Agreement.SILENT)}"
"""Where both have a verdict."""
COLOURS = (
    (Agreement.AGREE.value, Colour.GOOD),
    (Agreement.UNDECIDED.value, Colour.FAIR),
    (Agreement.THEIRS.value, Colour.BAD),
)

BOARD = Board(
    name="blame",
    title="Prompt cache / Ours or theirs",
    why="Who can act on what is lost: us, our configuration, or the provider.",
    marks=(DEPLOYS,),
    sections=(
        Section(
            title="Who can act",
            panels=(
                Panel(
                    title="Who could have kept it?",
                    why=MEANT,
                    look=Look.FIGURE,
                    asks=tuple(Prom(ask=_lost_to(actor, RANGE), legend=actor) for actor in ACTORS),
                    unit="currencyUSD",
                    width=8,
                ),
                Panel(
                    title="Who loses money when?",
                    why=MEANT,
                    look=Look.BARS,
                    asks=tuple(Prom(ask=_lost_to(actor, BAR), legend=actor) for actor in ACTORS),
                    unit="currencyUSD",
                    width=16,
                ),
                Panel(
                    title="Which reasons are behind it?",
                    why="A reason leads to its page: what it means, how it is known, what to change, with code.",
                    look=Look.TABLE,
                    asks=(
                        Prom(ask=increase(semconv.M_LOST_COST, REASON)),
                        Prom(ask=increase(semconv.M_LOST_TOKENS, REASON)),
                    ),
                    columns=(
                        (REASON, Column(name="reason", links=EXPLAINED)),
                        ("Value #A", Column(name="lost", unit="currencyUSD")),
                        ("Value #B", Column(name="lost tokens", unit="short")),
                    ),
                    sort="lost",
                ),
                Panel(
                    title="How often does a provider drop a live entry, by model and hour?",
                    why=f"Calls with the reason {Reason.PROVIDER_EVICTED}: prompt, scope and time were right, and "
                    "nothing was read.",
                    look=Look.BARS,
                    asks=(
                        Prom(
                            ask=increase(
                                semconv.M_CALLS, MODEL, window=BAR, where={REASON: Reason.PROVIDER_EVICTED.value}
                            ),
                            legend=called(MODEL),
                        ),
                    ),
                    interval="1h",
                ),
            ),
        ),
        Section(
            title="The provider's own verdicts (OTEL_PROMPTCACHE_NATIVE_DIAGNOSTICS)",
            panels=(
                Panel(
                    title="Do the provider's verdicts agree with ours?",
                    why="Calls with both verdicts that agree ÷ calls with both. undecided counts as no agreement.",
                    look=Look.FIGURE,
                    asks=(
                        Prom(
                            ask=f"{increase(semconv.M_NATIVE, where={AGREEMENT: Agreement.AGREE.value})}"
                            f" / {increase(semconv.M_NATIVE, where={AGREEMENT: SPOKEN})}",
                            legend="agree",
                        ),
                    ),
                    unit="percentunit",
                    decimals=1,
                    width=6,
                ),
                Panel(
                    title="Who is right when they differ?",
                    why="ours: token counts bear us out; theirs: it names a change that we did not find; silent: one "
                    "of the two says nothing.",
                    look=Look.BARS,
                    asks=(Prom(ask=increase(semconv.M_NATIVE, AGREEMENT, window=BAR), legend=called(AGREEMENT)),),
                    colours=COLOURS,
                    width=9,
                ),
                Panel(
                    title="What do we say, and what do they?",
                    why="Calls by our reason and the provider's word, as it came.",
                    look=Look.TABLE,
                    asks=(Prom(ask=increase(semconv.M_NATIVE, REASON, VERDICT, AGREEMENT)),),
                    columns=(
                        (REASON, Column(name="we", links=EXPLAINED)),
                        (VERDICT, Column(name="they")),
                        (AGREEMENT, Column(name="together")),
                        ("Value #A", Column(name="calls", unit="short")),
                    ),
                    sort="calls",
                    width=9,
                ),
            ),
        ),
    ),
)
