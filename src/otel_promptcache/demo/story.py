"""What the telemetry of a run says: calls, causes, totals, and whether all of its signals tell the same.

Every figure comes from what arrived over OTLP. Nothing here knows which faults the agent had.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from otel_promptcache import semconv
from otel_promptcache.analysis.ledger import verdict
from otel_promptcache.demo.promptmap import PromptMap, maps
from otel_promptcache.demo.receiver import Arrived, Attributes, Event
from otel_promptcache.demo.stage import AgentFailedError, Run
from otel_promptcache.model import Diagnosis
from otel_promptcache.semconv import Cause, Metric, Reason, Status

DAYS: Final = 30
"""Days of a month, for what a fix is worth."""

FAILURES: Final = frozenset({Status.MISS, Status.PARTIAL})

_COST_CLASSES: Final = {
    "read": semconv.COST_READ,
    "write": semconv.COST_WRITE,
    "uncached": semconv.COST_UNCACHED,
    "output": semconv.COST_OUTPUT,
}


class Problem(NamedTuple):
    """What makes two misses the same: one explanation and one fix do for all of them."""

    route: str
    reason: Reason
    cause: Cause | None
    place: str
    """The path without the number of the message, which grows with the conversation."""


@dataclass(frozen=True)
class Call:
    """One call, from its ledger record and its prompt map."""

    route: str
    model: str
    status: Status
    reason: Reason | None
    cause: Cause | None
    path: str
    line: int | None
    input: int
    read: int
    write: int
    fresh: int
    expected: int
    lost: int
    cost_usd: float
    input_usd: float
    lost_usd: float
    map: PromptMap | None
    verdict: Diagnosis | None = None
    """With what it rests on, as the ledger tells it."""
    lost_so_far: float = 0.0
    """USD that the same problem has cost up to and with this call."""
    repeats: bool = False
    """Whether an earlier call of the run had the same problem."""

    @property
    def problem(self) -> Problem | None:
        """None where there is nothing to explain."""
        if self.status not in FAILURES or self.reason is None:
            return None
        place = re.sub(r"^(messages|input)\[\d+\]", r"\1[*]", self.path)
        return Problem(self.route, self.reason, self.cause, place)


@dataclass(frozen=True)
class Totals:
    """Sums over the calls of a run."""

    calls: int
    statuses: Mapping[Status, int]
    input: int
    read: int
    input_usd: float
    cost_usd: float
    lost_usd: float

    @property
    def hit_rate(self) -> float:
        """Share of the input tokens that was read from cache."""
        return self.read / self.input if self.input else 0.0


class Act(NamedTuple):
    """A run, told."""

    calls: list[Call]
    totals: Totals
    lost_usd: dict[Problem, float]
    disagreements: list[str]
    """Where ledger, metrics, prompt maps and the provider do not say the same; none is as it should be."""
    lines: int
    """Lines of text that the agent sent to the provider."""
    shown: int
    """How many of them were found in the telemetry; none is as it should be."""

    def routes(self) -> dict[str, Totals]:
        """Totals by route, in the order of their first calls."""
        by_route: dict[str, list[Call]] = {}
        for call in self.calls:
            by_route.setdefault(call.route, []).append(call)
        return {route: totals(calls) for route, calls in by_route.items()}


def told(run: Run) -> Act:
    """What a run's telemetry says. Raises AgentFailedError where there is none."""
    ledger = _ledger(run.arrived)
    if not ledger:
        raise AgentFailedError(f"no ledger record arrived over OTLP; the agent said:\n{run.said or 'nothing'}")
    found = maps(run.arrived.events)
    calls: list[Call] = []
    lost: dict[Problem, float] = {}
    for record in ledger:
        call = _call(record.attributes, found)
        if (problem := call.problem) is not None:
            repeats = problem in lost
            lost[problem] = lost.get(problem, 0.0) + call.lost_usd
            call = replace(call, lost_so_far=lost[problem], repeats=repeats)
        calls.append(call)
    lines = sent_lines(run)
    return Act(
        calls,
        totals(calls),
        lost,
        [*_against_counters(ledger, run.arrived), *_against_provider(calls, run)],
        len(lines),
        sum(any(line in payload for payload in run.arrived.payloads) for line in lines),
    )


def totals(calls: Sequence[Call]) -> Totals:
    return Totals(
        calls=len(calls),
        statuses=Counter(call.status for call in calls),
        input=sum(call.input for call in calls),
        read=sum(call.read for call in calls),
        input_usd=math.fsum(call.input_usd for call in calls),
        cost_usd=math.fsum(call.cost_usd for call in calls),
        lost_usd=math.fsum(call.lost_usd for call in calls),
    )


def a_month(usd: float, calls: int, calls_a_day: int) -> float:
    """What ``usd`` in a run of so many calls comes to in a month of such traffic."""
    return usd / calls * calls_a_day * DAYS if calls else 0.0


def factor(larger: float, smaller: float) -> float | None:
    """How many times larger; None where there is no such number."""
    return larger / smaller if smaller else None


def _ledger(arrived: Arrived) -> list[Event]:
    """The ledger records in the order in which the calls were begun; records of the first calls may come late."""
    started = {span.span_id: span.started for span in arrived.spans}
    records = [event for event in arrived.events if event.name == semconv.EVENT_CALL]
    return sorted(records, key=lambda record: started.get(record.span_id, record.at))


