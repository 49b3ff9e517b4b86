"""One emulated provider without its HTTP: cache, clock, held conversations, request log."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypedDict

from otel_promptcache.emulator import reply
from otel_promptcache.emulator.cache import Accounting, Cache, Ticket
from otel_promptcache.emulator.clock import Clock
from otel_promptcache.emulator.exchange import Exchange, ProviderError, Turn
from otel_promptcache.emulator.reply import Answer, Reply
from otel_promptcache.emulator.tokens import Tokenizer, compact, cut, piece, quarter_bytes
from otel_promptcache.emulator.wire import HOLDERS, Wire
from otel_promptcache.model import Prompt, Scope

MAX_HELD: Final = 10_000
"""Responses that later requests can continue from."""

MAX_RECEIVED: Final = 1_000
"""Requests kept for inspection."""

STATE_ENTRIES: Final = 500
STATE_REQUESTS: Final = 100


class Options(TypedDict, total=False):
    """What an emulator can be given."""

    answer: Answer
    """The stand-in model."""
    tokenizer: Tokenizer
    clock: Clock
    latency: Callable[[int, int], float]
    """(input tokens not read from cache, output tokens) to seconds before the first byte."""
    seed: str
    """What response ids are made from."""
    retry_after: float
    """Seconds that a 429 asks the client to wait."""
    stall: float
    """Seconds of the fault ``stall``."""


def no_latency(uncached: int, output: int) -> float:  # noqa: ARG001 - the signature of a latency
    """Answers at once."""
    return 0.0


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

    def summary(self) -> dict[str, Any]:
        """The request without its text and its key."""
        counts = self.accounting
        shown: dict[str, Any] = {"at": self.at, "path": self.path, "status": self.status}
        if isinstance(self.body, dict):
            shown["model"] = self.body.get("model")
        if counts is not None:
            shown |= {
                "id": self.response_id,
                "tokens": counts.total,
                "read": counts.read,
                "written": counts.write,
                "cache": counts.status,
                "reason": counts.reason,
                "read_to": self.read_to,
            }
        return shown | {name: getattr(self, name) for name in ("fault", "error") if getattr(self, name)}


@dataclass(slots=True)
class Call:
    """A request that has been looked up and not answered yet."""

    wire: Wire
    exchange: Exchange
    owner: str
    cache: Cache
    ticket: Ticket


class _Held(NamedTuple):
    """A held turn and the one before it: a conversation is a chain, so that no turn copies the earlier ones."""

    turn: Turn
    before: _Held | None


@dataclass(slots=True)
class _State:
    """Everything that ``reset`` forgets."""

    cache: Cache
    held: OrderedDict[tuple[str, str], _Held] = field(default_factory=OrderedDict)
    received: deque[Received] = field(default_factory=lambda: deque(maxlen=MAX_RECEIVED))


class Emulator:
    """A provider to talk to. ``answer``, ``latency`` and the other options may be changed while it runs."""

    def __init__(
        self,
        *,
        answer: Answer = reply.default,
        tokenizer: Tokenizer = quarter_bytes,
        clock: Clock | None = None,
        latency: Callable[[int, int], float] = no_latency,
        seed: str = "emulator",
        retry_after: float = 1.0,
        stall: float = 30.0,
    ) -> None:
        self.answer = answer
        self.clock = clock or Clock()
        self.latency = latency
        self.retry_after = retry_after
        self.stall = stall
        self.url = ""
        """Base URL for anthropic; with ``/v1`` the one for openai. Set while it is served."""
        self._tokenizer = tokenizer
        self._seed = seed
        self._serial = 0
        self._lock = threading.Lock()
        self._state = _State(Cache(tokenizer))

    @property
    def requests(self) -> list[Received]:
        """The requests since the last reset, oldest first, at most ``MAX_RECEIVED``."""
        with self._lock:
            return list(self._state.received)

    def reset(self) -> None:
        """Forgets entries, conversations and requests. Time goes on, and no id is given twice."""
        with self._lock:
            self._state = _State(Cache(self._tokenizer))

    def state(self) -> dict[str, Any]:
        """Entries and the latest requests, for people; lifetimes in seconds from now, negative when expired."""
        now = self.clock.now()
        with self._lock:
            cache = self._state.cache
            return {
                "now": now,
                "entries_total": len(cache),
                "entries": [
                    {
                        "owner": entry.scope.credential,
                        "provider": entry.scope.provider,
                        "model": entry.scope.model,
                        "cache_key": entry.scope.cache_key,
                        "tokens": entry.tokens,
                        "ttl": entry.ttl,
                        "expires_in": entry.expires - now,
                        "reads": entry.reads,
                    }
                    for entry in cache.entries(STATE_ENTRIES)
                ],
                "requests": [one.summary() for one in list(self._state.received)[-STATE_REQUESTS:]],
            }

    # --- one call -------------------------------------------------------------------------------------------

    def received(self, path: str, headers: Mapping[str, str]) -> Received:
        """Notes a request."""
        request = Received(self.clock.now(), path, headers)
        with self._lock:
            self._state.received.append(request)
        return request

    def read(self, wire: Wire, body: Mapping[str, Any], key: str) -> Prompt:
        """The prompt of a request, with the conversation that the server holds in front of it."""
        return wire.dialect.prompt(self._resumed(wire, body, owner_of(key)))

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt."""
        return sum(piece(segment, self._tokenizer).tokens for segment in prompt.segments)

    def open(self, wire: Wire, body: Mapping[str, Any], key: str, request: Received) -> Call:
        """Looks a request up and decides its answer. ``begin`` or ``abandon`` has to follow."""
        owner = owner_of(key)
        prompt = self.read(wire, body, key)
        wire.check(body, prompt)
        said, truncated = (Reply(), False) if wire.speechless(body) else self._limited(self._answered(body), prompt)
        scope = Scope(wire.dialect.provider, "", owner, prompt.model, prompt.cache_key)
        with self._lock:
            cache = self._state.cache
            ticket = cache.look_up(prompt, scope, request.at)
            serial = self._next_serial()
        accounting = ticket.accounting
        output = self._output(said)
        exchange = Exchange(body, prompt, accounting, said, output, truncated, request.at, serial)
        request.accounting = accounting
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
        holder = HOLDERS.get(call.wire.dialect.name)
        with self._lock:
            call.cache.store(call.ticket)
            turn = holder.turn(call.exchange) if holder else None
            if holder is None or turn is None:
                return
            held = self._state.held
            before = held.get((call.owner, holder.previous(call.exchange.body)))
            held[call.owner, call.wire.response_id(call.exchange)] = _Held(turn, before)
            while len(held) > MAX_HELD:
                held.popitem(last=False)

    def abandon(self, call: Call) -> None:
        """The request ends without a response."""
        with self._lock:
            call.cache.abandon(call.ticket)

    def _resumed(self, wire: Wire, body: Mapping[str, Any], owner: str) -> Mapping[str, Any]:
        holder = HOLDERS.get(wire.dialect.name)
        previous = holder.previous(body) if holder else ""
        if holder is None or not previous:
            return body
        with self._lock:
            last = self._state.held.get((owner, previous))
        if last is None:
            raise holder.lost(previous)
        turns = _turns(last)
        items = [item for turn in turns for item in turn.items]
        return holder.resumed(body, items, turns[0].settings)

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


def _turns(last: _Held) -> Sequence[Turn]:
    """A held conversation, first turn first."""
    turns = []
    one: _Held | None = last
    while one is not None:
        turns.append(one.turn)
        one = one.before
    turns.reverse()
    return turns
