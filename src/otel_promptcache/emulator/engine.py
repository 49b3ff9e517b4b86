"""The emulated providers without their HTTP: cache, clock, held conversations, request log."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from otel_promptcache.emulator import diagnostics, inspection, reply
from otel_promptcache.emulator.batches import Batches
from otel_promptcache.emulator.cache import Accounting, Cache, Ticket
from otel_promptcache.emulator.clock import Clock
from otel_promptcache.emulator.contents import Contents
from otel_promptcache.emulator.conversations import Conversations
from otel_promptcache.emulator.diagnostics import Records
from otel_promptcache.emulator.exchange import Exchange, ProviderError
from otel_promptcache.emulator.faults import Fault
from otel_promptcache.emulator.inspection import Received
from otel_promptcache.emulator.options import Latency, no_latency
from otel_promptcache.emulator.personality import Personality, named, spoken_by
from otel_promptcache.emulator.ratelimits import RateLimits
from otel_promptcache.emulator.reply import Answer, Reply
from otel_promptcache.emulator.routing import Routes
from otel_promptcache.emulator.tokens import Tokenizer, compact, cut, piece, quarter_bytes
from otel_promptcache.emulator.wire import Wire
from otel_promptcache.model import Prompt, Scope
from otel_promptcache.providers._wire import bulk, string
from otel_promptcache.providers.rules import Rules, rules_for
from otel_promptcache.semconv import Reason, Status

__all__ = ["Call", "Emulator", "Received"]

log = logging.getLogger(__name__)

MAX_RECEIVED: Final = 1_000
"""Requests kept for inspection."""

MAX_CHARACTERS: Final = 64 * 2**20
"""Of their bodies together; beyond it the oldest requests go."""

STATE_ENTRIES: Final = 500
STATE_REQUESTS: Final = 100

_WORKSPACE_HEADERS: Final = ("anthropic-workspace-id", "openai-organization")
"""Headers by which a client says whose cache it uses: isolation is by workspace, or by organisation."""


@dataclass(slots=True)
class Call:
    """A request that has been looked up and not answered yet."""

    wire: Wire
    exchange: Exchange
    owner: str
    cache: Cache
    ticket: Ticket


@dataclass(slots=True)
class _State:
    """Everything that ``reset`` forgets."""

    cache: Cache
    conversations: Conversations = field(default_factory=Conversations)
    received: deque[Received] = field(default_factory=lambda: deque(maxlen=MAX_RECEIVED))
    routes: Routes = field(default_factory=Routes)
    records: Records = field(default_factory=Records)
    batches: Batches = field(default_factory=Batches)
    contents: Contents = field(default_factory=Contents)
    faults: deque[Fault] = field(default_factory=deque)
    warnings: dict[tuple[str, str], str] = field(default_factory=dict)


class Emulator:
    """Providers to talk to. ``answer``, ``latency`` and the other public options may be changed while it runs."""

    def __init__(
        self,
        *,
        answer: Answer = reply.default,
        tokenizer: Tokenizer = quarter_bytes,
        clock: Clock | None = None,
        latency: Latency = no_latency,
        seed: str = "emulator",
        retry_after: float = 1.0,
        stall: float = 30.0,
        personality: str = "openai",
        workspaces: Mapping[str, str] | None = None,
        machine_rate: int | None = None,
        cold: float = 0.0,
        capacity: int = 0,
        slots: int | None = None,
        block: int | None = None,
        context_window: int = 0,
        batch_seconds: float = 0.0,
    ) -> None:
        self.answer = answer
        self.clock = clock or Clock()
        self.latency = latency
        self.retry_after = retry_after
        self.stall = stall
        self.personality = named(personality)
        self.workspaces = workspaces or {}
        self.machine_rate = machine_rate
        self.cold = cold
        self.context_window = context_window
        self.batch_seconds = batch_seconds
        self.keeps_bodies = True
        """Whether ``requests`` have their bodies. A server that runs for long does without."""
        self.lock = threading.RLock()
        """Held whenever what ``state`` shows is changed."""
        self.limits = RateLimits(self.clock)
        self.url = ""
        """Base URL for anthropic and google-genai; with ``/v1`` the one for openai. Set while it is served."""
        self._tokenizer = tokenizer
        self._capacity = capacity
        self._slots = slots
        self._block = block
        self._seed = seed
        self._serial = 0
        self._state = self._fresh()

    def _fresh(self) -> _State:
        return _State(Cache(self._tokenizer, self._capacity, self._rules))

    def _rules(self, provider: str, model: str) -> Rules:
        """The row of the table, with what this emulator was told about the engine."""
        row = rules_for(provider, model)
        if row.slots and self._slots is not None:
            return dataclasses.replace(row, slots=self._slots)
        if provider == "vllm" and self._block is not None:
            return dataclasses.replace(row, granule=self._block)
        return row

    # --- for tests ------------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Received]:
        """The requests since the last reset, oldest first, at most ``MAX_RECEIVED``."""
        with self.lock:
            return list(self._state.received)

    @property
    def last(self) -> Received:
        """The latest request; ``last.why`` says why it read what it read. ``LookupError`` before the first."""
        with self.lock:
            if not self._state.received:
                raise LookupError("the emulator has received no request yet")
            return self._state.received[-1]

    @property
    def warnings(self) -> list[str]:
        """What the emulator had to assume: models that no rule names."""
        with self.lock:
            return list(self._state.warnings.values())

    def reset(self) -> None:
        """Forgets entries, conversations and requests. Time goes on, and no id is given twice."""
        with self.lock:
            self._state = self._fresh()
        self.limits.clear()

    def evict(self) -> None:
        """Empties all caches, as when machines are lost; requests that miss because of it say so."""
        with self.lock:
            self._state.cache.evict()

    def fail(self, fault: Fault | str, times: int = 1) -> None:
        """Lets the next requests meet a fault, whoever sends them. A name that is none raises ``ValueError``."""
        with self.lock:
            self._state.faults.extend([Fault(fault)] * times)

    def next_fault(self) -> Fault | None:
        """Takes the next fault that was ordered."""
        with self.lock:
            return self._state.faults.popleft() if self._state.faults else None

    def state(self) -> dict[str, Any]:
        """Entries, cache resources and the latest requests, for people."""
        now = self.clock.now()
        with self.lock:
            state = self._state
            return {
                "now": now,
                "entries_total": len(state.cache),
                "entries": [inspection.entry(one, now) for one in state.cache.entries(STATE_ENTRIES)],
                "contents": state.contents.summary(now),
                "requests": [one.summary() for one in list(state.received)[-STATE_REQUESTS:]],
                "warnings": list(state.warnings.values()),
            }

    # --- one call -------------------------------------------------------------------------------------------

    @property
    def batches(self) -> Batches:
        return self._state.batches

    @property
    def contents(self) -> Contents:
        return self._state.contents

    def serial(self) -> str:
        """Digits that the next id is made of."""
        with self.lock:
            return self._next_serial()

    def received(self, path: str, headers: Mapping[str, str]) -> Received:
        """Notes a request."""
        request = Received(self.clock.now(), path, headers)
        with self.lock:
            self._state.received.append(request)
        return request

    def handled(self, request: Received) -> None:
        """The request has its answer: from here on its body is for inspection only."""
        if not self.keeps_bodies:
            request.body = None
            return
        request.size = bulk(request.body, depth=16)
        with self.lock:
            kept = self._state.received
            held = sum(one.size for one in kept)
            while held > MAX_CHARACTERS and len(kept) > 1:
                held -= kept.popleft().size

    def owner(self, key: str, headers: Mapping[str, str]) -> str:
        """Whose cache a request uses: that of the workspace it names, of its key's workspace, or of its key."""
        named = next((headers[name] for name in _WORKSPACE_HEADERS if headers.get(name)), "")
        workspace = named or self.workspaces.get(key, "")
        return f"workspace {workspace}" if workspace else owner_of(key)

    def read(self, wire: Wire, body: Mapping[str, Any], owner: str) -> Prompt:
        """The prompt of a request, with what the server holds in front of it: a conversation, cached contents."""
        content = self._content(body, owner)
        if content is not None:
            return wire.dialect.prompt(content.resumed(body))
        with self.lock:
            resumed = self._state.conversations.resumed(wire, body, owner)
        return wire.dialect.prompt(resumed)

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt."""
        return sum(piece(segment, self._tokenizer).tokens for segment in prompt.segments)

    def open(
        self,
        wire: Wire,
        body: Mapping[str, Any],
        key: str,
        request: Received,
        who: Personality | None = None,
        tier: str = "standard",
    ) -> Call:
        """Looks a request up and decides its answer. ``begin`` or ``abandon`` has to follow."""
        who = who or spoken_by(self.personality, wire.dialect.name)
        owner = self.owner(key, request.headers)
        prompt = self.read(wire, body, owner)
        wire.check(body, prompt)
        self._check_length(wire, prompt)
        said, truncated = (Reply(), False) if wire.speechless(body) else self._limited(self._answered(body), prompt)
        with self.lock:
            self._warn(who, prompt.model)
            serial = self._next_serial()
            cache = self._state.cache
            scope = self._scope(who, prompt, body, owner, request, serial)
            ticket = self._look_up(body, prompt, scope, owner, request)
            verdict = wire.verdict(body, prompt, ticket.accounting, self._difference(wire, body, prompt, owner))
        accounting = ticket.accounting
        output = self._output(said)
        exchange = Exchange(body, prompt, accounting, said, output, truncated, request.at, serial, who, verdict, tier)
        request.accounting = accounting
        request.owner = scope.credential
        request.machine = scope.endpoint
        request.response_id = wire.response_id(exchange)
        if accounting.length:
            request.read_to = wire.dialect.path(prompt.segments[accounting.length - 1])
        return Call(wire, exchange, owner, cache, ticket)

    def delay(self, call: Call) -> float:
        """Seconds from the request to the first byte of its answer."""
        accounting = call.exchange.accounting
        return self.latency(accounting.total - accounting.read, call.exchange.output)

    def begin(self, call: Call) -> None:
        """The response begins: what the request stored is readable, and its turn can be continued from."""
        scope, exchange = call.ticket.scope, call.exchange
        keeps = call.ticket.match is not None and self._rules(scope.provider, scope.model).keeps_output
        answered = call.wire.dialect.prompt(call.wire.answered(exchange)) if keeps else None
        with self.lock:
            call.cache.store(call.ticket, answered)
            response_id = call.wire.response_id(exchange)
            self._state.records.keep(call.owner, response_id, exchange.prompt, exchange.accounting)
            self._state.conversations.keep(call.wire, exchange, call.owner)

    def abandon(self, call: Call) -> None:
        """The request ends without a response."""
        with self.lock:
            call.cache.abandon(call.ticket)

    # --- parts of a call ------------------------------------------------------------------------------------

    def _scope(
        self, who: Personality, prompt: Prompt, body: Mapping[str, Any], owner: str, request: Received, serial: str
    ) -> Scope:
        """What must be equal for two requests to share entries; in the emulator the endpoint is the machine."""
        rules = self._rules(who.provider, prompt.model)
        salt = prompt.cache_key or string(body.get("cache_salt"))
        scope = Scope(who.provider, "", owner if rules.per_account else "", prompt.model, salt)
        if request.fault == Fault.COLD or self._chance(serial) < self.cold:
            return scope._replace(endpoint=f"cold machine {serial}")
        rate = rules.machine_rate and (rules.machine_rate if self.machine_rate is None else self.machine_rate)
        number = self._state.routes.machine(prompt, scope, rate, request.at, self._tokenizer) if rate else 0
        return scope._replace(endpoint=f"machine {number + 1}") if number else scope

    def _look_up(self, body: Mapping[str, Any], prompt: Prompt, scope: Scope, owner: str, request: Received) -> Ticket:
        cache = self._state.cache
        content = self._content(body, owner)
        if content is not None:
            return Ticket(content.accounting(self.count(prompt)), scope, request.at)
        if request.fault == Fault.EVICT:
            cache.evict()
        slot = body.get("id_slot")
        elsewhere = cache.would_read(prompt, scope._replace(endpoint=""), request.at) if scope.endpoint else 0
        ticket = cache.look_up(prompt, scope, request.at, slot if isinstance(slot, int) else None)
        counts = ticket.accounting
        if body.get("cache_prompt") is False and ticket.match is not None:
            counts = Accounting(counts.total, status=Status.UNCACHEABLE, why="the request asks for no cache")
        elif counts.read < elsewhere:
            status = Status.PARTIAL if counts.read else Status.MISS
            why = f"{elsewhere} tokens are cached on another machine"
            counts = dataclasses.replace(counts, status=status, reason=Reason.UNKNOWN, why=why)
        return dataclasses.replace(ticket, accounting=counts)

    def _difference(
        self, wire: Wire, body: Mapping[str, Any], prompt: Prompt, owner: str
    ) -> diagnostics.Difference | None:
        compared = wire.compared(body)
        return self._state.records.compare(owner, compared, prompt, self._tokenizer) if compared else None

    def _content(self, body: Mapping[str, Any], owner: str) -> Any:
        name = string(body.get("cachedContent") or body.get("cached_content"))
        return self._state.contents.living(name, owner, self.clock.now()) if name else None

    def _check_length(self, wire: Wire, prompt: Prompt) -> None:
        """Refuses what is longer than the context window, or than the emulator itself can take."""
        if not self.context_window and not prompt.truncated:
            return
        total = self.count(prompt)
        limit = self.context_window or total - 1
        if total > limit or prompt.truncated:
            raise wire.too_long(total, limit)

    def _warn(self, who: Personality, model: str) -> None:
        if self._rules(who.provider, model).known or (who.name, model) in self._state.warnings:
            return
        row = self._rules(who.provider, model)
        text = f"{who.name}: no rule names the model {model!r}; assumed are a minimum of {row.minimum} tokens and "
        text += f"a lifetime of {row.ttl} s, as for the provider's other models"
        self._state.warnings[who.name, model] = text
        log.warning("%s", text)

    def _chance(self, serial: str) -> float:
        """A number from 0 to 1 that depends on seed and request alone."""
        if not self.cold:
            return 1.0
        return int.from_bytes(blake2b(serial.encode(), digest_size=4, person=b"chance").digest()) / 2**32

    def _answered(self, body: Mapping[str, Any]) -> Reply:
        try:
            return self.answer(body)
        except reply.SchemaError as error:
            raise ProviderError(400, "invalid_request_error", str(error)) from error

    def _limited(self, said: Reply, prompt: Prompt) -> tuple[Reply, bool]:
        """A reply cut at the request's limit of output tokens, and whether it had to be."""
        limit = prompt.max_tokens
        if not limit or self._output(said) <= limit:
            return said, False
        end = cut(self._tokenizer, said.text, limit)
        return Reply(said.text[:end]), True

    def _output(self, said: Reply) -> int:
        texts = [said.text] if said.text else []
        texts += [name + compact(arguments) for name, arguments in said.tool_calls]
        return sum(max(1, self._tokenizer(text)) for text in texts)

    def _next_serial(self) -> str:
        self._serial += 1
        return blake2b(f"{self._seed}\0{self._serial}".encode(), digest_size=12).hexdigest()


def owner_of(key: str) -> str:
    """A stand-in for an API key in what the emulator shows: eight hexadecimal digits."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4, person=b"emulator").hexdigest()
