"""The prefixes of one scope as a tree. Segments that follow one another lie in a row (``Stem``); where a prompt goes on
differently, it forks off. A long conversation is one stem however many requests built it, and a segment in it takes
the few bytes of three columns. What is known of a place besides (a ``Node``) is made where there is something to know.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain as concatenated
from typing import TYPE_CHECKING, NamedTuple, overload

from otel_promptcache.fingerprint import Chain, HashKey

if TYPE_CHECKING:
    from otel_promptcache.history import Entry, Sent
    from otel_promptcache.history.info import Info


@dataclass(slots=True, eq=False)
class Rows:
    """The columns of a stem. Appended to, never cut: who holds them may go on reading what was there."""

    infos: list[Info] = field(default_factory=list)
    elements: array[int] = field(default_factory=lambda: array("i"))
    """Places among the elements of their sections."""
    sizes: array[int] = field(default_factory=lambda: array("q"))
    """Bytes from the beginning of the prompt up to the end of the segment."""

    def until(self, end: int) -> Rows:
        return Rows(self.infos[:end], self.elements[:end], self.sizes[:end])


class Node:
    """The place behind the first ``at`` segments of a stem. Equal prefixes of one scope end at the same node."""

    __slots__ = ("at", "chain", "element", "entry", "identity", "info", "refs", "size", "stem", "tokens")

    def __init__(self, stem: Stem, rows: Rows, at: int) -> None:
        self.stem = stem
        self.at = at
        self.info: Info | None = rows.infos[at - 1] if at else None
        self.element = rows.elements[at - 1] if at else -1
        self.size = rows.sizes[at - 1] if at else stem.size
        self.refs = 0
        """Requests that end here and stems that fork off here."""
        self.entry: Entry | None = None
        self.tokens = 0
        """Tokens of the prefix that ends here, where a response told; else 0."""
        self.chain: Chain | None = None
        """See ``Path.chain``."""
        self.identity: tuple[str, str] | None = None
        """What is exported of the prefix that ends here (its id, its sections), once it has been asked for."""

    @property
    def length(self) -> int:
        """Segments in front."""
        return self.stem.start + self.at

    @property
    def last(self) -> Sent | None:
        """The newest request whose prompt begins with this prefix."""
        return self.stem.last(self.at)

    @property
    def continued(self) -> bool:
        """Whether a prompt goes on behind this prefix."""
        return len(self.stem) > self.at or any(at == self.at for at, _ in list(self.stem.forks))


class Stem:
    """Segments in a row."""

    __slots__ = ("forks", "nodes", "parent", "pinned", "rows", "size", "start", "steps")

    def __init__(self, parent: Node | None) -> None:
        self.parent = parent
        """Where it forks off; None for the beginning of a scope."""
        self.start: int = parent.length if parent is not None else 0
        self.size: int = parent.size if parent is not None else 0
        self.rows = Rows()
        self.nodes: dict[int, Node] = {}
        """Those that have something to keep, by their ``at``."""
        self.forks: dict[tuple[int, int], Stem] = {}
        """By the place they fork off at, and the key of their first segment."""
        self.steps: list[tuple[int, Sent]] = []
        """Requests by how far they go along this stem, the farthest first; each is newer than those in front of it, so
        it is the newest of all that it reaches."""
        self.pinned = 0
        """Segments that something stands on."""

    def __len__(self) -> int:
        return len(self.rows.infos)

    def keep(self, at: int) -> Node:
        """The node at a place, from now on one that is kept. For whom the history's lock is held."""
        node = self.nodes.get(at)
        if node is None:
            node = self.nodes[at] = Node(self, self.rows, at)
        return node

    def pin(self, at: int) -> Node:
        """The same, for something that stands on it."""
        node = self.keep(at)
        node.refs += 1
        self.pinned = max(self.pinned, at)
        return node

    def last(self, at: int) -> Sent | None:
        """The newest request that goes as far along this stem."""
        return next((sent for end, sent in reversed(self.steps) if end >= at), None)

    def reached(self, at: int, sent: Sent) -> None:
        """Notes the newest request."""
        steps = self.steps
        while steps and steps[-1][0] <= at:
            steps.pop()
        steps.append((at, sent))

    def left(self, sent: Sent, at: int, heir: Sent | None) -> None:
        """Takes a request back; ``heir`` is what the newest was before, as far as ``at``."""
        for place, (_, one) in enumerate(self.steps):
            if one is sent:
                behind = self.steps[place + 1 :]
                longer = at > (behind[0][0] if behind else 0)
                self.steps[place:] = [(at, heir), *behind] if heir is not None and longer else behind
                return

    def trimmed(self) -> list[Info]:
        """Forgets everything behind the last place that something stands on; returns what the segments were."""
        end = self.pinned = max((at for at, node in self.nodes.items() if node.refs), default=0)
        gone = self.rows.infos[end:]
        self.rows = self.rows.until(end)
        self.steps = [(at, sent) for at, sent in self.steps if at <= end]
        for at in [at for at in self.nodes if at > end]:
            self.nodes.pop(at).entry = None
        return gone


class Piece(NamedTuple):
    """The part of a path that lies in one stem: its first ``end`` segments, as they were when the path was made."""

    stem: Stem
    rows: Rows
    end: int


