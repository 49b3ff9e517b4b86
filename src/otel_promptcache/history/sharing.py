"""What one request asks of the shared history, and what it leaves there. Pure: commands and replies, no connection.

Every command names one key, so a cluster needs no key to lie beside another. A request is found under

* ``p`` its prefixes: where its tools and system prompt end, its breakpoints, its end; without its segments, for
  whoever asks has the same ones;
* ``c`` its conversation, where the application names it, else ``m`` a few of its messages; with its segments;
* ``i`` the id of its response, and ``s`` its route, one for each version of what stands in front of the messages.

``d`` holds the line hashes of a segment, ``u`` says of an entry that it was read, and ``n`` counts requests a minute.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from otel_promptcache.fingerprint import HashKey, canonical
from otel_promptcache.history import TELLING, Sight
from otel_promptcache.history.rebuilt import Asked, Seen
from otel_promptcache.history.records import (
    BEGINNING,
    DIGEST,
    SPEAKERS,
    Newer,
    Placed,
    Record,
    Unreadable,
    dumped,
    loaded,
)
from otel_promptcache.model import Link, Prompt, Scope, Section
from otel_promptcache.providers.windows import speaker

NAMESPACE: Final = "promptcache:1"
"""In front of every key; its number changes with the meaning of the keys."""
KEEP: Final = 3600
"""Seconds that a record is kept at least; twice the longest lifetime that its request asked for if that is more."""
MAX_ENDS: Final = 32
"""Newest ends of messages at which an earlier request may have ended."""
ANCHORS: Final = 2
"""Messages, of two kinds, under which a request without a conversation's name can be found."""
MAX_SOUGHT: Final = 12
"""Messages, of two kinds, of the present one that are looked for."""
MAX_VERSIONS: Final = 4
MAX_REPLAYED: Final = 24
MAX_LONGEST: Final = 4
"""Ends of messages at which earlier requests are looked at, the longest beginnings first."""

Command = tuple[Any, ...]

KINDS: Final = {
    "p": "a prefix: its newest request on the way and its newest that was answered, without segments",
    "c": "a conversation that the application names: the same, with segments",
    "m": "a message: the same, where no conversation is named",
    "i": "a response: its request, with the segments of tools and system prompt",
    "s": "a route: the newest request for each of 4 versions of tools and system prompt, with these segments",
    "d": "a segment of tools or system prompt (with OTEL_PROMPTCACHE_HISTORY_LINES also of messages): keyed hashes of "
    "its lines",
    "u": "an entry of a provider's cache: when the newest request that has read it was sent, else its writer",
    "n": "requests of one account, model and cache key in one minute",
}
"""What stands under a key, by the letter in it; the documentation is made from it."""


class Realm:
    """What one tenant has under one hash key: a key of its own, and the beginning of the names of its keys."""

    def __init__(self, key: HashKey, tenant: str = "") -> None:
        self._key = key.derived(f"history\0{tenant}")
        self.prefix = f"{NAMESPACE}:{key.id}:{self._key.token('tenant')}:"

    def digest(self, data: bytes, size: int = DIGEST) -> bytes:
        return blake2b(data, digest_size=size, key=self._key.key).digest()

    def token(self, text: str) -> str:
        """A stand-in for a name; empty for none."""
        return _text(self.digest(b"t" + text.encode("utf-8", "surrogatepass"), 9)) if text else ""

    def hashed(self, data: bytes) -> int:
        """A line's hash."""
        return int.from_bytes(self.digest(b"l" + data), "big", signed=True)

    def name(self, kind: str, data: bytes) -> str:
        return f"{self.prefix}{kind}:{_text(self.digest(kind.encode() + data, 12))}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


class Mine(NamedTuple):
    """The present request in the terms of one realm."""

    realm: Realm
    placed: Sequence[Placed]
    chains: Sequence[bytes]
    """Of the first n segments, n from 0."""
    scope: Scope
    route: str
    conversation: str
    previous_id: str
    conversation_id: str

    @property
    def leading(self) -> int:
        return next((at for at, one in enumerate(self.placed) if one.section > Section.SYSTEM), len(self.placed))


def mine(
    realm: Realm, key: HashKey | None, prompt: Prompt, sight: Sight, credential: str, names: tuple[str, str]
) -> Mine:
    """``key``: makes the digests anew, None to take those that are known. ``names``: route and conversation."""
    token, scope = realm.token, sight.sent.scope
    roles: dict[str, int] = {}
    placed = []
    for info, segment in zip(sight.infos, prompt.segments, strict=True):
        known = info.digest if key is None else key.digest(segment.role, canonical(segment))
        role = roles.get(segment.role)
        if role is None:
            role = roles[segment.role] = int.from_bytes(realm.digest(b"r" + segment.role.encode("utf-8", "replace"), 2))
        who = speaker(segment)
        said = SPEAKERS.index(who) if who in SPEAKERS else 0
        digest = realm.digest(known or b"")
        placed.append(Placed(digest, segment.section, segment.kind, said, segment.element, role, info.size, info.label))
    own = Scope(scope.provider, token(scope.endpoint), token(credential), scope.model, token(scope.cache_key))
    chain = realm.digest("\0".join(own).encode())
    chains = [chain]
    for one in placed:
        chain = blake2b(chain + one.digest, digest_size=12).digest()
        chains.append(chain)
    return Mine(
        realm,
        placed,
        chains,
        own,
        token(names[0]),
        token(names[1]),
        token(prompt.previous_id),
        token(prompt.conversation_id),
    )


