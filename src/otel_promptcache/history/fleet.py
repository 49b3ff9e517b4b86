"""The history that all workers share: what a call asks, what it leaves, and what it then knows.

It waits for the server, so it is for a thread of its own (``observer.shared``).
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from otel_promptcache import fingerprint
from otel_promptcache.fingerprint import HashKey, pack
from otel_promptcache.fingerprint.detail import Hashed
from otel_promptcache.history import Info, Sent, Sight, Write
from otel_promptcache.history.memory import Memory
from otel_promptcache.history.rate import rate, rated
from otel_promptcache.history.rebuilt import Details, Seen, rebuilt
from otel_promptcache.history.records import READABLE, SCHEMA, Record
from otel_promptcache.history.sharing import (
    KEEP,
    Command,
    Mine,
    Realm,
    asked,
    chosen,
    kept_for,
    lifetime,
    mine,
    outgrown,
    read_mark,
    reads,
    record,
    seen,
    translated,
    trimmed,
    writes,
)
from otel_promptcache.model import Prompt, Section, Usage

MAX_DETAILS: Final = 8192
"""Segments of tools and system prompts whose line hashes are remembered."""
MAX_DETAIL: Final = 2**18
"""Bytes of line hashes of one segment that are shared."""
MAX_REALMS: Final = 1024
MAX_READ: Final = 3
"""Longest entries of which one call says that they were read, beside the shortest: those in between were told of by the
requests before it."""
_ASKED_AT_ONCE: Final = 500
_THOUSANDTH: Final = 0.001
"""Of a second, to which moments are told."""


class Server(Protocol):
    """What is needed of ``redis.Server``."""

    troubles: Counter[str]

    def ahead(self) -> float: ...

    def run(self, commands: Sequence[Command]) -> list[Any]: ...


class Caller(NamedTuple):
    """What a call says of itself beside its prompt."""

    tenant: str
    route: str
    conversation: str
    credentials: tuple[str, ...]
    """A digest of the account's credential under each of the keys."""


class Shared:
    """One call's place in the shared history."""

    __slots__ = ("_ahead", "memory", "mine", "mines", "prompt", "record", "sight")

    def __init__(self, mines: Sequence[Mine], prompt: Prompt, said: Record, ahead: float) -> None:
        self._ahead = ahead
        self.mine = mines[0]
        self.mines = mines
        """The request under each key that is read."""
        self.prompt = prompt
        self.record = said
        self.memory: Memory | None = None
        self.sight: Sight | None = None
        """What was known when it was sent; None when the server did not say."""

    def at(self, moment: float) -> float:
        """A moment of this call by the server's clock, as far ahead of ours as when the request was sent. Always after
        the sending, even where our clock was set back: at the same moment the response would be told first."""
        return max(moment + self._ahead, self.record.at + _THOUSANDTH)


