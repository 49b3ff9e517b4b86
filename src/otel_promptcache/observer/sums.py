"""What the items of a batch come to, as if they were one call."""

from __future__ import annotations

from copy import copy
from decimal import Decimal
from typing import Final

from otel_promptcache.model import Cost, Observation, Usage

_AMOUNTS: Final = ("read", "write", "uncached", "output", "without_cache")


class Sum:
    """Adds observations up. What one of them does not say of its cost, the sum does not say either."""

    def __init__(self) -> None:
        self._first: Observation | None = None
        self._usage = Usage()
        self._amounts: dict[str, Decimal] = dict.fromkeys(_AMOUNTS, Decimal(0))
        self._versions: set[str] = set()
        self._models: set[str] = set()
        self._estimated = False
        self._lacking = False
        """Whether the cost of one of them is not known."""
        self._late: list[Observation] = []
        """Those whose cost may follow."""

    @property
    def waits(self) -> bool:
        """Whether a cost may follow."""
        return bool(self._late)

    def add(self, seen: Observation, *, final: bool) -> None:
        """``final``: whether the cost stays as it is."""
        if self._first is None:
            self._first = seen
        if seen.usage is not None:
            one, other = self._usage, seen.usage
            self._usage = Usage(
                input_total=_plus(one.input_total, other.input_total),
                read=_plus(one.read, other.read),
                write=_plus(one.write, other.write),
                output=_plus(one.output, other.output),
                reasoning=_plus(one.reasoning, other.reasoning),
            )
        self._models.add(seen.response_model)
        if seen.cost is not None or final:
            self._add_cost(seen.cost)
        else:
            self._late.append(seen)

    def _add_cost(self, cost: Cost | None) -> None:
        if cost is None:
            self._lacking = True
            return
        for name in _AMOUNTS:
            self._amounts[name] += getattr(cost, name)
        self._versions.add(cost.version)
        self._estimated |= cost.estimated

    def total(self) -> Observation | None:
        """The sum; None where nothing was added."""
        if self._first is None:
            return None
        late, self._late = self._late, []
        for seen in late:
            self._add_cost(seen.cost)
        made = copy(self._first)
        made.usage, made.cost = self._usage, None
        made.response_id, made.finish_reasons, made.native, made.discount = "", (), (), None
        made.response_model = self._first.response_model if len(self._models) == 1 else ""
        if not self._lacking:
            version = " / ".join(sorted(self._versions))
            made.cost = Cost(**self._amounts, version=version, estimated=self._estimated)
        return made


def _plus(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
