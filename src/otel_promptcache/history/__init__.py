"""Which prefixes were sent, when, and by which span.

``memory.Memory`` is the history of one process; a shared one stands behind the same protocol. A request is looked
up and recorded when it is sent, becomes readable to others when its response begins, and learns its token counts
when the response ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol
from weakref import ReferenceType

from otel_promptcache.history.info import Info, Remembered
from otel_promptcache.history.trie import Node, Path
from otel_promptcache.model import Link, Prompt, Scope, Segments, Usage

TELLING: Final = 48
"""Bytes from which a segment found in both prompts shows that they belong together; everybody says "yes"."""
AT_ONCE: Final = 2**16
"""Bytes of a segment up to which its hashes are made where a verdict waits for them."""


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
    marks: tuple[str, ...] = ()
    """Where the shared history says that another worker has read it; none where it was not told of the write."""
    since: float = 0.0
    """When it was sent, by the clock of the shared history."""


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
        "adrift",
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
        "prompt",
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
        self.prompt: ReferenceType[Segments] | None = None
        """Its segments, as long as others have them, until their hashes have been made."""
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
        self.adrift = 0
        """The same, of those that marked only what did not come again."""
        self.total: int | None = None
        """All input tokens, once reported."""
        self.cached: int | None = None
        """Tokens the provider holds after it: read plus written."""
        self.response_id = ""

    def path(self) -> Path:
        """The places of its prompt; none once it has been forgotten."""
        return Path.to(self.leaf)

    def describe(self, at: int, info: Info) -> None:
        """Makes line and loose hashes of its segment ``at`` now, should the worker not have come to it."""
        known = self.prompt
        segments = known() if known is not None else None
        if segments is not None and info.size <= AT_ONCE:
            info.detailed(segments[at])


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
    fresh: int = 0
    """Segments never seen before."""
    alone: bool = False
    """Whether others share their history with this process, and it has not been told of theirs."""
    leading: Node | None = None
    """The end of tools and system prompt, where there are any."""

    def __init__(self, sent: Sent, nodes: Path, previous: Sent | None) -> None:
        self.sent = sent
        self.nodes = nodes
        """The places of this prompt, known and new."""
        self.infos: list[Info] = []
        """What is known of its segments."""
        self.shared = len(nodes)
        """How many of them were known."""
        self.previous = previous
        """Newest request with the same ``shared`` leading segments in this scope."""

    def judged_by(self, other: Sight) -> None:
        """Takes over what another history, which knows more, knew of this very request, and what was made of it: what
        is read of an entry that somebody else wrote must not be taken for the length of one of ours."""
        self.live = max(self.live, other.live)
        mine, theirs = self.sent, other.sent
        mine.served, mine.rewrites, mine.frozen = theirs.served, theirs.rewrites, theirs.frozen
        mine.adrift = theirs.adrift

    def holders(self, length: int) -> list[Sent]:
        """Earlier requests that begin with the first ``length`` segments, as far as they are known."""
        found = [sent for sent in self.nodes.holders(length) if sent is not self.sent]
        if self.previous is not None and length <= self.shared and self.previous not in found:
            found.append(self.previous)
        return found


class History(Protocol):
    """What the observer needs of a history."""

    def sent(
        self, prompt: Prompt, scope: Scope, *, now: float, route: str, conversation: str, link: Link | None
    ) -> Sight:
        """Looks a request up, records it, and says what was known before."""
        ...

    def describe(self, prompt: Prompt, sight: Sight) -> None:
        """Makes the hashes of segments that are new; it takes longer than the look-up that found them so."""
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


__all__ = [
    "TELLING",
    "Entry",
    "History",
    "Info",
    "Node",
    "Path",
    "Remembered",
    "Sent",
    "Sight",
    "Write",
]
