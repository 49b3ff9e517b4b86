"""What is known of one distinct segment, wherever it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from otel_promptcache import fingerprint
from otel_promptcache.fingerprint import DIGEST_SIZE, Detail, Digest, HashKey, canonical, packed, unpack
from otel_promptcache.fingerprint.detail import Hashed
from otel_promptcache.model import Kind, Section, Segment
from otel_promptcache.providers._wire import server_tool

if TYPE_CHECKING:
    from otel_promptcache.history import Sent

_UNSIGNED = bytes(DIGEST_SIZE)
PICTURE: Final = 4_000
"""Bytes of text with about as many tokens as a picture has."""


class Traits(NamedTuple):
    """What many segments have in common."""

    section: Section
    kind: Kind
    role: int
    """The process-local hash of it: a role may hold a speaker's name."""
    label: str = ""
    """The name of a parameter, the type of a tool that runs at the provider, else nothing."""


def traits(segment: Segment) -> Traits:
    label = ""
    if segment.section is Section.PARAMETERS:
        label = segment.role
    elif segment.section is Section.TOOLS:
        label = server_tool(segment.value)
    return Traits(segment.section, segment.kind, hash(segment.role), label)


def size_of(segment: Segment, data: bytes) -> int:
    """The size of a segment with this content. A picture's bytes, or its address, say nothing of what it weighs."""
    return PICTURE if Kind.IMAGE is segment.kind else len(data)


class Remembered(NamedTuple):
    """The content of a segment, where the application allows it to be kept in memory. Never exported."""

    role: str
    plain: bool
    """Whether the bytes are a text; else a structure (``providers._wire.structure``)."""
    data: bytes


class Info:
    """What is known of one distinct segment. Shared by all prompts that contain it, so it is small: its hashes are kept
    as one row of bytes, and made into what they mean when a diagnosis asks."""

    __slots__ = ("_hashes", "key", "last", "refs", "remembered", "size", "traits")

    def __init__(self, key: int, size: int, traits: Traits) -> None:
        self.key = key
        self.size = size
        """Bytes; of a picture what would take as many tokens as text."""
        self.traits = traits
        self.refs = 0
        """Places at which it stands."""
        self.remembered: Remembered | None = None
        self.last: Sent | None = None
        """The newest request that brought this segment to a place where it had not been."""
        self._hashes = b""
        """Digest and detail; empty until they have been made."""

    @property
    def section(self) -> Section:
        return self.traits.section

    @property
    def kind(self) -> Kind:
        return self.traits.kind

    @property
    def role(self) -> int:
        return self.traits.role

    @property
    def label(self) -> str:
        return self.traits.label

    @property
    def digest(self) -> Digest | None:
        """None until it has been made."""
        digest = self._hashes[:DIGEST_SIZE]
        return Digest(digest) if digest and digest != _UNSIGNED else None

    @property
    def detail(self) -> Detail | None:
        """None until it has been made, and of what nothing is to be compared."""
        known = self._hashes[DIGEST_SIZE:]
        return unpack(known) if known else None

    def describe(self, key: HashKey, segment: Segment) -> None:
        """Makes digest, line and loose hashes, unless they have been made. Takes longer than to look a segment up."""
        digest, known = self.digest, self._hashes[DIGEST_SIZE:]
        if digest is None or not known:
            digest = digest or key.digest(segment.role, canonical(segment))
            known = known or packed(segment)
            self._hashes = digest + known

    def sign(self, key: HashKey, segment: Segment) -> None:
        """Makes the digest alone."""
        if self.digest is None:
            digest = key.digest(segment.role, canonical(segment))
            self._hashes = digest + self._hashes[DIGEST_SIZE:]

    @property
    def hashed(self) -> Hashed:
        """What the hashes of the detail are made with."""
        return hash

    def detailed(self, segment: Segment, hashed: Hashed = hash) -> Detail | None:
        """The detail, made now where it has not been; with the hashes of another's that it is to be compared with."""
        if hashed is not hash:
            return fingerprint.detail(segment, hashed)
        if len(self._hashes) <= DIGEST_SIZE:
            known = packed(segment)
            # Only now, and in one step: the worker may have come to it meanwhile, and its digest is not made twice.
            self._hashes = (self._hashes[:DIGEST_SIZE] or _UNSIGNED) + known
        return self.detail
