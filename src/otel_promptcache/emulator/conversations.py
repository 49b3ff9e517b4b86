"""Conversations that the server holds: message threads, and responses that later ones continue from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from otel_promptcache.emulator.exchange import Exchange, Turn
from otel_promptcache.emulator.wire import HOLDERS, Wire

MAX_HELD: Final = 10_000
"""Responses that later requests can continue from."""


class _Held(NamedTuple):
    """A held turn and the one before it: a conversation is a chain, so that no turn copies the earlier ones."""

    turn: Turn
    before: _Held | None


class Conversations:
    """Held turns by account and response id. Not thread-safe."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()

    def resumed(self, wire: Wire, body: Mapping[str, Any], owner: str) -> Mapping[str, Any]:
        """A request with what is held put in front of it. Raises the provider's error for an unknown response."""
        holder = HOLDERS.get(wire.dialect.name)
        previous = holder.previous(body) if holder else ""
        if holder is None or not previous:
            return body
        last = self._held.get((owner, previous))
        if last is None:
            raise holder.lost(previous)
        turns = _turns(last)
        return holder.resumed(body, [item for turn in turns for item in turn.items], turns[0].settings)

    def keep(self, wire: Wire, exchange: Exchange, owner: str) -> None:
        """Holds a turn where the request asks for it."""
        holder = HOLDERS.get(wire.dialect.name)
        turn = holder.turn(exchange) if holder else None
        if holder is None or turn is None:
            return
        before = self._held.get((owner, holder.previous(exchange.body)))
        self._held[owner, wire.response_id(exchange)] = _Held(turn, before)
        while len(self._held) > MAX_HELD:
            self._held.popitem(last=False)


def _turns(last: _Held) -> Sequence[Turn]:
    """A held conversation, first turn first."""
    turns = []
    one: _Held | None = last
    while one is not None:
        turns.append(one.turn)
        one = one.before
    turns.reverse()
    return turns
