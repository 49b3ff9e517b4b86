"""Gemini's explicit caches: resources that a client makes, names in requests, pays storage for, and deletes.

ai.google.dev/gemini-api/docs/caching (2026-10-13): lifetime one hour unless told otherwise, no bound on it; reading
does not prolong it; a request that names one brings no system instruction and no tools of its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from otel_promptcache.emulator.cache import Accounting
from otel_promptcache.emulator.exchange import ProviderError
from otel_promptcache.providers._wire import as_list, string
from otel_promptcache.providers.gemini import field as wire_field
from otel_promptcache.providers.rules import HOUR
from otel_promptcache.semconv import Status

DEFAULT_TTL: Final = HOUR
FIELDS: Final = ("systemInstruction", "tools", "toolConfig")
"""What belongs to the resource and must not be in a request that names it."""

_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)s")


def invalid(message: str) -> ProviderError:
    return ProviderError(400, "INVALID_ARGUMENT", message)


def lost() -> ProviderError:
    """Google does not tell what is gone from what belongs to somebody else."""
    return ProviderError(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)")


@dataclass(slots=True)
class Content:
    """One resource. It is alive up to and including ``expires``."""

    name: str
    owner: str
    model: str
    body: Mapping[str, Any]
    tokens: int
    segments: int
    created: float
    updated: float
    expires: float
    display_name: str = ""
    reads: int = 0
    deleted: float | None = None

    def alive(self, now: float) -> bool:
        return self.deleted is None and now <= self.expires

    def token_hours(self, now: float) -> float:
        """What storage is billed by, up to now: tokens times hours of life."""
        end = min(now, self.expires) if self.deleted is None else min(self.deleted, self.expires)
        return self.tokens * max(0.0, end - self.created) / HOUR

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": self.model,
            "displayName": self.display_name,
            "createTime": stamp(self.created),
            "updateTime": stamp(self.updated),
            "expireTime": stamp(self.expires),
            "usageMetadata": {"totalTokenCount": self.tokens},
        }

    def resumed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request that names the resource, as if it had brought the contents itself."""
        for name in FIELDS:
            if wire_field(body, name) is not None:
                raise invalid(
                    "CachedContent can not be used with GenerateContent request setting system_instruction, tools or "
                    "tool_config.\n\nProposed fix: move those values to CachedContent from GenerateContent request."
                )
        model = f"models/{string(body.get('model')).removeprefix('models/')}"
        if model != self.model:
            raise invalid(
                f"Model used by GenerateContent request ({model}) and CachedContent ({self.model}) has to be the same."
            )
        held = {name: value for name in FIELDS if (value := wire_field(self.body, name)) is not None}
        contents = [*as_list(self.body.get("contents")), *as_list(body.get("contents"))]
        alone = {name: value for name, value in body.items() if name not in ("cachedContent", "cached_content")}
        return {**alone, **held, "contents": contents}

    def accounting(self, total: int) -> Accounting:
        """What a request that names the resource reads: all of it."""
        self.reads += 1
        return Accounting(total, self.tokens, (), Status.HIT, None, self.segments, "the request names the cache")


@dataclass(slots=True)
class Contents:
    """All resources, the dead ones included. Not thread-safe."""

    _kept: dict[str, Content] = field(default_factory=dict)

    def create(self, owner: str, body: Mapping[str, Any], size: tuple[int, int], name: str, now: float) -> Content:
        """Makes a resource of ``size`` (tokens, segments). The caller has checked model and minimum."""
        model = f"models/{string(body.get('model')).removeprefix('models/')}"
        expires = lifetime(body, now)
        display_name = string(wire_field(body, "displayName"))
        content = Content(
            f"cachedContents/{name}",
            owner,
            model,
            body,
            *size,
            now,
            now,
            now + DEFAULT_TTL if expires is None else expires,
            display_name,
        )
        self._kept[content.name] = content
        return content

    def living(self, name: str, owner: str, now: float) -> Content:
        """The resource of a name; a ``ProviderError`` where there is none, or it is somebody else's, or expired."""
        content = self._kept.get(name if name.startswith("cachedContents/") else f"cachedContents/{name}")
        if content is None or content.owner != owner or not content.alive(now):
            raise lost()
        return content

    def of(self, owner: str, now: float) -> list[Content]:
        return [one for one in self._kept.values() if one.owner == owner and one.alive(now)]

    def update(self, content: Content, body: Mapping[str, Any], now: float) -> None:
        """Sets another lifetime, counted from now: nothing else of a resource can change."""
        expires = lifetime(body, now)
        if expires is None:
            raise invalid("At least one of ttl or expire_time must be set in CachedContent.")
        content.expires, content.updated = expires, now

    def summary(self, now: float) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "owner": one.owner,
                "model": one.model,
                "tokens": one.tokens,
                "expires": one.expires,
                "alive": one.alive(now),
                "reads": one.reads,
                "token_hours": one.token_hours(now),
            }
            for one in itertools.islice(reversed(self._kept.values()), 500)
        ]


def lifetime(body: Mapping[str, Any], now: float) -> float | None:
    """When a resource expires by what the client asks for, None where it asks for nothing."""
    ttl, expire_time = body.get("ttl"), wire_field(body, "expireTime")
    if ttl is not None and expire_time is not None:
        raise invalid("Only one of ttl and expire_time can be set in CachedContent.")
    if ttl is not None:
        found = _SECONDS.fullmatch(string(ttl))
        if found is None or float(found[1]) <= 0:
            raise invalid(f"Invalid value at 'cached_content.ttl': {ttl!r} is no duration such as '300s'")
        return now + float(found[1])
    if expire_time is None:
        return None
    try:
        moment = datetime.fromisoformat(string(expire_time))
    except ValueError:
        raise invalid(f"Invalid value at 'cached_content.expire_time': {expire_time!r}") from None
    at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if at <= now:
        raise invalid("expire_time must be in the future.")
    return at


def stamp(at: float) -> str:
    """RFC 3339, as Google and Anthropic write it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
