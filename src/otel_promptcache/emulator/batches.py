"""Anthropic's message batches: requests that are worked off in order, at half the price, and their results.

The results are made when the batch is created; it is said to be in progress for as long as the option
``batch_seconds`` says (platform.claude.com/docs/en/build-with-claude/batch-processing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from otel_promptcache.emulator.contents import stamp
from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.providers._wire import string
from otel_promptcache.providers.rules import DAY

MAX_REQUESTS: Final = 100_000


@dataclass(slots=True)
class Batch:
    """One batch with the lines of its result file."""

    identity: str
    owner: str
    results: Sequence[Mapping[str, Any]]
    created: float
    ends: float
    canceled: float | None = None

    def ended(self, now: float) -> bool:
        return now >= self.ends

    def lines(self) -> list[Mapping[str, Any]]:
        """The results; of a canceled batch those it would have had."""
        if self.canceled is None:
            return list(self.results)
        return [{"custom_id": one["custom_id"], "result": {"type": "canceled"}} for one in self.results]

    def document(self, url: str, now: float) -> dict[str, Any]:
        ended = self.ended(now)
        kinds = [string(line["result"]["type"]) for line in self.lines()] if ended else []
        counts = {kind: kinds.count(kind) for kind in ("succeeded", "errored", "canceled", "expired")}
        return {
            "id": self.identity,
            "type": "message_batch",
            "processing_status": "ended" if ended else "canceling" if self.canceled is not None else "in_progress",
            "request_counts": {"processing": 0 if ended else len(self.results), **counts},
            "created_at": stamp(self.created),
            "expires_at": stamp(self.created + DAY),
            "ended_at": stamp(self.ends) if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None if self.canceled is None else stamp(self.canceled),
            "results_url": f"{url}/v1/messages/batches/{self.identity}/results" if ended else None,
        }


@dataclass(slots=True)
class Batches:
    """All batches. Not thread-safe."""

    _kept: dict[str, Batch] = field(default_factory=dict)

    def keep(self, batch: Batch) -> None:
        self._kept[batch.identity] = batch

    def of(self, owner: str) -> list[Batch]:
        """The newest first."""
        return [one for one in reversed(self._kept.values()) if one.owner == owner]

    def find(self, identity: str, owner: str) -> Batch:
        batch = self._kept.get(identity)
        if batch is None or batch.owner != owner:
            raise ProviderError(404, "not_found_error", f"Message batch {identity} not found.")
        return batch

    def cancel(self, batch: Batch, now: float) -> None:
        if not batch.ended(now) and batch.canceled is None:
            batch.canceled = now

    def delete(self, batch: Batch, now: float) -> None:
        if not batch.ended(now):
            raise ProviderError(400, "invalid_request_error", f"Message batch {batch.identity} is still processing.")
        del self._kept[batch.identity]


def requests(body: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(custom id, parameters) of each request in the body of a new batch; a ``ProviderError`` for what is none."""
    listed = body.get("requests")
    if not isinstance(listed, list):
        raise _invalid("requests: Field required" if listed is None else "requests: Input should be a valid array")
    if not 0 < len(listed) <= MAX_REQUESTS:
        raise _invalid(f"requests: List should have at least 1 and at most {MAX_REQUESTS} items")
    found: dict[str, Mapping[str, Any]] = {}
    for number, one in enumerate(listed):
        parts = one if isinstance(one, dict) else {}
        identity, parameters = parts.get("custom_id"), parts.get("params")
        if not isinstance(identity, str) or not 0 < len(identity) <= 64:
            raise _invalid(f"requests.{number}.custom_id: String should have at least 1 and at most 64 characters")
        if not isinstance(parameters, dict):
            raise _invalid(f"requests.{number}.params: Field required")
        if identity in found:
            raise _invalid(f"requests.{number}.custom_id: duplicate custom_id '{identity}'")
        found[identity] = parameters
    return list(found.items())


def _invalid(message: str) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message)
