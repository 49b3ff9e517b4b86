"""Which prefixes were sent, when, and by which span.

``memory.Memory`` is the history of one process; a shared one stands behind the same protocol. A request is looked
up and recorded when it is sent, becomes readable to others when its response begins, and learns its token counts
when the response ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from otel_promptcache.fingerprint import Chain, Detail, Digest, detail
from otel_promptcache.model import Link, Prompt, Scope, Section, Segment, Usage
from otel_promptcache.providers._wire import server_tool

TELLING: Final = 48
"""Bytes from which a segment found in both prompts shows that they belong together; everybody says "yes"."""


class Remembered(NamedTuple):
    """The content of a segment, where the application allows it to be kept in memory. Never exported."""

    role: str
    plain: bool
    """Whether the bytes are a text; else a structure (``providers._wire.structure``)."""
    data: bytes


class Info:
    """What is known of one distinct segment, wherever it stands. Shared by all prompts that contain it."""

    __slots__ = ("detail", "digest", "key", "kind", "label", "last", "refs", "remembered", "role", "section", "size")

    def __init__(self, digest: Digest, size: int, segment: Segment) -> None:
        self.key = segment.key
        self.refs = 0
        self.digest = digest
        self.size = size
        self.section = segment.section
        self.kind = segment.kind
        self.role = hash(segment.role)
        self.label = _label(segment)
        self.detail: Detail | None = None
        self.remembered: Remembered | None = None
        self.last: Sent | None = None
        """The newest request that brought this segment to a place where it had not been."""


def describe(fresh: Iterable[tuple[Info, Segment]]) -> None:
    """Makes the line and loose hashes of segments that are new; it takes longer than the look-up that found them so."""
    for info, segment in fresh:
        if info.detail is None:
            info.detail = detail(segment)


def _label(segment: Segment) -> str:
    """The name of a parameter, the type of a tool that runs at the provider, else nothing."""
    if segment.section is Section.PARAMETERS:
        return segment.role
    return server_tool(segment.value) if segment.section is Section.TOOLS else ""


class Node:
    """One position in a prefix. Equal prefixes of one scope share their nodes."""

    __slots__ = (
        "chain",
        "element",
        "entry",
        "identity",
        "info",
        "key",
        "last",
        "length",
        "parent",
        "refs",
        "size",
        "tokens",
    )

    def __init__(self, key: int, parent: Node | None, info: Info | None, chain: Chain, element: int) -> None:
        self.key = key
        self.parent = parent
        self.info = info
        self.chain = chain
        self.element = element
        self.length: int = parent.length + 1 if parent else 0
        self.size: int = (parent.size if parent else 0) + (info.size if info else 0)
        self.refs = 0
        self.entry: Entry | None = None
        self.last: Sent | None = None
        """The newest request whose prompt begins with this prefix."""
        self.tokens = 0
        """Tokens of the prefix that ends here, where a response told; else 0."""
        self.identity: tuple[str, str] | None = None
        """What is exported of the prefix that ends here (its id, its sections), once it has been asked for."""


@dataclass(slots=True)
class Write:
    """What one request paid to store, and whether anybody has read it."""

    ttl: int
    expires: float
    premium: float
    labels: tuple[str, ...]
    read: bool = False
    implied: bool = False
    """Whether the provider placed it by itself."""


@dataclass(slots=True)
class Entry:
    """A cache entry that we believe the provider holds for the prefix of a node."""

    ttl: int
    used: float
    """Start of the request that wrote or last read it: lifetimes count from there."""
    readable: bool = False
    read: bool = False
    """Whether a later request has read it."""
    write: Write | None = None

    def alive(self, now: float) -> bool:
        return now - self.used <= self.ttl


class Sent:
    """One earlier request. ``leaf`` is None once it has been forgotten."""

    __slots__ = (
        "at",
        "before",
        "began",
        "breakpoints",
        "cached",
        "conversation",
        "dialect",
        "frozen",
        "leaf",
        "lineage",
        "link",
        "readable",
        "response_id",
        "rewrites",
        "route",
        "scope",
        "served",
        "shared",
        "total",
    )

    def __init__(self, scope: Scope, at: float, link: Link | None, route: str, conversation: str) -> None:
        self.scope = scope
        self.at = at
        self.link = link
        self.route = route
        self.conversation = conversation
        self.dialect = ""
        self.leaf: Node | None = None
        self.before: Sent | None = None
        """While this one is on its way: an earlier request with the first ``shared`` segments, readable sooner."""
        self.shared = 0
        self.lineage = ""
        self.breakpoints: tuple[tuple[Node, int], ...] = ()
        self.readable = False
        self.began: float | None = None
        """When its response began."""
        self.served = ""
        """Model that answered, where the response says so."""
        self.rewrites = 0
        """Requests in a row, up to this one, that rewrote their conversation's history."""
        self.frozen = 0
        """Requests in a row, up to this one, whose last breakpoint stayed where it was."""
        self.total: int | None = None
        """All input tokens, once reported."""
        self.cached: int | None = None
        """Tokens the provider holds after it: read plus written."""
        self.response_id = ""

    def path(self) -> list[Node]:
        """The nodes of its prompt, first segment first."""
        nodes: list[Node] = []
        node = self.leaf
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes


class Sight:
    """What the history knew at the moment a request was sent; lengths count leading segments.

    ``live``: longest prefix that the rules let this request read. ``expired``, ``pending`` and ``beyond``: longer
    ones that were there but had run out, were not readable yet, or lay outside the lookback window (else 0).
    """

    # Defaults of the class rather than of each instance: most calls find most of them so.
    holder: Sent | None = None
    """The request whose server-held history this one continues."""
    kin: tuple[Sent, ...] = ()
    """Requests, in any scope, that contain segments this one has behind the shared prefix; most in common first."""
    held: bool = False
    """Whether the server holds history that is not among the segments."""
    relative: Sent | None = None
    """The first of ``kin`` that has a telling message in common: the same conversation, rewritten."""
    sites: tuple[Sent, ...] = ()
    """Newest requests from the same route, one for each version of what stands in front of the messages."""
    live: int = 0
    expired: int = 0
    pending: int = 0
    beyond: int = 0
    unanswered: bool = False
    """Whether the newest request with the shared prefix had no answer yet when this one was sent."""
    rate: int = 0
    """Requests of this scope in the minute before, counted where a provider limits them."""
    fresh: Sequence[tuple[Info, Segment]] = ()
    """Segments never seen before, whose details are still to be made."""

    def __init__(self, sent: Sent, nodes: list[Node], previous: Sent | None) -> None:
        self.sent = sent
        self.nodes = nodes
        """The nodes of this prompt, known and new."""
        self.shared = len(nodes)
        """How many of them were known."""
        self.previous = previous
        """Newest request with the same ``shared`` leading segments in this scope."""


class History(Protocol):
    """What the observer needs of a history."""

    def sent(
        self, prompt: Prompt, scope: Scope, *, now: float, route: str, conversation: str, link: Link | None
    ) -> Sight:
        """Looks a request up, records it, and says what was known before."""
        ...

    def begun(self, sight: Sight, now: float | None = None) -> None:
        """The response has begun: what this request wrote is readable from now on."""
        ...

    def ended(self, sight: Sight, usage: Usage | None, response_id: str, write: Write | None) -> None:
        """The response is over, with these token counts."""
        ...

    def expired_writes(self, now: float) -> list[Write]:
        """Writes that ran out unread since the last time this was asked."""
        ...


__all__ = ["TELLING", "Entry", "History", "Info", "Node", "Remembered", "Sent", "Sight", "Write", "describe"]
