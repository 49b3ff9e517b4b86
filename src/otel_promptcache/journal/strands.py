"""What a route is known to send in front of its messages: versions of one prompt are a strand, and a route may have
several strands, one for each agent that uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_promptcache import fingerprint
from otel_promptcache.history import TELLING
from otel_promptcache.model import Link, Section
from otel_promptcache.semconv import Pattern
from otel_promptcache.snapshot import Difference, Part, Prefix

STRANDS_A_ROUTE: Final = 16
CLOSE: Final = 0.02
"""Share of its length by which a line may have become longer or shorter."""
ROLLED_OUT: Final = 100
"""Calls in a row from which the other version of a roll-out is gone."""
HOUR: Final = 3_600.0


class Where(NamedTuple):
    """Whose prefix it is. Another model has another cache, and often another prompt."""

    route: str
    provider: str
    model: str


@dataclass(slots=True, eq=False)
class Version:
    """One digest of a prefix, and who brought it."""

    digest: str
    prefix: Prefix
    service: str
    """``service.version`` of the process."""
    prompt_name: str
    prompt_version: str
    at: float
    link: Link | None = None
    calls: int = 1


class Change(NamedTuple):
    """What is told. ``difference`` is None where the hashes do not show it."""

    where: Where
    pattern: Pattern
    old: Version
    new: Version
    difference: Difference | None
    calls_per_hour: int


@dataclass(slots=True, eq=False)
class Strand:
    """Versions of one prompt on one route."""

    where: Where
    current: Version
    candidate: Version | None = None
    """The newest version, of which it is not clear yet what it means."""
    mixed: bool = False
    """Whether the current version has been seen since."""
    streak: int = 0
    """New versions in a row, none of which came twice."""
    restless: bool = False
    """Every request has a version of its own; that has been told."""
    replaced: Version | None = None
    """What the current version took the place of."""
    pair: tuple[Version, Version] | None = None
    """Two versions that are live at the same time, as has been told: that calls go from one to the other is no news."""
    row: int = 0
    """Calls in a row with the current version."""
    versions: list[Version] = field(default_factory=list)
    hour: float = float("-inf")
    calls: int = 0
    before: int = 0
    """Calls in the current hour and in the one before."""
    seen: float = float("-inf")

    def count(self, now: float) -> None:
        self.seen = now
        if now - self.hour >= HOUR:
            self.before = self.calls if now - self.hour < 2 * HOUR else 0
            self.hour, self.calls = now, 0
        self.calls += 1

    def follows(self, version: Version) -> None:
        """Notes a call after those with the current version. A long row of them ends a roll-out."""
        if version is self.current:
            self.row += 1
            return
        if self.row >= ROLLED_OUT:
            self.pair = None
        self.row = 0

    def lives_beside(self, version: Version) -> bool:
        """Whether this version and the current one are known to be live at the same time."""
        return self.pair is not None and {*self.pair} == {self.current, version}

    @property
    def rate(self) -> int:
        """Calls in an hour, as far as it has been watched."""
        return max(self.calls, self.before)


@dataclass(slots=True, eq=False)
class Route:
    """The prompts of one route."""

    strands: list[Strand] = field(default_factory=list)
    looked: float = float("-inf")
    """When a new prefix was last looked at although the route has too many."""

    @property
    def seen(self) -> float:
        return max((one.seen for one in self.strands), default=float("-inf"))

    @property
    def restless(self) -> Strand | None:
        return next((one for one in self.strands if one.restless), None)

    @property
    def full(self) -> bool:
        return len(self.strands) >= STRANDS_A_ROUTE


def last_seen(one: Route | Strand) -> float:
    return one.seen


def same_prompt(strand: Strand, version: Version) -> bool:
    """Whether a prefix is a version of a strand's: named alike by the application, or else alike by its pieces."""
    old = strand.candidate or strand.current
    if old.prompt_name and version.prompt_name:
        return old.prompt_name == version.prompt_name
    before, after = old.prefix.parts, version.prefix.parts
    told = _telling(before, Section.SYSTEM)
    if told:
        # Agents share tools, and tools share their layout; who shares a piece of the system prompt is the same agent.
        return bool(told & _telling(after, Section.SYSTEM)) or any(
            _alike(one, other)
            for one in before
            if one.section is Section.SYSTEM
            for other in after
            if other.section is Section.SYSTEM
        )
    return bool(_telling(before, Section.TOOLS) & _telling(after, Section.TOOLS))


def _alike(one: Part, other: Part) -> bool:
    """Whether two texts are versions of one another. Of a single line hashes show its length, and nothing else."""
    if fingerprint.similar(one.detail, other.detail):
        return True
    lines = [1 if part.detail is None else len(part.detail.lines) for part in (one, other)]
    return lines == [1, 1] and abs(one.size - other.size) <= max(one.size, other.size) * CLOSE


def _telling(parts: tuple[Part, ...], section: Section) -> set[str]:
    return {part.digest for part in parts if part.section is section and part.size >= TELLING}
