"""PromQL over our own metrics: names as the Collector writes them, and the filters of a dashboard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from otel_promptcache import semconv
from otel_promptcache.semconv import Metric

RATE: Final = "$__rate_interval"
"""The window of a line's points: they overlap, so that no gap shows."""
BAR: Final = "$__interval"
"""The window of bars, side by side: what they show adds up."""
RANGE: Final = "$__range"
"""The window of one figure for the whole time range."""


def label(name: str) -> str:
    """An attribute's name as a label."""
    return re.sub(r"\W", "_", name)


SERVICE, INSTANCE, VERSION = "service_name", "service_instance_id", "service_version"
ROUTE, PROVIDER, MODEL = label(semconv.ROUTE), label(semconv.PROVIDER), label(semconv.REQUEST_MODEL)
STATUS, REASON, TTL = label(semconv.STATUS), label(semconv.REASON), label(semconv.TTL)
COST_CLASS, PHASE, WHERE = label(semconv.COST_CLASS), label(semconv.PHASE), label(semconv.WHERE)
LIMIT_KIND, ERROR, ENGINE = label(semconv.LIMIT_KIND), label(semconv.ERROR_TYPE), label(semconv.ENGINE)
VERDICT, AGREEMENT = label(semconv.NATIVE_VERDICT), label(semconv.NATIVE_AGREEMENT)
TEAM, TENANT, FEATURE = (label(f"{semconv.ATTRIBUTION}.{key}") for key in ("team", "tenant", "feature"))

_VARIABLES: Final = {SERVICE: "service", PROVIDER: "provider", MODEL: "model", ROUTE: "route", TEAM: "team"}
OF_SERVICE: Final = (SERVICE,)
OF_MODEL: Final = (SERVICE, PROVIDER, MODEL)
OF_ENGINE: Final = (MODEL,)
OF_CALLS: Final = tuple(_VARIABLES)
"""The variables that a metric can be filtered by: some are of a process, some of an account at a provider."""

_ABSENT: Final = {TEAM: "unattributed", TENANT: "unattributed", FEATURE: "unattributed", STATUS: "none", REASON: "none"}
"""What a series is called that lacks a label: an empty legend says nothing."""

ANY: Final[Mapping[str, str]] = MappingProxyType({})
"""No condition beside the variables."""

_SHARED_NAMES: Final = ("gen_ai_client_",)
"""Other instrumentations have metrics of these names; ours have a route."""

_UNITS: Final = {"s": "_seconds", "USD": "_USD"}


def called(*labels: str) -> str:
    """A legend made of labels' values."""
    return " ".join(f"{{{{{one}}}}}" for one in labels)


def series(metric: Metric) -> str:
    """The name of a metric's series; of a histogram's without ``_bucket``, ``_count`` or ``_sum``."""
    return label(metric.name) + _UNITS.get(metric.unit, "") + ("_total" if metric.kind == "counter" else "")


def select(name: str, filters: tuple[str, ...] = OF_CALLS, where: Mapping[str, str] = ANY) -> str:
    """A selector: the dashboard's variables, and labels equal to a value or, with ``~``, matching it."""
    found = [f'{one}=~"${_VARIABLES[one]}"' for one in filters]
    for one, value in where.items():
        found.append(f'{one}=~"{value[1:]}"' if value.startswith("~") else f'{one}="{value}"')
    if name.startswith(_SHARED_NAMES):
        found.append(f'{ROUTE}!=""')
    return f"{name}{{{','.join(found)}}}"


def by(expression: str, *labels: str) -> str:
    """The sum by labels; what lacks one of them is named."""
    found = f"sum by ({', '.join(labels)}) ({expression})" if labels else f"sum({expression})"
    for one in labels:
        if one in _ABSENT:
            found = f'label_replace({found}, "{one}", "{_ABSENT[one]}", "{one}", "")'
    return found


def increase(
    metric: Metric,
    *labels: str,
    window: str = RANGE,
    filters: tuple[str, ...] = OF_CALLS,
    where: Mapping[str, str] = ANY,
) -> str:
    """How much a counter grew in a window, by labels."""
    return by(f"increase({select(series(metric), filters, where)}[{window}])", *labels)


def rate(metric: Metric, *labels: str, filters: tuple[str, ...] = OF_CALLS, where: Mapping[str, str] = ANY) -> str:
    """How much a counter grows a second, by labels."""
    return by(f"rate({select(series(metric), filters, where)}[{RATE}])", *labels)


def quantile(
    of: float,
    metric: Metric,
    *labels: str,
    filters: tuple[str, ...] = OF_CALLS,
    window: str = RATE,
    where: Mapping[str, str] = ANY,
) -> str:
    """A quantile of a histogram, by labels."""
    buckets = f"rate({select(f'{series(metric)}_bucket', filters, where)}[{window}])"
    return f"histogram_quantile({of}, {by(buckets, *labels, 'le')})"


def counted(
    metric: Metric,
    *labels: str,
    window: str = RANGE,
    filters: tuple[str, ...] = OF_CALLS,
    where: Mapping[str, str] = ANY,
) -> str:
    """How many values a histogram has taken in a window, by labels."""
    return by(f"increase({select(f'{series(metric)}_count', filters, where)}[{window}])", *labels)


def hit_rate(*labels: str, window: str = RATE) -> str:
    """Tokens read ÷ input tokens: from sums, never an average of ratios."""
    return f"{increase(semconv.M_READ, *labels, window=window)} / {increase(semconv.M_INPUT, *labels, window=window)}"


def uncached(*labels: str, window: str = RATE) -> str:
    """Input tokens that were neither read nor written."""
    rest = (increase(one, *labels, window=window) for one in (semconv.M_INPUT, semconv.M_READ, semconv.M_WRITE))
    return " - ".join(rest)


def saving(*labels: str, window: str = RATE) -> str:
    """What the cache saved: the cost without it, less the cost. Negative where more was written than read."""
    without, paid = (increase(one, *labels, window=window) for one in (semconv.M_COST_WITHOUT, semconv.M_COST))
    return f"{without} - {paid}"


def or_zero(expression: str) -> str:
    """0 where nothing was counted: the counters of what went wrong begin with the first of it."""
    return f"({expression}) or vector(0)"


def with_version(expression: str) -> str:
    """Series of processes with the version of their service, which is on ``target_info`` only."""
    versions = f'group by ({SERVICE}, {INSTANCE}, {VERSION}) (target_info{{{VERSION}!=""}})'
    return (
        f"{expression} * on ({SERVICE}, {INSTANCE}) group_left ({VERSION}) "
        f"topk by ({SERVICE}, {INSTANCE}) (1, {versions})"
    )
