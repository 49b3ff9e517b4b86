"""Layers: the caches on a call's way, the providers' and those of engines that people run themselves."""

from boards.catalogue.marks import DEPLOYS
from boards.model import Board, Colour, Look, Panel, Prom, Section
from boards.promql import (
    BAR,
    ENGINE,
    MODEL,
    OF_ENGINE,
    PROVIDER,
    RANGE,
    by,
    called,
    hit_rate,
    increase,
    rate,
    select,
    series,
)
from otel_promptcache import semconv
from otel_promptcache.semconv import Metric

OF_AN_ENGINE = called(ENGINE, MODEL)


def of_engines(metric: Metric, window: str = RANGE) -> str:
    return increase(metric, ENGINE, MODEL, window=window, filters=OF_ENGINE)


FOUND = f"{of_engines(semconv.E_READ)} / {of_engines(semconv.E_INPUT)}"
ANEW = (
    f"({rate(semconv.E_INPUT, ENGINE, MODEL, filters=OF_ENGINE)}"
    f" - {rate(semconv.E_READ, ENGINE, MODEL, filters=OF_ENGINE)})"
    f" or {rate(semconv.E_UNCACHED, ENGINE, MODEL, filters=OF_ENGINE)}"
)
ENGINES = f"group by ({ENGINE}) ({select(series(semconv.E_INPUT), OF_ENGINE)})"
BY_CALLERS = by(f'label_replace({increase(semconv.M_READ, PROVIDER)}, "{ENGINE}", "$1", "{PROVIDER}", "(.+)")', ENGINE)

BOARD = Board(
    name="layers",
    title="Prompt cache / Layers",
    why="Which caches a call meets on its way: those of providers, and those of engines that you run yourselves.",
    marks=(DEPLOYS,),
    sections=(
        Section(
            title="As callers see it",
            panels=(
                Panel(
                    title="How much does each provider's cache serve?",
                    why="Tokens read ÷ input tokens, by provider, over the whole time range.",
                    look=Look.RANK,
                    asks=(Prom(ask=hit_rate(PROVIDER, window=RANGE), legend=called(PROVIDER)),),
                    unit="percentunit",
                    ceiling=1,
                    steps=((0.2, Colour.FAIR), (0.5, Colour.GOOD)),
                    width=8,
                ),
                Panel(
                    title="Which provider's cache are tokens read from?",
                    why="Tokens that a provider did not have to work out again.",
                    look=Look.BARS,
                    asks=(Prom(ask=increase(semconv.M_READ, PROVIDER, window=BAR), legend=called(PROVIDER)),),
                    width=8,
                ),
                Panel(
                    title="Which model's cache is worth the most?",
                    why="Cost without caching less the cost, by model. Below zero, writes cost more than reads saved.",
                    look=Look.RANK,
                    asks=(
                        Prom(
                            ask=f"{increase(semconv.M_COST_WITHOUT, MODEL)} - {increase(semconv.M_COST, MODEL)}",
                            legend=called(MODEL),
                        ),
                    ),
                    unit="currencyUSD",
                    steps=((0, Colour.GOOD),),
                    width=8,
                ),
            ),
        ),
        Section(
            title="As engines of your own count it",
            panels=(
                Panel(
                    title="How much of what it is asked does each engine find?",
                    why="Tokens found ÷ tokens looked up, of everything that is asked, by vLLM and SGLang. "
                    "Needs ENGINES on a gateway.",
                    look=Look.RANK,
                    asks=(Prom(ask=FOUND, legend=OF_AN_ENGINE),),
                    unit="percentunit",
                    ceiling=1,
                    steps=((0.2, Colour.FAIR), (0.5, Colour.GOOD)),
                    width=8,
                ),
                Panel(
                    title="How full is each engine's cache?",
                    why="The fullest process of each. Near 100 %, prefixes are dropped before they are read again.",
                    look=Look.LINES,
                    asks=(
                        Prom(
                            ask=f"max by ({ENGINE}, {MODEL}) ({select(series(semconv.E_USAGE), OF_ENGINE)})",
                            legend=OF_AN_ENGINE,
                        ),
                        Prom(
                            ask=f"max by ({ENGINE}, {MODEL}) ({select(series(semconv.E_HIT_RATIO), OF_ENGINE)})",
                            legend=f"{OF_AN_ENGINE}, share found lately",
                        ),
                    ),
                    unit="percentunit",
                    ceiling=1,
                    width=8,
                ),
                Panel(
                    title="How many tokens a second are worked out anew?",
                    why="The engine's own work on prompts: what a better prefix would take off it.",
                    look=Look.AREAS,
                    asks=(Prom(ask=ANEW, legend=OF_AN_ENGINE),),
                    unit="short",
                    width=8,
                ),
                Panel(
                    title="Who else uses the engines?",
                    why="Tokens read, as the engine counts them and as observed callers do. Where the engine counts "
                    "more, others share its cache; where callers do, one is not scraped.",
                    look=Look.RANK,
                    asks=(
                        Prom(
                            ask=increase(semconv.E_READ, ENGINE, filters=OF_ENGINE),
                            legend=f"{called(ENGINE)}, by the engine",
                        ),
                        Prom(
                            ask=f"{BY_CALLERS} and on ({ENGINE}) {ENGINES}",
                            legend=f"{called(ENGINE)}, by observed callers",
                        ),
                    ),
                    width=24,
                    height=6,
                ),
            ),
        ),
    ),
)
