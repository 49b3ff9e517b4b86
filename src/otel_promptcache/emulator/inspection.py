"""What people see of an emulator: its requests with the reason for each hit and miss, its entries, its storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_promptcache.emulator.cache import Accounting, Entry
from otel_promptcache.emulator.sequences import Stored
from otel_promptcache.semconv import REASON_INFO, Reason, Status


@dataclass(slots=True)
class Received:
    """One request as it came in, and what became of it."""

    at: float
    """Seconds since the epoch, by the emulator's clock."""
    path: str
    headers: Mapping[str, str]
    body: Any = None
    """The parsed JSON body."""
    status: int = 0
    response_id: str = ""
    accounting: Accounting | None = None
    read_to: str = ""
    """Place in the request at which the part read from cache ends."""
    fault: str = ""
    error: str = ""
    owner: str = ""
    """Whose cache it used: eight digits that stand for the key, or the name of a workspace; empty where all share."""
    machine: str = ""
    """The machine it was routed to; empty for the first."""

    @property
    def why(self) -> str:
        """In a sentence, why it read what it read."""
        if self.accounting is None:
            return self.error and f"refused: {self.error}"
        return sentence(self.accounting, self.read_to, self.machine)

    def summary(self) -> dict[str, Any]:
        """The request without its text and its key."""
        counts = self.accounting
        shown: dict[str, Any] = {"at": self.at, "path": self.path, "status": self.status}
        if isinstance(self.body, dict):
            shown["model"] = self.body.get("model")
        if counts is not None:
            shown |= {
                "id": self.response_id,
                "owner": self.owner,
                "tokens": counts.total,
                "read": counts.read,
                "written": counts.write,
                "cache": counts.status,
                "reason": counts.reason,
                "read_to": self.read_to,
                "why": self.why,
            }
        return shown | {name: getattr(self, name) for name in ("machine", "fault", "error") if getattr(self, name)}


_STATUS: Final[dict[Status, str]] = {
    Status.COLD: "nothing that this prompt begins with was stored before",
    Status.HIT: "a stored prefix was read",
    Status.PARTIAL: "a stored prefix was read, a longer one could not be",
    Status.MISS: "a prefix could not be read",
    Status.UNCACHEABLE: "nothing of it can be cached",
}


def sentence(counts: Accounting, read_to: str, machine: str) -> str:
    """Why a request read what it read."""
    said = [_STATUS.get(counts.status, str(counts.status))]
    if counts.read and read_to:
        said.append(f"{counts.read} of {counts.total} tokens, up to {read_to}")
    if counts.why:
        said.append(counts.why)
    elif counts.reason is Reason.UNKNOWN:
        said.append("it was evicted")
    elif counts.reason is not None:
        said.append(REASON_INFO[counts.reason].meaning[0].lower() + REASON_INFO[counts.reason].meaning[1:].rstrip("."))
    if machine:
        said.append(f"served by {machine}")
    return "; ".join(said)


def entry(one: Entry | Stored, now: float) -> dict[str, Any]:
    """One stored prefix; lifetimes in seconds from now, negative when expired."""
    scope = one.scope
    return {
        "owner": scope.credential,
        "provider": scope.provider,
        "machine": scope.endpoint,
        "model": scope.model,
        "cache_key": scope.cache_key,
        "tokens": one.tokens,
        "ttl": one.ttl,
        "expires": one.expires,
        "expires_in": one.expires - now,
        "alive": one.alive(now),
        "evicted": one.evicted,
        "reads": one.reads,
    }