def _call(record: Attributes, found: Mapping[str, PromptMap]) -> Call:
    def number(name: str) -> Any:
        return record.get(name, 0)

    reason, cause = record.get(semconv.REASON), record.get(semconv.CAUSE)
    return Call(
        route=str(record.get(semconv.ROUTE, "")),
        model=str(record.get(semconv.REQUEST_MODEL, "")),
        status=Status(record.get(semconv.STATUS, Status.UNKNOWN)),
        reason=Reason(reason) if reason else None,
        cause=Cause(cause) if cause else None,
        path=str(record.get(semconv.PATH, "")),
        line=record.get(semconv.LINE),
        input=number(semconv.INPUT_TOKENS),
        read=number(semconv.CACHE_READ_TOKENS),
        write=number(semconv.CACHE_WRITE_TOKENS),
        fresh=number(semconv.UNCACHED_TOKENS),
        expected=number(semconv.EXPECTED_TOKENS),
        lost=number(semconv.LOST_TOKENS),
        cost_usd=number(semconv.COST_TOTAL),
        input_usd=number(semconv.COST_READ) + number(semconv.COST_WRITE) + number(semconv.COST_UNCACHED),
        lost_usd=number(semconv.LOST_USD),
        map=found.get(str(record.get(semconv.CALL_ID))),
        verdict=verdict(record),
    )


# --- Do all signals say the same? ---------------------------------------------------------------------------

_SUMS: Final[tuple[tuple[Metric, str], ...]] = (
    # A counter, and the field of the ledger whose sum it must be.
    (semconv.M_INPUT, semconv.INPUT_TOKENS),
    (semconv.M_OUTPUT, semconv.OUTPUT_TOKENS),
    (semconv.M_READ, semconv.CACHE_READ_TOKENS),
    (semconv.M_WRITE, semconv.CACHE_WRITE_TOKENS),
    (semconv.M_COST_WITHOUT, semconv.COST_WITHOUT_CACHE),
    (semconv.M_LOST_TOKENS, semconv.LOST_TOKENS),
    (semconv.M_LOST_COST, semconv.LOST_USD),
)

Sums = defaultdict[tuple[str, ...], float]
"""Totals by metric and label values."""


def _against_counters(ledger: Iterable[Event], arrived: Arrived) -> list[str]:
    """Sums of the ledger that differ from the counters that arrived beside it."""
    summed: Sums = defaultdict(float)
    for record in ledger:
        fields = record.attributes
        label = str(fields.get(semconv.REASON, ""))
        summed[semconv.M_CALLS.name, str(fields.get(semconv.STATUS, "")), label] += 1
        for metric, name in _SUMS:
            summed[metric.name, label if semconv.REASON in metric.labels else ""] += fields.get(name, 0)
        for kind, name in _COST_CLASSES.items():
            summed[semconv.M_COST.name, kind] += fields.get(name, 0)
    counted: Sums = defaultdict(float)
    for point in arrived.points:
        counted[_key(point.metric, point.attributes)] += point.value
    known = {metric.name for metric, _ in _SUMS} | {semconv.M_CALLS.name, semconv.M_COST.name}
    return [
        f"{' '.join(filter(None, key))}: ledger {summed.get(key, 0):g}, counter {counted.get(key, 0):g}"
        for key in sorted(summed.keys() | {key for key in counted if key[0] in known})
        if not math.isclose(summed.get(key, 0), counted.get(key, 0), rel_tol=1e-9, abs_tol=1e-12)
    ]


def _key(metric: str, attributes: Attributes) -> tuple[str, ...]:
    reason = str(attributes.get(semconv.REASON, ""))
    if metric == semconv.M_CALLS.name:
        return metric, str(attributes.get(semconv.STATUS, "")), reason
    if metric == semconv.M_COST.name:
        return metric, str(attributes.get(semconv.COST_CLASS, ""))
    return metric, reason


def _against_provider(calls: Sequence[Call], run: Run) -> list[str]:
    """Calls and tokens that the provider counted otherwise."""
    billed = [one.accounting for one in run.received if one.accounting is not None]
    pairs = (
        ("calls", len(billed), len(calls)),
        ("input tokens", sum(one.total for one in billed), sum(call.input for call in calls)),
        ("tokens read", sum(one.read for one in billed), sum(call.read for call in calls)),
        ("tokens written", sum(one.write for one in billed), sum(call.write for call in calls)),
        ("prompt maps", len(billed), sum(call.map is not None for call in calls)),
    )
    return [f"{name}: provider {theirs}, telemetry {ours}" for name, theirs, ours in pairs if theirs != ours]


# --- Does any text leave the process? -----------------------------------------------------------------------

_TELLING: Final = 16
"""Bytes from which a line of a prompt is not found in telemetry by chance."""


def sent_lines(run: Run) -> set[bytes]:
    """Every line of text in the agent's requests, as bytes: what must not be found in its telemetry."""
    lines: set[bytes] = set()
    for request in run.received:
        for text in _texts(request.body):
            lines.update(line.strip().encode() for line in text.splitlines())
    return {line for line in lines if len(line) >= _TELLING}


def _texts(value: object) -> Iterable[str]:
    """All text that is content: strings under the keys that hold some."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in _NO_CONTENT:
                yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


_NO_CONTENT: Final = frozenset({"model", "type", "role", "id", "call_id", "tool_use_id", "cache_control", "ttl"})
"""Fields of a request that name things; the model's name, for one, belongs into telemetry."""
