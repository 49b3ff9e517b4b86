"""One recorded call, as tests see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from otel_promptcache.history import Write
from otel_promptcache.model import Cost, Diagnosis, Observation, Usage
from otel_promptcache.semconv import Cause, Reason, Status
from otel_promptcache.snapshot import Prefix


@dataclass(frozen=True, slots=True)
class Change:
    """Where a prompt parts from the one it should have continued, whatever the provider made of it."""

    reason: Reason
    cause: Cause | None
    path: str
    line: int | None
    earlier: int
    """Number of the call whose prompt it should have continued, 0 where unknown."""


@dataclass(eq=False, slots=True)
class Call:
    """One call of the application, retries included. Token counts and money are None where they are not known."""

    number: int
    """From 1, in the order in which the calls were made."""
    seen: Observation = field(repr=False)
    """Everything that the instrumentation knows of it."""
    prefix: Prefix | None = field(default=None, repr=False)
    """What stood in front of the messages; None when the prompt was not read."""
    change: Change | None = None
    """How its prompt differs from what it should have begun with; None while the prefix is stable."""
    written: Write | None = field(default=None, repr=False)
    """What was paid to write, and whether a later call has read it."""

    @property
    def model(self) -> str:
        return self.seen.model

    @property
    def route(self) -> str:
        """What the call is for: ``route()``, the route of the request being served, else the calling function."""
        return self.seen.attribution.route

    @property
    def response_id(self) -> str:
        return self.seen.response_id

    @property
    def error(self) -> str:
        """The provider's error type or the exception's class; empty when the call succeeded."""
        return self.seen.error_type

    @property
    def usage(self) -> Usage | None:
        """Token counts; None where the response reported none."""
        usage = self.seen.usage
        return usage if usage is not None and usage.available else None

    @property
    def cost(self) -> Cost | None:
        return self.seen.cost

    @property
    def verdict(self) -> Diagnosis:
        """The diagnosis: what the cache did in this call, and why."""
        return self.seen.diagnosis or Diagnosis(Status.UNKNOWN, Reason.USAGE_NOT_REPORTED)

    @property
    def status(self) -> Status:
        return self.verdict.status

    @property
    def reason(self) -> Reason | None:
        return self.verdict.reason

    @property
    def cause(self) -> Cause | None:
        return self.verdict.cause

    @property
    def path(self) -> str:
        """Place in the request body where it parts from the one it should have matched; empty for none."""
        return self.seen.path

    @property
    def line(self) -> int | None:
        """First differing line of the text at ``path``, from 1."""
        return self.verdict.line

    @property
    def earlier(self) -> int:
        """Number of the call that it should have matched, 0 where there is none."""
        return self.verdict.link.span_id if self.verdict.link is not None else 0

    @property
    def cached(self) -> bool:
        """Whether it read from cache what there was to be read."""
        return self.status is Status.HIT and bool(self.usage and self.usage.read)

    @property
    def unread_usd(self) -> Decimal:
        """Premium paid for tokens that no later call has read so far, in USD."""
        write = self.written
        return Decimal(0) if write is None or write.read else Decimal(str(write.premium))
