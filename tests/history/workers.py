"""Workers that share a history, in one process, told of traffic at times that a test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from otel_promptcache import diagnosis
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import Sight, Write
from otel_promptcache.history.fleet import Caller, Fleet, Shared
from otel_promptcache.history.memory import Memory
from otel_promptcache.history.redis import Server
from otel_promptcache.model import Diagnosis, Link, Prompt, Scope, Usage
from otel_promptcache.providers import BY_NAME
from otel_promptcache.providers.rules import rules_for

KEY = HashKey("fleet")


class Untimed(Server):
    """A server whose clock is the test's."""

    def ahead(self) -> float:
        return 0.0


class Sent(NamedTuple):
    """A request on its way."""

    prompt: Prompt
    scope: Scope
    local: Sight
    shared: Shared

    @property
    def sight(self) -> Sight:
        assert self.shared.sight is not None
        return self.shared.sight


class Worker:
    """One process' history and its side of the shared one."""

    def __init__(
        self,
        url: str,
        keys: Sequence[HashKey] = (KEY,),
        *,
        lines: bool = False,
        tenant: str = "",
        server: Server | None = None,
    ) -> None:
        self.memory = Memory(keys[0], 100_000)
        self.fleet = Fleet(server or Untimed(url, timeout=60.0), keys, lines=lines)
        self.keys = keys
        self.tenant = tenant

    def send(
        self,
        dialect: str,
        body: Mapping[str, Any],
        now: float,
        *,
        link: Link | None = None,
        endpoint: str = "api",
        conversation: str = "",
        route: str = "r",
    ) -> Sent:
        prompt = BY_NAME[dialect].prompt(body)
        scope = Scope(BY_NAME[dialect].provider, endpoint, self.keys[0].token("k"), prompt.model, prompt.cache_key)
        local = self.memory.sent(prompt, scope, now=now, route=route, conversation=conversation, link=link)
        self.memory.describe(prompt, local)
        credentials = tuple(key.token("k") for key in self.keys)
        shared = self.fleet.look(prompt, local, Caller(self.tenant, route, conversation, credentials))
        return Sent(prompt, scope, local, shared)

    def begin(self, sent: Sent, now: float) -> None:
        self.memory.begun(sent.local, now)
        self.fleet.begun(sent.shared, now)

    def end(
        self, sent: Sent, usage: Usage | None, now: float, response_id: str = "", write: Write | None = None
    ) -> Diagnosis:
        verdict = diagnosis.diagnose(sent.prompt, sent.sight, usage, rules_for(sent.scope.provider, sent.scope.model))
        sent.local.judged_by(sent.sight)
        self.memory.ended(sent.local, usage, response_id, write)
        self.fleet.ended(sent.shared, now, sent.local.sent, usage, response_id, write)
        return verdict
