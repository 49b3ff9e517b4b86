"""What the observer needs of telemetry. The room itself stands higher up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from otel_promptcache.history import Sight, Write
from otel_promptcache.journal import Change
from otel_promptcache.model import Attribution, Link, Observation, Prompt
from otel_promptcache.providers.limits import Header


class Origin(NamedTuple):
    """The place in the application that asked for what is paid for later: all that is kept of it."""

    attribution: Attribution
    place: object | None = None
    """Its span, as telemetry names it; opaque to everybody else."""
    owned: bool = False
    """Whether somebody else's span stands for the call, and says how many tokens it had, or does not."""


class Recorder(Protocol):
    """Telemetry's side of one call."""

    @property
    def link(self) -> Link | None:
        """Ids of the span that stands for the call."""
        ...

    @property
    def attribution(self) -> Attribution: ...

    @property
    def origin(self) -> Origin:
        """Where the call belongs."""
        ...

    @property
    def own(self) -> object | None:
        """The span made for this call, to be current while the request is under way."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The metric labels of the call, opaque to everybody else."""
        ...

    def limits(self, headers: Sequence[Header], at: float) -> None:
        """What an attempt's response says of rate limits, at POSIX seconds."""
        ...

    def sent_again(self) -> None:
        """The request goes out once more."""
        ...

    def renamed(self, seen: Observation) -> None:
        """The provider turned out to be another one."""
        ...

    def usage(self, seen: Observation) -> None:
        """The verdict is known; the span may end at any moment after this."""
        ...

    def close(self, seen: Observation) -> None:
        """The call is over. ``seen`` is complete, but for a cost that may follow with ``settle``."""
        ...

    def settle(self, seen: Observation) -> None:
        """Everything is known: metrics, ledger, end of an own span. May run on the worker's thread."""
        ...


@dataclass(slots=True)
class Trip:
    """What is known of a request that carries no prompt, filled in as it goes."""

    operation: str
    provider: str
    endpoint: str
    port: int
    model: str = ""
    counted: int | None = None
    """Tokens, where they were asked to be counted."""
    batch: str = ""
    """Id of the batch, or of the file of its results."""
    requests: int | None = None
    """Requests that were submitted."""
    items: int | None = None
    """Items whose cost was counted in this reading of the results."""
    total: Observation | None = None
    """These items as if they were one call, where they have no spans of their own."""
    submitter: Origin | None = None
    """Who submitted the batch, where that is known."""
    error_type: str = ""
    duration: float = 0.0
    """Seconds."""


class ErrandRecorder(Protocol):
    """Telemetry's side of a request that carries no prompt."""

    @property
    def own(self) -> object | None: ...

    def answered(self, trip: Trip) -> None:
        """What the answer said is known."""
        ...

    def end(self, trip: Trip) -> None:
        """It is over."""
        ...


class Telemetry(Protocol):
    """Where observations go."""

    @property
    def service_version(self) -> str:
        """``service.version`` of this process, empty where it has none."""
        ...

    def origin(self) -> Origin:
        """Where the application is now."""
        ...

    def begin(self, seen: Observation, started_ns: int, origin: Origin | None = None) -> Recorder:
        """``origin``: where the call belongs, if not where the application is now."""
        ...

    def errand(self, trip: Trip, started_ns: int) -> ErrandRecorder | None:
        """None where only prompts are looked at."""
        ...

    def prompt_map(self, seen: Observation, prompt: Prompt, sight: Sight) -> None: ...

    def trouble(self, where: str) -> None: ...

    def overhead(self, spent: Mapping[str, float]) -> None:
        """Our own seconds on the caller's thread in one call, by phase."""
        ...

    def unread(self, writes: list[Write]) -> None: ...

    def changed(self, change: Change) -> None: ...
