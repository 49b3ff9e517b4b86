"""Claude Code transcripts: what was said, and what each call read and wrote; not what was sent.

Tools, system prompt and cache markers are not in a transcript. Messages are put together again from the entries'
parents, so that sub-agents, forks and rewinds keep apart, and the lifetime is the one the call wrote for. Whatever
cannot be told from that is left unknown by ``replay``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from otel_promptcache.analysis.exchanges import INSTANT, Exchange, moment
from otel_promptcache.model import Answer
from otel_promptcache.providers import anthropic
from otel_promptcache.providers._wire import as_list, mapping, string
from otel_promptcache.providers.rules import HOUR

_ENTRIES: Final = frozenset({"user", "assistant", "system", "summary", "file-history-snapshot", "queue-operation"})
_WRITTEN_BY_NOBODY: Final = "<synthetic>"
"""The model of messages that the program made up itself, such as reports of API errors."""


def is_entry(document: Mapping[str, Any]) -> bool:
    """Whether a JSON line is an entry of a transcript."""
    return string(document.get("type")) in _ENTRIES and ("uuid" in document or "leafUuid" in document)


def exchanges(entries: Sequence[Mapping[str, Any]], name: str) -> Iterator[Exchange]:
    """The calls of a transcript, in the order in which they were answered."""
    known = _Entries(entries)
    compacted = _Compactions()
    for number, pieces in enumerate(_answers(entries)):
        first, last = pieces[0], pieces[-1]
        message = mapping(last["message"])
        before = known.before(first)
        usage = anthropic.usage(message.get("usage"))
        begun = moment(first.get("timestamp")) or 0.0
        sent = moment(before[-1].get("timestamp")) if before else None
        at = min(begun if sent is None else sent, begun)
        lived = HOUR if usage is not None and dict(usage.write_by_ttl).get(HOUR) else 0
        control = {"type": "ephemeral", **({"ttl": "1h"} if lived else {})}
        yield Exchange(
            case=name,
            name=name,
            number=number,
            dialect=anthropic,
            provider="anthropic",
            endpoint="",
            credential="",
            session=string(first.get("sessionId")),
            body={
                "model": string(message.get("model")),
                "cache_control": control,
                "messages": [dict(one) for one in _messages(before)],
            },
            answer=Answer(usage, string(message.get("id")), string(message.get("model"))),
            at=at,
            begun=max(begun, at + INSTANT),
            ended=max(moment(last.get("timestamp")) or begun, begun, at + INSTANT),
            whole=False,
            compacted=compacted.between(before),
        )


class _Compactions:
    """Tells the first call after each compaction."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def between(self, before: Iterable[Mapping[str, Any]]) -> bool:
        new = {string(entry.get("uuid")) for entry in before if entry.get("isCompactSummary")} - self._told
        self._told |= new
        return bool(new)


def _answers(entries: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The entries of each answer: one is written for every block of it."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        message = mapping(entry.get("message"))
        if entry.get("type") != "assistant" or message.get("model") in (None, _WRITTEN_BY_NOBODY):
            continue
        if entry.get("isApiErrorMessage") or "usage" not in message:
            continue
        key = _answer(entry) or string(entry.get("requestId")) or string(entry.get("uuid"))
        found.setdefault(key, []).append(entry)
    yield from found.values()


class _Entries:
    """The entries of a transcript, and who follows whom."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._all = entries
        self._places = {string(entry["uuid"]): place for place, entry in enumerate(entries) if "uuid" in entry}

    def before(self, entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The entries in front of one, oldest first. Results of parallel tools hang on their own calls: they are
        taken along wherever their call is."""
        limit = self._places[string(entry["uuid"])]
        chain: set[int] = set()
        place = self._parent(limit)
        while place is not None and place not in chain:
            chain.add(place)
            place = self._parent(place)
        answers = {key for place in chain if (key := _answer(self._all[place]))}
        known = {string(self._all[place].get("uuid")) for place in chain}
        for place in range(min(chain, default=limit), limit):
            one = self._all[place]
            result = string(one.get("parentUuid")) in known and _is_result(one)
            if place not in chain and (result or _answer(one) in answers):
                chain.add(place)
                known.add(string(one.get("uuid")))
        return [self._all[place] for place in sorted(chain)]

    def _parent(self, place: int) -> int | None:
        """The entry that one follows. A parent that was not kept (reports of progress) is taken to be the entry before
        it in the file; a summary begins anew."""
        entry = self._all[place]
        parent = entry.get("parentUuid")
        if not parent or entry.get("isCompactSummary"):
            return None
        found = self._places.get(parent)
        if found is not None:
            return found
        side = bool(entry.get("isSidechain"))
        earlier = range(place - 1, -1, -1)
        return next((at for at in earlier if bool(self._all[at].get("isSidechain")) is side), None)


def _answer(entry: Mapping[str, Any]) -> str:
    """The id of the answer that an entry is a piece of."""
    return string(mapping(entry.get("message")).get("id"))


def _is_result(entry: Mapping[str, Any]) -> bool:
    if entry.get("type") != "user":
        return False
    content = as_list(mapping(entry.get("message")).get("content"))
    return any(mapping(block).get("type") == "tool_result" for block in content)


def _messages(entries: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Messages as the API takes them: the blocks of an answer together, results behind it."""
    role = ""
    blocks: list[Any] = []
    for entry in entries:
        message = mapping(entry.get("message"))
        said = string(message.get("role"))
        if entry.get("type") not in ("user", "assistant") or not said or entry.get("isApiErrorMessage"):
            continue
        if said != role and blocks:
            yield {"role": role, "content": blocks}
            blocks = []
        role = said
        content = message.get("content")
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else as_list(content)
    if blocks:
        yield {"role": role, "content": blocks}
