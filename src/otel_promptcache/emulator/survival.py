"""How often a prefix is still there after a pause: recorded agent sessions, and the emulator given the same pauses.

A session is a file of JSON lines: records with ``uuid``, ``parentUuid``, ``timestamp`` and a ``message``, whose texts
are replaced by their lengths; what an assistant said carries the usage of its call. A call's prompt is the chain of
records that led to it, so a conversation that is summed up or taken back parts from the one before, as it did.

Given to the emulator: that chain, the lengths, model, lifetime, and when each call started. Predicted: what it reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_promptcache.emulator.clock import Clock
from otel_promptcache.emulator.engine import Emulator
from otel_promptcache.emulator.recording import RecordingError
from otel_promptcache.emulator.wire import anthropic
from otel_promptcache.model import Usage
from otel_promptcache.providers._wire import as_list, count, mapping, string
from otel_promptcache.providers.rules import HOUR, MINUTE, TTL_NAMES

FOLDER: Final = "sessions"
SURVIVED: Final = 0.95
"""Share of what the call before left in the cache that must be read."""

_OURS: Final = frozenset({"<synthetic>"})
"""Models of messages that no provider was asked for."""
_SYSTEM: Final = "Agent's instructions and tools. " * 2000
"""What stands in front of every conversation and is in no record."""


class Pause(NamedTuple):
    """A class of gaps between the starts of two calls, in seconds: more than ``above``, up to ``most``."""

    name: str
    above: float
    most: float


class Call(NamedTuple):
    """One call of a session."""

    start: float
    """Seconds since the epoch: when the last record before the answer was written."""
    model: str
    usage: Usage
    chain: tuple[str, ...]
    """Ids of the records that made its prompt."""
    ttl: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """How many of the calls after such a pause read what the call before them had left."""

    pause: str
    calls: int
    recorded: int
    emulated: int


PAUSES: Final = (Pause("up to 1 minute", 0, MINUTE), Pause("1 to 5 minutes", MINUTE, 5 * MINUTE))
LONGER: Final = "over 5 minutes, within the lifetime"
EXPIRED: Final = "over the lifetime"


def survival(folder: Path) -> list[Row]:
    """The table for the sessions of a folder, shortest pause first; empty where there are none."""
    counts: dict[str, list[int]] = {name: [0, 0, 0] for name in (*(one.name for one in PAUSES), LONGER, EXPIRED)}
    for file in sorted((folder / FOLDER).glob("*.jsonl")):
        calls, records = session(file)
        for pause, recorded, emulated in _compared(calls, records):
            for index, value in enumerate((True, recorded, emulated)):
                counts[pause][index] += value
    return [Row(pause, *found) for pause, found in counts.items() if found[0]]


def session(file: Path) -> tuple[list[Call], Mapping[str, Mapping[str, Any]]]:
    """The calls of a session in order, and all its records by id. Raises ``RecordingError``."""
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        records = {row["uuid"]: row for row in rows if row.get("uuid")}
        return list(_calls(rows, records)), records
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingError(f"{file}: not a session: {error!r}") from error


def _calls(rows: Iterable[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> Iterator[Call]:
    """An answer is written as several records, the first of which ends the prompt and the last has its usage."""
    first: dict[str, Mapping[str, Any]] = {}
    last: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        message = mapping(row.get("message"))
        if row.get("type") == "assistant" and message.get("usage") and message.get("model") not in _OURS:
            first.setdefault(string(message.get("id")), row)
            last[string(message.get("id"))] = row
    for identity, row in first.items():
        usage = anthropic.dialect.usage(last[identity]["message"]["usage"])
        chain = tuple(_ancestors(row, records))
        if usage is not None:
            hour = dict(usage.write_by_ttl).get(HOUR)
            started = records[chain[-1]] if chain else row
            ttl = HOUR if hour else 5 * MINUTE
            yield Call(_moment(started), string(row["message"].get("model")), usage, chain, ttl)


def _ancestors(row: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    chain: list[str] = []
    parent = _parent(row, records)
    while parent and len(chain) < len(records):
        chain.append(parent)
        parent = _parent(records[parent], records)
    chain.reverse()
    return chain


def _parent(row: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> str:
    """The record that one follows, empty where a conversation begins. Some kinds of records are not kept: what
    follows one of them follows what was written before."""
    named = string(row.get("parentUuid"))
    if not named or named in records:
        return named
    order = list(records)
    place = order.index(string(row.get("uuid")))
    return order[place - 1] if place else ""


def _moment(row: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(string(row["timestamp"])).timestamp()


def _compared(calls: list[Call], records: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bool, bool]]:
    """(pause, survived as recorded, survived as emulated) of each call but the first."""
    emulated = _emulated(calls, records)
    for (before, call), (held, read) in zip(pairwise(calls), pairwise(emulated), strict=True):
        left = (before.usage.read or 0) + (before.usage.write or 0)
        recorded = (call.usage.read or 0) >= SURVIVED * left
        yield _pause(call.start - before.start, before.ttl), recorded, read[0] >= SURVIVED * held[1]


def _pause(gap: float, ttl: int) -> str:
    if gap > ttl:
        return EXPIRED
    return next((pause.name for pause in PAUSES if gap <= pause.most), LONGER)


def _emulated(calls: list[Call], records: Mapping[str, Mapping[str, Any]]) -> list[tuple[int, int]]:
    """(read, read and written) of each call, in the emulator's own tokens."""
    now = 0.0
    emulator = Emulator(clock=Clock(lambda: now))
    blocks = {identity: _message(record) for identity, record in records.items()}
    found = []
    for call in calls:
        now = call.start
        mark = {"type": "ephemeral", "ttl": TTL_NAMES[call.ttl]}
        body = {
            "model": call.model,
            "max_tokens": 1,
            "cache_control": mark,
            "system": [{"type": "text", "text": _SYSTEM, "cache_control": mark}],
            "messages": [message for one in call.chain if (message := blocks[one])]
            or [{"role": "user", "content": "."}],
        }
        request = emulator.received(anthropic.path, {})
        opened = emulator.open(anthropic, body, "session", request)
        emulator.begin(opened)
        counts = opened.ticket.accounting
        found.append((counts.read, counts.read + counts.write))
    return found


def _message(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """A record as a message again: blocks of the same kinds and lengths, which differ where the record's digests do."""
    message = mapping(record.get("message"))
    blocks = [_block(mapping(block)) for block in as_list(message.get("content"))]
    role = string(message.get("role"))
    return {"role": role, "content": blocks} if role and blocks else None


def _block(block: Mapping[str, Any]) -> dict[str, Any]:
    text = string(block.get("sha256_16")).ljust(count(block.get("chars")) or 0, ".") or "."
    match block.get("type"):
        case "tool_use":
            return {"type": "tool_use", "id": "t", "name": string(block.get("name")), "input": {"of": text}}
        case "tool_result":
            return {"type": "tool_result", "tool_use_id": "t", "content": text}
        case _:
            return {"type": "text", "text": text}