class Path(Sequence[Node]):
    """The places of one prompt, from its first segment to its last. Place n - 1 is the end of the first n segments.
    It stays readable when the tree has forgotten it."""

    __slots__ = ("pieces",)

    def __init__(self, ends: Sequence[tuple[Stem, int]] = ()) -> None:
        self.pieces = [Piece(stem, stem.rows, end) for stem, end in ends if end]

    @classmethod
    def to(cls, leaf: Node | None) -> Path:
        """The path that ends at a node; empty when it has been forgotten in the meantime."""
        ends: list[tuple[Stem, int]] = []
        while leaf is not None:
            ends.append((leaf.stem, leaf.at))
            leaf = leaf.stem.parent
        found = cls(ends[::-1])
        return found if all(len(rows.infos) >= end for _, rows, end in found.pieces) else cls()

    def __len__(self) -> int:
        return self.pieces[-1].stem.start + self.pieces[-1].end if self.pieces else 0

    @overload
    def __getitem__(self, at: int) -> Node: ...
    @overload
    def __getitem__(self, at: slice) -> list[Node]: ...
    def __getitem__(self, at: int | slice) -> Node | list[Node]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        length = (at if at >= 0 else len(self) + at) + 1
        stem, rows, here = self.piece(length)
        return self.kept(length) or Node(stem, rows, here)

    def piece(self, length: int) -> Piece:
        """Where the first ``length`` segments end."""
        for stem, rows, end in reversed(self.pieces):
            if stem.start < length <= stem.start + end:
                return Piece(stem, rows, length - stem.start)
        raise IndexError(length)

    def kept(self, length: int) -> Node | None:
        """The node there if anything is kept at it."""
        stem, rows, at = self.piece(length)
        node = stem.nodes.get(at)
        # What was forgotten may have grown anew, with other segments.
        return node if node is not None and node.info is rows.infos[at - 1] else None

    def keep(self, length: int) -> Node:
        """The node there, from now on one that is kept. For whom the history's lock is held."""
        stem, rows, at = self.piece(length)
        return stem.keep(at) if stem.rows is rows else Node(stem, rows, at)

    def size(self, length: int) -> int:
        """Bytes of the first ``length`` segments."""
        _, rows, at = self.piece(length)
        return rows.sizes[at - 1]

    def within(self, size: float) -> int:
        """How many leading segments these bytes hold."""
        for stem, rows, end in reversed(self.pieces):
            if stem.size <= size:
                return stem.start + bisect_right(rows.sizes, size, 0, end)
        return 0

    def infos(self) -> list[Info]:
        return list(concatenated.from_iterable(rows.infos[:end] for _, rows, end in self.pieces))

    def elements(self) -> list[int]:
        return list(concatenated.from_iterable(rows.elements[:end] for _, rows, end in self.pieces))

    def nodes(self, length: int) -> Iterator[Node]:
        """Those kept at the first ``length`` places, in no order."""
        for stem, _, end in self.pieces:
            reach = min(end, length - stem.start)
            yield from [node for at, node in stem.nodes.items() if at <= reach]

    def counted(self) -> list[Node]:
        """The places whose tokens a response told, in order."""
        return sorted([node for node in self.nodes(len(self)) if node.tokens], key=lambda node: node.length)

    def lasts(self) -> Iterator[tuple[int, int, Sent]]:
        """For stretches of places, the longest prefixes first: up to where, from behind where, the newest request."""
        for stem, _, end in reversed(self.pieces):
            steps = stem.steps
            for place, (reach, sent) in enumerate(steps):
                low = steps[place + 1][0] if place + 1 < len(steps) else 0
                if low < min(reach, end):
                    yield stem.start + min(reach, end), stem.start + low, sent

    def holders(self, length: int) -> list[Sent]:
        """Requests that begin with the first ``length`` segments, as far as they are known: newer ones that went on
        further hide older ones."""
        stem, _, at = self.piece(length)
        return [sent for end, sent in list(stem.steps) if end >= at]

    def chain(self, key: HashKey, length: int | None = None) -> Chain | None:
        """The chain value of the first ``length`` segments, or of all: computed from the nearest place in front where
        it is known, and noted at what is kept on the way. None while a segment in between has no digest yet."""
        known: Chain | None = None
        way: list[tuple[Piece, int]] = []
        left = len(self) if length is None else length
        for piece in reversed(self.pieces):
            nodes, end = piece.stem.nodes, min(piece.end, left - piece.stem.start)
            near = next((at for at in range(end, -1, -1) if (one := nodes.get(at)) is not None and one.chain), None)
            if end > 0:
                way.append((piece._replace(end=end), near or 0))
            if near is not None:
                known = nodes[near].chain
                break
        if known is None and way and (parent := way[-1][0].stem.parent) is not None:
            known = parent.chain  # it begins with a fork
        for (stem, rows, end), start in reversed(way):
            for info in rows.infos[start:end]:
                digest = info.digest
                if digest is None or known is None:
                    return None
                known = key.chain(known, digest)
            node = stem.nodes.get(end)
            if node is not None:
                node.chain = known
        return known