class Fleet:
    """The shared history, from one worker."""

    def __init__(self, server: Server, keys: Sequence[HashKey], *, lines: bool = False) -> None:
        """``keys``: the one that is written under, then those that are read besides. ``lines``: whether line hashes of
        messages are shared too, not only those of tools and system prompt."""
        self._lines = lines
        self._server = server
        self._keys = keys
        self._realms: OrderedDict[tuple[str, str], Realm] = OrderedDict()
        self._details: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._left: OrderedDict[str, float] = OrderedDict()
        self.troubles: Counter[str] = Counter()
        """Replies that could not be used, by what was wrong."""

    def realm(self, key: HashKey, tenant: str) -> Realm:
        found = self._realms.get((key.id, tenant))
        if found is None:
            found = self._realms[key.id, tenant] = Realm(key, tenant)
            if len(self._realms) > MAX_REALMS:
                self._realms.popitem(last=False)
        return found

    def look(self, prompt: Prompt, sight: Sight, caller: Caller) -> Shared:
        """Asks what other workers know of a request that this one has just sent, and tells them of it. The segments of
        ``sight`` must have been described. Raises what the server's library raises when there is no answer."""
        names = caller.route, caller.conversation
        realms = [self.realm(key, caller.tenant) for key in self._keys]
        mines = [
            mine(realm, self._keys[at] if at else None, prompt, sight, credential, names)
            for at, (realm, credential) in enumerate(zip(realms, caller.credentials, strict=True))
        ]
        own, sent = mines[0], sight.sent
        ahead = self._server.ahead()
        at = sent.at + ahead
        said = record(own, prompt, secrets.token_hex(6), at, sent.lineage, sent.link)
        shared = Shared(mines, prompt, said, ahead)
        asks = [reads(one, prompt) for one in mines]
        counted = rate(own, at)
        left = writes(own, prompt, said) + self._details_of(own, prompt, at, lifetime(said))
        replies = self._run([ask.command for some in asks for ask in some] + counted + left)
        found, place = [], 0
        unreadable: list[str] = []
        for some, one in zip(asks, mines, strict=True):
            here = seen(some, replies[place : place + len(some)], unreadable)
            found += here if one is own else list(translated(here, one, own))
            place += len(some)
        self.troubles.update(unreadable)
        sites = replies[len(asks[0]) - 1]
        relevant = chosen(found, at)
        self._fetch(relevant, mines)
        if isinstance(sites, dict) and (surplus := trimmed(own, sites)):
            self._run(surplus)
        shared.sight = self._rebuilt(shared, sight, relevant, mines)
        shared.sight.rate = max(sight.rate, rated(replies[place : place + len(counted)], at)) if counted else sight.rate
        shared.record = said._replace(lineage=shared.sight.sent.lineage)
        return shared

    def _rebuilt(self, shared: Shared, sight: Sight, relevant: list[Seen], mines: Sequence[Mine]) -> Sight:
        said = shared.record
        shared.memory, found = rebuilt(
            asked(shared.mine, shared.prompt, said.at, sight.sent.link), relevant, self._lookup(sight, mines)
        )
        known = {one.record.lineage for one in relevant}
        if found.sent.lineage not in known:
            found.sent.lineage = sight.sent.lineage
        return found

    def begun(self, shared: Shared, at: float) -> None:
        """The response has begun: others may read what the request wrote."""
        shared.record = shared.record._replace(began=shared.at(at))
        self._run(writes(shared.mine, shared.prompt, shared.record))

    def ended(
        self, shared: Shared, at: float, sent: Sent, usage: Usage | None, response_id: str, write: Write | None = None
    ) -> None:
        """The response is over, with these token counts; None where the request failed. ``write``: what it paid for; it
        is told where others say that they have read it."""
        said = shared.record
        usage = usage or Usage()
        used: tuple[float | None, ...] = ()
        tokens: tuple[int, ...] = ()
        live = 0
        if shared.memory is not None and shared.sight is not None:
            if sent.readable:
                shared.memory.begun(shared.sight)
            shared.memory.ended(shared.sight, usage, "", None)
            live = shared.sight.live
            nodes = {node.length: node for node, _ in shared.sight.sent.breakpoints}
            places = [nodes.get(length) for length, _, _ in said.marks]
            used = tuple(place.entry.used if place and place.entry else None for place in places)
            tokens = tuple(place.tokens if place else 0 for place in places)
        began = sent.began if sent.began is not None else at if sent.readable else None
        shared.record = said._replace(
            began=None if began is None else shared.at(began),
            ended=shared.at(at),
            failed=not usage.available,
            total=usage.input_total,
            read=usage.read,
            write=usage.write,
            server_tools=usage.server_tools,
            response_id=shared.mine.realm.token(response_id),
            used=used,
            tokens=tokens,
            live=live,
            served=sent.served,
            rewrites=sent.rewrites,
            frozen=sent.frozen,
            adrift=sent.adrift,
        )
        commands = writes(shared.mine, shared.prompt, shared.record)
        sight = shared.sight
        if sight is not None and sight.previous is not None and sight.previous.path() and not shared.record.failed:
            before = len(sight.previous.path())
            commands += outgrown(shared.mine, before) if before == sight.shared else []
        if usage.read:
            commands += self._read(shared)
        marks = {read_mark(shared.mine, length): kept_for(ttl) for length, ttl, _ in said.marks if length > live}
        if write is not None:
            for name, seconds in marks.items():
                # Where nobody has read it yet: that it is there says later that nothing was lost meanwhile.
                commands += [("SET", name, f"{said.at:.3f}", "EX", seconds, "NX"), ("EXPIRE", name, seconds)]
        self._run(commands)
        if write is not None:
            write.marks, write.since = tuple(marks), said.at

    @staticmethod
    def _read(shared: Shared) -> list[Command]:
        """Says of the entries that a request has read that somebody did: whoever paid for them asks before he calls it
        a waste."""
        sight = shared.sight
        if sight is None:
            return []
        reach = max(sight.live, sight.pending, sight.expired, sight.beyond)
        entries = {node.length: node.entry for node in sight.nodes.nodes(reach) if node.entry and node.entry.read}
        lengths = sorted(entries)
        told = {*lengths[:1], *lengths[-MAX_READ:]}
        at = f"{shared.record.at:.3f}"
        return [
            ("SET", read_mark(own, length), at, "EX", kept_for(entries[length].ttl))
            for own in shared.mines
            for length in sorted(told)
        ]

    def were_read(self, writes: Sequence[Write]) -> list[bool]:
        """Of each write, whether any worker has read what was written, or that cannot be told. Raises what the server's
        library raises."""
        names = [name for write in writes for name in write.marks]
        read: dict[str, float] = {}
        for start in range(0, len(names), _ASKED_AT_ONCE):
            some = names[start : start + _ASKED_AT_ONCE]
            replies = self._run([("GET", name) for name in some])
            read.update((name, _moment(reply)) for name, reply in zip(some, replies, strict=True))
        return [any(read[name] > write.since + _THOUSANDTH for name in write.marks) for write in writes]

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        replies = self._server.run(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                self.troubles[type(reply).__name__] += 1
        self.troubles.update(self._server.troubles)
        self._server.troubles.clear()
        return replies

    # --- What stands in the lines of tools and system prompt ------------------------------------------------

    def _details_of(self, own: Mine, prompt: Prompt, now: float, seconds: int) -> list[Command]:
        """Leaves the line hashes of what may be told, again before they run out."""
        found: list[Command] = []
        for at in range(len(own.placed) if self._lines else own.leading):
            digest = own.placed[at].digest
            name = own.realm.name("d", digest)
            if self._left.get(name, 0.0) > now:
                continue
            self._left[name] = now + seconds / 2
            if len(self._left) > MAX_DETAILS:
                self._left.popitem(last=False)
            packed = pack(fingerprint.detail(prompt.segments[at], own.realm.hashed))
            if packed and len(packed) <= MAX_DETAIL:
                self._remember(own.realm.prefix, digest, packed)
                found.append(("SET", name, b"%c%b" % (SCHEMA, packed), "EX", max(KEEP, seconds)))
        return found

    def _fetch(self, relevant: Iterable[Seen], mines: Sequence[Mine]) -> None:
        """Asks for the line hashes of versions that were never seen here: a second round trip, once for each."""
        own = {one.digest for one in mines[0].placed}
        wanted: dict[tuple[str, bytes], str] = {}
        for one in relevant:
            for placed in one.record.segments:
                if (placed.section > Section.SYSTEM and not self._lines) or placed.digest in own:
                    continue
                for other in mines:
                    if (other.realm.prefix, placed.digest) not in self._details:
                        wanted[other.realm.prefix, placed.digest] = other.realm.name("d", placed.digest)
        if not wanted:
            return
        replies = self._run([("GET", name) for name in wanted.values()])
        for (prefix, digest), reply in zip(wanted, replies, strict=True):
            good = isinstance(reply, bytes) and bool(reply) and reply[0] in READABLE
            self._remember(prefix, digest, reply[1:] if good else b"")

    def _remember(self, prefix: str, digest: bytes, packed: bytes) -> None:
        self._details[prefix, digest] = packed
        if len(self._details) > MAX_DETAILS:
            self._details.popitem(last=False)

    def _lookup(self, sight: Sight, mines: Sequence[Mine]) -> Details:
        """Where to find what is known of a segment: in this process, where the request was its own, else as shared."""
        local: dict[bytes, Info] = {}
        filled = False

        def find(digest: bytes) -> tuple[bytes, Hashed] | Info | None:
            nonlocal filled
            if not filled:
                filled = True
                local.update(self._local(sight, mines[0].realm))
            if (info := local.get(digest)) is not None and info.detail is not None:
                return info
            for one in mines:
                if packed := self._details.get((one.realm.prefix, digest)):
                    return packed, one.realm.hashed
            return None

        return find

    @staticmethod
    def _local(sight: Sight, realm: Realm) -> dict[bytes, Info]:
        """The segments of the requests that this process would compare with."""
        found: dict[int, Info] = {}
        for sent in (sight.holder, sight.previous, *sight.kin, *sight.sites):
            if sent is not None:
                found.update((id(info), info) for info in sent.path().infos())
        return {realm.digest(info.digest): info for info in found.values() if info.digest is not None}


def _moment(reply: Any) -> float:
    """When an entry was written or read; the end of time where that cannot be told: it is then not called unread."""
    try:
        return float(reply)
    except (TypeError, ValueError):
        return float("inf")
