"""Messages that are resent in a row, recognised at one glance."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from otel_promptcache.history.trie import Path, Stem
from otel_promptcache.model import Prompt, Run

MAX_RUNS: Final = 256
"""Conversations whose newest state is recognised at one glance."""


class Resent(NamedTuple):
    """Messages in a row as they were last sent: how many, their hash, and where they end, stem by stem."""

    length: int
    print: int
    ends: tuple[tuple[Stem, int], ...]


class Runs:
    """The newest, by the place in front and the first message. All in it is alive: forgetting any empties it."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[Stem, int, int], Resent] = OrderedDict()

    def clear(self) -> None:
        self._runs.clear()

    def known(self, stem: Stem, at: int, run: Run) -> Resent | None:
        """The longest known beginning of a run that goes on from a place."""
        known = self._runs.get((stem, at, hash(run.texts[0])))
        return known if known is not None and known.print == _print(run, known.length) else None

    def remember(self, root: Stem, prompt: Prompt, path: Path) -> None:
        for run in prompt.segments.runs:
            end = run.start + len(run.texts)
            behind = [piece for piece in path.pieces if run.start < piece.stem.start + piece.end]
            ends = tuple((stem, min(last, end - stem.start)) for stem, _, last in behind if stem.start < end)
            before = path.piece(run.start) if run.start else None
            stem, at = (before.stem, before.end) if before is not None else (root, 0)
            place = (stem, at, hash(run.texts[0]))
            known = self._runs.get(place)
            if known is None or known.ends != ends:
                self._runs[place] = Resent(len(run.texts), _print(run, len(run.texts)), ends)
            self._runs.move_to_end(place)
            if len(self._runs) > MAX_RUNS:
                self._runs.popitem(last=False)


def _print(run: Run, length: int) -> int:
    """Process-local hash of the first messages of a run. Strings remember theirs: nothing is read again."""
    if length > len(run.texts):
        return 0
    return hash((tuple(run.roles[:length]), tuple(run.texts[:length])))
