"""What the history of one process would have said, had it seen the requests of all of them: the records of those that
matter, replayed at their times, and the request in question looked up among them.

Nothing of it outlives the call. The history of this process is not touched, and its segments cost what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from otel_promptcache import fingerprint
from otel_promptcache.fingerprint import Detail, HashKey, unpack
from otel_promptcache.fingerprint.detail import Hashed
from otel_promptcache.history import Sent, Sight
from otel_promptcache.history.info import Info, Traits
from otel_promptcache.history.memory import Memory
from otel_promptcache.history.records import SPEAKERS, Placed, Record
from otel_promptcache.model import Breakpoint, Kind, Link, Prompt, Scope, Section, Segment, Segments, Usage

_ROOM: Final = 10**9
"""Segments: nothing is forgotten while one call is looked at."""

Details = Callable[[bytes], tuple[bytes, Hashed] | Info | None]
"""Digest of a segment to its packed detail and how that was hashed, or to what this process knows of it."""


class Told(Info):
    """What another worker's record says of a segment, or this one's own request."""

    __slots__ = ("_details", "_digest")

    def __init__(self, key: int, digest: bytes, size: int, traits: Traits, details: Details) -> None:
        super().__init__(key, size, traits)
        self._digest = digest
        self._details = details

    def _known(self) -> tuple[Detail | None, Hashed]:
        found = self._details(self._digest)
        if found is None:
            return None, hash
        if isinstance(found, Info):
            self.remembered = self.remembered or found.remembered
            return found.detail, found.hashed
        return unpack(found[0]), found[1]

    @property
    def detail(self) -> Detail | None:
        return self._known()[0]

    @property
    def hashed(self) -> Hashed:
        return self._known()[1]

    def detailed(self, segment: Segment, hashed: Hashed = hash) -> Detail | None:
        return fingerprint.detail(segment, hashed)


class Seen(NamedTuple):
    """A record, and how much of its prompt is known to begin as the present one does."""

    record: Record
    equal: int = 0


class Asked(NamedTuple):
    """The present request, in the terms of the records."""

    prompt: Prompt
    placed: Sequence[Placed]
    """Its segments."""
    scope: Scope
    at: float
    route: str
    conversation: str
    previous_id: str
    conversation_id: str
    link: Link | None


def rebuilt(asked: Asked, found: Iterable[Seen], details: Details) -> tuple[Memory, Sight]:
    """The sight of a request as of the moment it was sent, and the history that has it."""
    infos: dict[int, Told] = {}
    own = [
        _segment(one, infos, details, segment) for one, segment in zip(asked.placed, asked.prompt.segments, strict=True)
    ]
    ends = list(accumulate(one.size for one in asked.placed))
    memory = _Replayed(infos)
    events: list[tuple[float, int, int, _Replay]] = []
    for number, seen in enumerate(_newest_first(found)):
        if seen.record.at >= asked.at:
            continue  # on its way later than this one: it was not there to be read
        replay = _Replay(seen.record, _prompt(seen, own, ends, infos, details))
        events.append((seen.record.at, _SENT, number, replay))
        if seen.record.began is not None:
            events.append((seen.record.began, _BEGUN, number, replay))
        if seen.record.ended is not None:
            events.append((seen.record.ended, _ENDED, number, replay))
    events.sort(key=lambda event: event[:3])
    for moment, what, _, replay in events:
        if moment <= asked.at:
            replay.play(memory, what, moment)
    prompt = asked.prompt._replace(
        segments=Segments(own), previous_id=asked.previous_id, conversation_id=asked.conversation_id
    )
    sight = memory.sent(
        prompt, asked.scope, now=asked.at, route=asked.route, conversation=asked.conversation, link=asked.link
    )
    for moment, what, _, replay in events:
        if moment > asked.at:
            replay.play(memory, what, moment)
    return memory, sight


_BEGUN, _ENDED, _SENT = range(3)
"""At one moment, what ends is told before what starts."""


class _Replay:
    """One earlier request, told of what happened to it."""

    def __init__(self, record: Record, prompt: Prompt) -> None:
        self._record = record
        self._prompt = prompt
        self._sight: Sight | None = None

    def play(self, memory: Memory, what: int, moment: float) -> None:
        record = self._record
        if what == _SENT:
            self._sight = memory.sent(
                self._prompt,
                record.scope,
                now=moment,
                route=record.route,
                conversation=record.conversation,
                link=record.link,
            )
            self._take_over(self._sight.sent)
            self._set_entries(self._sight)
        elif self._sight is not None and what == _BEGUN:
            memory.begun(self._sight, moment)
        elif self._sight is not None:
            # What it read is told of the place that it was expected to read up to, not of those that are known here.
            self._sight.live = min(record.live, len(self._sight.nodes))
            usage = Usage(record.total, record.read, record.write, server_tools=record.server_tools)
            memory.ended(self._sight, None if record.failed else usage, record.response_id, None)

    def _set_entries(self, sight: Sight) -> None:
        """Entries may be older than the newest request that marks them, and their tokens known from an earlier one: not
        all requests in between are replayed."""
        record = self._record
        for at, (length, _, _) in enumerate(record.marks):
            node = sight.nodes.kept(min(length, len(sight.nodes)))
            if node is None:
                continue
            used = record.used[at] if at < len(record.used) else None
            if node.entry is not None and used is not None and used < record.at:
                node.entry.used, node.entry.readable = used, True
            if at < len(record.tokens) and record.tokens[at]:
                node.tokens = record.tokens[at]

    def _take_over(self, sent: Sent) -> None:
        record = self._record
        sent.lineage = record.lineage
        sent.prompt = None  # its hashes are known, or were never told
        sent.served, sent.rewrites = record.served, record.rewrites
        sent.frozen, sent.adrift = record.frozen, record.adrift


def _newest_first(found: Iterable[Seen]) -> Sequence[Seen]:
    """Each request once, as it is known best: by how it ended, and by the most of its prompt."""
    best: dict[str, Seen] = {}
    for seen in found:
        other = best.get(seen.record.id)
        best[seen.record.id] = seen if other is None else _joined(seen, other)
    return list(best.values())


def _joined(one: Seen, other: Seen) -> Seen:
    later, earlier = sorted((one, other), key=lambda seen: _progress(seen.record), reverse=True)
    segments = max(one.record.segments, other.record.segments, key=len)
    return Seen(later.record._replace(segments=segments), max(later.equal, earlier.equal))


def _progress(record: Record) -> int:
    return 2 if record.ended is not None else 1 if record.began is not None else 0


def _prompt(
    seen: Seen, own: Sequence[Segment], ends: Sequence[int], infos: dict[int, Told], details: Details
) -> Prompt:
    """The prompt of an earlier request as far as it is known; what is not is one segment, which nothing else equals."""
    record, equal = seen
    if len(record.segments) > equal:
        segments = [_segment(one, infos, details) for one in record.segments]
        size = sum(one.size for one in record.segments)
    else:
        segments = list(own[:equal])
        size = ends[equal - 1] if equal else 0
    known = len(segments)
    if known < record.length:
        key = -1 - len(infos)
        while key in infos:
            key -= 1
        section = Section.MESSAGES if known >= record.leading else Section.SYSTEM
        rest = Traits(section, Kind.OTHER, 0)
        infos[key] = Told(key, b"", max(0, record.size - size), rest, _nothing)
        segments.append(Segment(key, section, Kind.OTHER, record.element, -1, "", None))
    marks = tuple(Breakpoint(min(length, len(segments)), ttl, explicit) for length, ttl, explicit in record.marks)
    return Prompt(
        record.dialect,
        record.scope.model,
        Segments(segments),
        marks,
        record.automatic,
        record.scope.cache_key,
        record.retention,
        record.previous_id,
        record.conversation_id,
    )


def _nothing(_: bytes) -> None:
    return None


def _segment(one: Placed, infos: dict[int, Told], details: Details, mine: Segment | None = None) -> Segment:
    key = int.from_bytes(one.digest, "little")
    if key not in infos:
        traits = Traits(one.section, one.kind, one.role, one.label)
        infos[key] = Told(key, one.digest, one.size, traits, details)
    if mine is not None:
        return mine._replace(key=key)
    return Segment(key, one.section, one.kind, one.element, -1, SPEAKERS[one.speaker % len(SPEAKERS)], None)


class _Replayed(Memory):
    """A history whose segments have been described already. Lives for one call, in one thread."""

    def __init__(self, infos: Mapping[int, Info]) -> None:
        self._prepare(_NO_KEY, _ROOM)
        self._told = infos

    def _new(self, segment: Segment) -> Info:
        return self._told[segment.key]


_NO_KEY: Final = HashKey()
"""The root of a chain that nobody asks for."""
