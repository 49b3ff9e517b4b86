"""The truth meter: our verdicts beside the provider's own, counted from the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from otel_promptcache import semconv
from otel_promptcache.analysis.ledger import Event
from otel_promptcache.semconv import Agreement

MAX_TRACES: Final = 3
"""Traces that a row names: enough to look at, and the newest of them."""


@dataclass
class Row:
    """Calls with one verdict of ours and one of theirs."""

    ours: str
    """Our reason, else our status."""
    theirs: str
    calls: Counter[Agreement] = field(default_factory=Counter)
    traces: list[str] = field(default_factory=list)
    """Of calls on which the two do not agree."""


@dataclass
class Truth:
    """Everything that a ledger says about the two."""

    calls: int = 0
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)

    @property
    def asked(self) -> Counter[Agreement]:
        """Calls with a verdict of the provider's own, by how it goes with ours."""
        return sum((row.calls for row in self.rows.values()), Counter())

    @property
    def agreement(self) -> float | None:
        """Share of the calls on which both have a verdict in which they agree; None where there are none."""
        asked = self.asked
        spoken = asked.total() - asked[Agreement.SILENT]
        return asked[Agreement.AGREE] / spoken if spoken else None


def truth(events: Iterable[Event]) -> Truth:
    """Counts the ledger's calls. An outcome that this version does not know is passed over."""
    found = Truth()
    known = {one.value for one in Agreement}
    for event in events:
        found.calls += 1
        told = event.attributes
        outcome = told.get(semconv.NATIVE_AGREEMENT)
        if outcome not in known:
            continue
        ours = str(told.get(semconv.REASON) or told.get(semconv.STATUS) or "")
        theirs = str(told.get(f"{semconv.NATIVE}.reason") or told.get(f"{semconv.NATIVE}.type") or "")
        row = found.rows.setdefault((ours, theirs), Row(ours, theirs))
        row.calls[Agreement(outcome)] += 1
        if event.trace and outcome != Agreement.AGREE:
            row.traces = [*row.traces, event.trace][-MAX_TRACES:]
    return found