def asked(own: Mine, prompt: Prompt, at: float, link: Link | None) -> Asked:
    """The present request as the records would tell it."""
    return Asked(
        prompt, own.placed, own.scope, at, own.route, own.conversation, own.previous_id, own.conversation_id, link
    )


def record(own: Mine, prompt: Prompt, identity: str, at: float, lineage: str, link: Link | None) -> Record:
    """The record of a request that is on its way."""
    return Record(
        identity,
        at,
        prompt.dialect,
        own.scope,
        own.route,
        own.conversation,
        own.previous_id,
        own.conversation_id,
        lineage=lineage,
        link=link,
        length=len(own.placed),
        leading=own.leading,
        size=sum(one.size for one in own.placed),
        element=own.placed[-1].element,
        marks=tuple((place.length, place.ttl, place.explicit) for place in prompt.breakpoints if place.length > 0),
        automatic=prompt.automatic,
        retention=prompt.retention,
    )


# --- Asking ---------------------------------------------------------------------------------------------------


class Ask(NamedTuple):
    """One command, and how many segments its answers begin with as the present request does."""

    command: Command
    equal: int = 0
    spare: bool = False
    """Whether it is passed over where longer beginnings were found."""


def reads(own: Mine, prompt: Prompt) -> list[Ask]:
    """What is asked for one request."""
    name = own.realm.name
    left = _left(own, prompt)
    found = [
        Ask(("HMGET", name("p", own.chains[length]), "s", "r"), length, length not in left)
        for length in sorted(_places(own) | left, reverse=True)
    ]
    if own.conversation:
        found.append(Ask(("HMGET", name("c", own.conversation.encode()), "s", "r")))
    found += [Ask(("HMGET", name("m", digest), "s", "r")) for digest in _anchors(own.placed, MAX_SOUGHT)]
    found += [
        Ask(("GET", name("i", identity.encode()))) for identity in (own.previous_id, own.conversation_id) if identity
    ]
    found.append(Ask(("HGETALL", _site(own))))
    return found


def _places(own: Mine) -> set[int]:
    """Lengths at which an earlier request may have ended, or left something."""
    total = len(own.placed)
    ends = [
        at
        for at in range(total, own.leading, -1)
        if at == total or own.placed[at].element != own.placed[at - 1].element
    ]
    near, far = ends[:MAX_ENDS], ends[MAX_ENDS:]
    steps = {len(far) - (1 << power) for power in range(len(far).bit_length())}
    return {*near, *(far[at] for at in steps if at >= 0)}


def _left(own: Mine, prompt: Prompt) -> set[int]:
    """Lengths at which this request leaves something."""
    marks = sorted((place.length for place in prompt.breakpoints), reverse=True)
    return {own.leading, len(own.placed), *marks[:MAX_VERSIONS]} - {0}


def _anchors(placed: Sequence[Placed], most: int) -> list[bytes]:
    """Telling messages: the newest, which stay when a history is cut or summed up, and those with the smallest digests,
    which two conversations are likely to share if they share anything."""
    telling = list(
        dict.fromkeys(one.digest for one in reversed(placed) if one.section is Section.MESSAGES and one.size >= TELLING)
    )
    return list(dict.fromkeys(telling[:most] + sorted(telling)[:most]))


def _site(own: Mine) -> str:
    return own.realm.name("s", f"{own.route}\0{own.scope.endpoint}".encode())


def seen(asks: Sequence[Ask], replies: Sequence[Any], unreadable: list[str]) -> list[Seen]:
    """The records in the replies. What cannot be read is noted and passed over."""
    found = []
    longest = 0
    known: set[bytes] = set()
    for ask, reply in zip(asks, replies, strict=True):
        if ask.spare and longest >= MAX_LONGEST:
            continue
        values = _values(reply)
        longest += ask.spare and bool(values)
        for data in values:
            if data in known:
                continue  # one request under several keys: the longest beginning was asked for first
            known.add(data)
            try:
                found.append(Seen(loaded(data, ask.equal), ask.equal))
            except Unreadable as error:
                unreadable.append(type(error).__name__)
    return found


def _values(reply: Any) -> list[bytes]:
    """The records in a reply; a request that is in it twice as it ended."""
    held = reply.values() if isinstance(reply, dict) else reply if isinstance(reply, list) else [reply]
    found = [one for one in held if isinstance(one, bytes)]
    if len(found) == 2 and found[0][:BEGINNING] == found[1][:BEGINNING]:
        return found[1:]
    return found


