"""What the diagnosis says of a request, given what was sent before and what the provider reported."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_promptcache import diagnosis, fingerprint, providers
from otel_promptcache.fingerprint import HashKey, canonical
from otel_promptcache.history import Sight
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Kind, Link, Prompt, Scope
from otel_promptcache.providers.rules import Matching, Rules, rules_for
from otel_promptcache.semconv import Cause, Reason, Status

Body = dict[str, Any]

# --- A conversation with a provider that keeps its promises ---------------------------------------------------


class IdealCache:
    """Holds exactly what the documentation promises: entries at breakpoints, or every prefix; one byte in four a token."""

    def __init__(self) -> None:
        self.entries: dict[tuple[Scope, tuple[int, ...]], float] = {}
        """When the entry for a prefix runs out."""

    def usage(self, prompt: Prompt, scope: Scope, rules: Rules, now: float) -> tuple[int, int, int]:
        """Total, read and written tokens."""
        sizes = itertools.accumulate((len(canonical(segment)) for segment in prompt.segments), initial=0)
        tokens = [size // 4 for size in sizes]
        keys = tuple(segment.key for segment in prompt.segments)
        if rules.matching is Matching.PREFIX:
            lengths: Iterator[int] = iter(range(len(keys), 0, -1))
            ends = dict.fromkeys(range(1, len(keys) + 1), prompt.retention or rules.ttl)
        else:
            lengths = (n for place in prompt.breakpoints for n in _window(prompt, place.length, rules.lookback))
            ends = {place.length: place.ttl for place in prompt.breakpoints}
        alive = [n for n in lengths if self.entries.get((scope, keys[:n]), 0) >= now and tokens[n] >= rules.minimum]
        read = tokens[max(alive, default=0)]
        read -= read % rules.granule
        last = tokens[max(ends, default=0)]
        for length, ttl in ends.items():
            self.entries[scope, keys[:length]] = now + ttl
        if read:
            self.entries[scope, keys[: max(alive)]] = now + max(ends.values())
        writes = rules.matching is Matching.BREAKPOINT and last >= rules.minimum
        return tokens[-1], read, max(0, last - read) if writes else 0


def _window(prompt: Prompt, end: int, positions: int) -> Iterator[int]:
    """Lengths within so many positions of a breakpoint; a run of calls, and one of results, is one position."""
    run: Kind | None = None
    for length in range(end, 0, -1):
        kind = prompt.segments[length - 1].kind
        if not (kind is run and kind in (Kind.TOOL_USE, Kind.TOOL_RESULT)):
            positions -= 1
        if positions < 0:
            return
        run = kind
        yield length


class Verdict(NamedTuple):
    status: Status
    reason: Reason | None = None
    cause: Cause | None = None
    path: str | None = None
    line: int | None = None


@dataclass
class Pending:
    body: Body
    prompt: Prompt
    scope: Scope
    sight: Sight
    usage: tuple[int, int, int]


HOSTS = {"anthropic": "api.anthropic.com", "openai_chat": "api.openai.com", "openai_responses": "api.openai.com"}


class Client:
    """Sends bodies as an application does, one history, one clock, and returns what is said of each."""

    def __init__(self, dialect: str = "anthropic") -> None:
        self.dialect = providers.BY_NAME[dialect]
        self.memory = Memory(HashKey("test"), 100_000)
        self.cache = IdealCache()
        self.now = 1_800_000_000.0
        self.count = 0
        self.full: diagnosis.Diagnosis | None = None

    def start(
        self,
        body: Body,
        *,
        after: float = 10.0,
        host: str = "",
        credential: str = "ours",
        route: str = "/chat",
        conversation: str = "",
    ) -> Pending:
        """Sends a request; its response has not begun."""
        self.now += after
        self.count += 1
        host = host or HOSTS[self.dialect.name]
        prompt = self.dialect.prompt(copy.deepcopy(body))
        provider = providers.provider_for(host, self.dialect)
        scope = Scope(provider, host, credential, prompt.model, prompt.cache_key)
        sight = self.memory.sent(
            prompt, scope, now=self.now, route=route, conversation=conversation, link=Link(1, self.count)
        )
        for info, segment in sight.fresh:
            info.detail = fingerprint.detail(segment)
        usage = self.cache.usage(prompt, scope, rules_for(provider, prompt.model), self.now)
        return Pending(body, prompt, scope, sight, usage)

    def finish(self, call: Pending, usage: Any = ..., *, response_id: str = "") -> Verdict:
        """The response comes, with the usage of the ideal cache unless another is given."""
        self.memory.begun(call.sight)
        found = self.dialect.usage(wire_usage(self.dialect.name, *call.usage) if usage is ... else usage)
        rules = rules_for(call.scope.provider, call.scope.model)
        self.full = said = diagnosis.diagnose(call.prompt, call.sight, found, rules)
        self.memory.ended(call.sight, found, response_id, None)
        path = self.dialect.path(said.place) if said.place else None
        return Verdict(said.status, said.reason, said.cause, path, said.line)

    def send(self, body: Body, usage: Any = ..., *, response_id: str = "", **how: Any) -> Verdict:
        return self.finish(self.start(body, **how), usage, response_id=response_id)


def wire_usage(dialect: str, total: int, read: int, write: int) -> Body:
    """A usage object as the API writes it."""
    if dialect == "anthropic":
        return {
            "input_tokens": total - read - write,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": write,
            "output_tokens": 50,
        }
    details = {"cached_tokens": read, "cache_write_tokens": write}
    if dialect == "openai_chat":
        return {"prompt_tokens": total, "completion_tokens": 50, "prompt_tokens_details": details}
    return {"input_tokens": total, "output_tokens": 50, "input_tokens_details": details}

# --- What is sent ---------------------------------------------------------------------------------------------

EPHEMERAL = {"type": "ephemeral"}


def prose(topic: str, lines: int = 110) -> str:
    """Lines that no other topic has: long enough to be cached by every model here."""
    return "\n".join(
        f"Rule {line} on {topic}: {hashlib.md5(f'{topic}{line}'.encode()).hexdigest()}." for line in range(1, lines + 1)
    )


def tool(name: str) -> Body:
    """A tool in Anthropic's form; ``openai_tool`` has the same in the other."""
    schema = {"type": "object", "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}}
    return {"name": name, "description": f"Finds {name} entries.\n{prose(name, 8)}", "input_schema": schema}


def turns(*texts: str) -> list[Body]:
    """User and assistant in turn."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


FIRST = "How do I reset the password of my account at the Leipzig branch?"
SECOND = "Open the settings, choose security, and press the button named reset."
THIRD = "The button is grey and cannot be pressed, what could be the cause of it?"
FOURTH = "Your administrator has to allow it first; ask them to open the console."
FIFTH = "Thank you, they did. Is there anything else that I should look after now?"
TALK = (FIRST, SECOND, THIRD, FOURTH, FIFTH)
SYSTEM = prose("support")


def anthropic_body(length: int = 3) -> Body:
    return {
        "model": "claude-opus-5",
        "max_tokens": 1024,
        "cache_control": dict(EPHEMERAL),
        "tools": [tool("people"), tool("places"), tool("papers")],
        "system": [{"type": "text", "text": SYSTEM}, {"type": "text", "text": prose("style", 20)}],
        "messages": turns(*TALK[:length]),
    }


def chat_body(length: int = 3) -> Body:
    return {
        "model": "gpt-4.1",
        "tools": [{"type": "function", "function": tool(name)} for name in ("people", "places", "papers")],
        "messages": [{"role": "system", "content": SYSTEM}, *turns(*TALK[:length])],
    }


def responses_body(length: int = 3) -> Body:
    return {
        "model": "gpt-4.1",
        "tools": [{"type": "function", **tool(name)} for name in ("people", "places", "papers")],
        "instructions": SYSTEM,
        "input": turns(*TALK[:length]),
    }


BODIES = {"anthropic": anthropic_body, "openai_chat": chat_body, "openai_responses": responses_body}
