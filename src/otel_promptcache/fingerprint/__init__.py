"""Keyed digests of segments, the prefix chain, and what kind of difference parts two segments.

Three hashes, never confused:

* ``Segment.key``: the interpreter's own 64-bit hash. Fast, process-local, finds what is already known.
* ``Digest``: 128-bit blake2b under the hash key, made once per new segment. The only one that is exported.
* ``Chain``: h(i) = blake2b(h(i-1) || digest(i)); equal chains mean equal prefixes.

No text is kept: a ``Detail`` holds hashes of the lines and a few loose digests, enough to say later whether only
blanks, only digits, only the order changed, and in which field and line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NewType

from otel_promptcache.fingerprint.detail import Detail, detail, pack, packed, unpack
from otel_promptcache.fingerprint.difference import Difference, common_start, difference, similar, volatile_lines
from otel_promptcache.fingerprint.fields import Field
from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.providers._wire import MARKERS, structure, unmarked

Digest = NewType("Digest", bytes)
Chain = NewType("Chain", bytes)

DIGEST_SIZE: Final = 16
MAX_ROLES: Final = 64
SHORT: Final = 6
"""Bytes of a digest that are shown and exported in fingerprints and maps."""


class HashKey:
    """The key of every exported digest. Without a configured one, random: digests then compare in this process."""

    __slots__ = ("_states", "id", "key")

    def __init__(self, configured: str = "") -> None:
        secret = configured.encode() if configured else os.urandom(32)
        self.key = blake2b(secret, digest_size=32, person=b"promptcache-key").digest()
        self._states: dict[int, blake2b] = {}
        self.id = blake2b(self.key, digest_size=4, person=b"promptcache-id").hexdigest()

    def derived(self, name: str) -> HashKey:
        """A key of its own for a purpose or a tenant. It says nothing of this one, nor of others."""
        return HashKey(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=32, key=self.key).hexdigest())

    def digest(self, role: str, data: bytes) -> Digest:
        """Digest of a segment's role and canonical bytes."""
        fast = hash(role)  # the role itself may hold a speaker's name, which is not ours to keep
        begun = self._states.get(fast)
        if begun is None:
            begun = blake2b(role.encode("utf-8", "surrogatepass") + b"\0", digest_size=DIGEST_SIZE, key=self.key)
            if len(self._states) < MAX_ROLES:  # a tool result's role carries the id of its call
                self._states[fast] = begun
        state = begun.copy()
        state.update(data)
        return Digest(state.digest())

    def chain(self, parent: Chain, digest: Digest) -> Chain:
        """The chain value of a prefix one segment longer."""
        return Chain(blake2b(parent + digest, digest_size=DIGEST_SIZE).digest())

    def root(self, *scope: str) -> Chain:
        """The chain value before the first segment: what must be equal besides the text."""
        return Chain(self.digest("scope", "\0".join(scope).encode("utf-8", "surrogatepass")))

    def name(self, text: str) -> str:
        """A short keyed stand-in for a name that must not be readable, `[key:3f2a]`."""
        return f"[key:{self.digest('name', text.encode('utf-8', 'surrogatepass')).hex()[:4]}]"

    def token(self, text: str) -> str:
        """A keyed stand-in for an identifier (a user, a credential): 16 hexadecimal digits."""
        return self.digest("token", text.encode("utf-8", "surrogatepass")).hex()[:16]


def canonical(segment: Segment) -> bytes:
    """The bytes a segment's digest is made of: its text, or its structure without cache markers."""
    value = segment.value
    if type(value) is dict and segment.kind is Kind.TEXT and "text" in value and len(value.keys() - MARKERS) == 2:
        value = value["text"]  # nothing but a text, whatever this API calls its type
    if type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    return structure(unmarked(value) if type(value) is dict else value)


def sections(digests: Iterable[tuple[Section, Digest]]) -> tuple[tuple[Section, Digest], ...]:
    """One digest a section, over the digests of its segments in order."""
    states: dict[Section, blake2b] = {}
    for section, digest in digests:
        state = states.get(section)
        if state is None:
            state = states[section] = blake2b(digest_size=DIGEST_SIZE)
        state.update(digest)
    return tuple((section, Digest(state.digest())) for section, state in states.items())


def identity(digests: Iterable[tuple[Section, Digest]]) -> tuple[str, ...]:
    """``section:digest`` for each section, as ``promptcache.fingerprint`` has them."""
    return tuple(f"{section.name.lower()}:{digest[:SHORT].hex()}" for section, digest in sections(digests))


__all__ = [
    "DIGEST_SIZE",
    "MAX_ROLES",
    "SHORT",
    "Chain",
    "Detail",
    "Difference",
    "Digest",
    "Field",
    "HashKey",
    "canonical",
    "common_start",
    "detail",
    "difference",
    "identity",
    "pack",
    "packed",
    "sections",
    "similar",
    "unpack",
    "volatile_lines",
]