def chosen(found: Iterable[Seen], at: float) -> list[Seen]:
    """Those that are worth replaying: the longest common beginnings, whatever has segments, and the newest."""
    earlier = [one for one in found if one.record.at < at]
    earlier.sort(key=lambda one: (bool(one.record.segments), one.equal, one.record.at), reverse=True)
    known = {one.record.id: None for one in earlier}
    kept = set(list(known)[:MAX_REPLAYED])
    return [one for one in earlier if one.record.id in kept]


def translated(found: Iterable[Seen], theirs: Mine, ours: Mine) -> Iterator[Seen]:
    """Records under another key in the terms of ours, as far as they say what the present request says too."""
    words = dict(zip(_names(theirs), _names(ours), strict=True))
    digests = {one.digest: own for one, own in zip(theirs.placed, ours.placed, strict=True)}
    roles = {one.role: own.role for one, own in zip(theirs.placed, ours.placed, strict=True)}

    def word(text: str) -> str:
        return words.get(text, text)

    for one in found:
        said = one.record
        scope = said.scope
        segments = tuple(
            digests[place.digest] if place.digest in digests else place._replace(role=roles.get(place.role, place.role))
            for place in said.segments
        )
        yield one._replace(
            record=said._replace(
                scope=scope._replace(
                    endpoint=word(scope.endpoint), credential=word(scope.credential), cache_key=word(scope.cache_key)
                ),
                route=word(said.route),
                conversation=word(said.conversation),
                previous_id=word(said.previous_id),
                conversation_id=word(said.conversation_id),
                response_id=word(said.response_id),
                segments=segments,
            )
        )


def _names(own: Mine) -> tuple[str, ...]:
    scope = own.scope
    return (
        scope.endpoint,
        scope.credential,
        scope.cache_key,
        own.route,
        own.conversation,
        own.previous_id,
        own.conversation_id,
    )


# --- Leaving --------------------------------------------------------------------------------------------------


def kept_for(ttl: int) -> int:
    """Seconds that something is kept which is about an entry that lives so long."""
    return max(KEEP, 2 * ttl)


def lifetime(said: Record) -> int:
    """Seconds that a record is kept."""
    return kept_for(max([ttl for _, ttl, _ in said.marks] + [said.retention or 0]))


def writes(own: Mine, prompt: Prompt, said: Record) -> list[Command]:
    """What a request leaves when it is sent, and in its place when it is over."""
    name, seconds = own.realm.name, lifetime(said)
    whole = said._replace(segments=tuple(own.placed))
    light = dumped(said)
    full = dumped(whole)
    leading = dumped(whole._replace(segments=tuple(own.placed[: own.leading])))
    over = said.ended is not None and not said.failed
    field = "r" if over else "s"
    found: list[Command] = []
    for length in sorted(_left(own, prompt)):
        key = name("p", own.chains[length])
        found.append(("HSET", key, field, light))
        if over and length == len(own.placed):
            found.append(("HDEL", key, "s"))  # one copy is enough
        found.append(("EXPIRE", key, seconds))
    held = (
        [name("c", own.conversation.encode())]
        if own.conversation
        else [name("m", one) for one in _anchors(own.placed, ANCHORS)]
    )
    for key in held:
        found.append(("HSET", key, field, full))
        if over:
            found.append(("HDEL", key, "s"))
        found.append(("EXPIRE", key, seconds))
    identities = {said.conversation_id, said.response_id if over else ""} - {""}
    found += [("SET", name("i", one.encode()), leading, "EX", seconds) for one in sorted(identities)]
    version = _text(own.chains[own.leading])
    found += [("HSET", _site(own), version, leading), ("EXPIRE", _site(own), seconds)]
    return found


def read_mark(own: Mine, length: int) -> str:
    """The key that says that the entry at the end of so many segments has been read."""
    return own.realm.name("u", own.chains[length])


def outgrown(own: Mine, length: int) -> list[Command]:
    """Takes away where the request was to be found whose first ``length`` segments this one goes on from."""
    if own.conversation:
        return []
    kept = set(_anchors(own.placed, ANCHORS))
    before = [one for one in _anchors(own.placed[:length], ANCHORS) if one not in kept]
    return [("UNLINK", own.realm.name("m", one)) for one in before]


def trimmed(own: Mine, replies: Mapping[bytes, bytes]) -> list[Command]:
    """Takes away the oldest versions of a route's prompt."""
    ages: list[tuple[float, bytes]] = []
    for version, data in replies.items():
        try:
            ages.append((loaded(data).at, version))
        except Newer:
            continue  # not ours to judge
        except Unreadable:
            ages.append((0.0, version))
    gone = [version for _, version in sorted(ages)[: -MAX_VERSIONS + 1]] if len(ages) >= MAX_VERSIONS else []
    return [("HDEL", _site(own), *gone)] if gone else []
