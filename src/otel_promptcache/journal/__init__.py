"""The change journal: when a route's stable prefix (all that stands in front of the messages) takes a new digest.

A digest that a route has used before costs one look-up. A new one is compared, off the caller's thread, with the
prefix it is a version of: another agent's prompt on the same route is a strand of its own and no change. Nothing is
said until it is clear what kind of change it is: made once, two versions at the same time, or anew on every request.
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import threading
from collections.abc import Callable
from typing import Final

from otel_promptcache import snapshot
from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.journal.file import File, key_of
from otel_promptcache.journal.strands import HOUR, Change, Route, Strand, Version, Where, last_seen, same_prompt
from otel_promptcache.model import Link, Prompt
from otel_promptcache.semconv import Pattern

SETTLED: Final = 3
"""Calls in a row from which a new version is there to stay; new versions in a row from which every request has one."""
MAX_KNOWN: Final = 4_096
"""Digests, of all routes together. Whose calls are the longest ago gives way."""
MAX_ROUTES: Final = 1_024
VERSIONS_A_STRAND: Final = 8
REST: Final = 60.0
"""Seconds between two looks at new prefixes of a route that has one for every request, or more prompts than are told
apart: a look may cost milliseconds."""


class Journal:
    """Of one process; with a file it knows what earlier ones did. ``tell`` is called on the worker's thread."""

    def __init__(self, key: HashKey, tell: Callable[[Change], None], file: str = "") -> None:
        self._key = key
        self._tell = tell
        self._file = File(file, key.id) if file else None
        self._lock = threading.RLock()
        after_fork_in_child(self._after_fork)
        self._known: dict[tuple[Where, str], tuple[Strand, Version]] = {}
        self._routes: dict[Where, Route] = {}
        if self._file is not None:
            self._load(self._file)
            atexit.register(self._save_last)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        if self._file is not None:
            self._file.lacking = False  # what the parent has not written yet it will

    def settled(self, where: Where, digest: str, now: float) -> bool:
        """Whether a call has the prefix that its route is known to have: then it is counted, and that is all."""
        found = self._known.get((where, digest))
        if found is None:
            return False
        strand, version = found
        if version is not strand.current or strand.candidate is not None or strand.restless:
            return False
        strand.count(now)
        strand.follows(version)
        return True

    def saw(
        self,
        where: Where,
        digest: str,
        prompt: Prompt,
        *,
        now: float,
        service: str,
        name: tuple[str, str],
        link: Link | None,
    ) -> None:
        """A call whose prefix is new, or not settled. ``name`` and version of its prompt, as the application said."""
        with self._lock:
            found = self._known.get((where, digest))
            if found is not None:
                strand, version = found
                strand.count(now)
                strand.follows(version)
                version.calls += 1
                news = version is strand.candidate and not strand.restless
                change = self._seen_again(strand, version)
            elif self._left_alone(where, now):
                return
            else:
                prefix = snapshot.take(prompt, where.provider, self._key)
                version = Version(digest, prefix, service, *name, now, link)
                strand, change = self._first_seen(where, version, prompt, now)
                news = not strand.restless
            if self._file is not None and (news or change is not None):
                self._file.lacking = True
        if change is not None:
            self._tell(change)
        if self._file is not None and self._file.due:
            self.save()

    def _first_seen(self, where: Where, version: Version, prompt: Prompt, now: float) -> tuple[Strand, Change | None]:
        strand = self._related(where, version)
        if strand is None:
            return self._add(where, version, now), None
        known = [line for part in strand.current.prefix.parts if part.detail for line in part.detail.lines]
        version.prefix = snapshot.searched(version.prefix, prompt, frozenset(known))
        strand.count(now)
        return strand, self._new(strand, version)

    def _left_alone(self, where: Where, now: float) -> bool:
        """Whether a route is known to have too many prefixes to look at each, and a new one has been looked at a moment
        ago."""
        route = self._routes.get(where)
        if route is None:
            return False
        restless = route.restless
        if restless is None and not route.full:
            return False
        if now - route.looked < REST:
            if restless is not None:
                restless.count(now)
            return True
        route.looked = now
        return False

    # --- what it means --------------------------------------------------------------------------------------

    def _new(self, strand: Strand, version: Version) -> Change | None:
        earlier = strand.candidate
        strand.follows(version)
        self._remember(strand, version)
        strand.streak = strand.streak + 1 if earlier is None or earlier.calls == 1 else 1
        strand.candidate, strand.mixed = version, False
        if strand.restless or strand.streak < SETTLED or earlier is None:
            return None
        strand.restless = True
        return self._change(strand, Pattern.EVERY_REQUEST, earlier, version)

    def _seen_again(self, strand: Strand, version: Version) -> Change | None:
        candidate = strand.candidate
        if version is candidate:
            return self._candidate_again(strand, candidate)
        if version is strand.current:
            strand.mixed = strand.mixed or candidate is not None
            return None
        # An earlier version is back: for a moment, for good, or beside the newer one.
        version.calls = 1
        strand.candidate, strand.mixed, strand.streak = version, False, 0
        return None

    def _candidate_again(self, strand: Strand, candidate: Version) -> Change | None:
        strand.streak = 0
        old = strand.current
        if strand.restless:
            if candidate.calls >= SETTLED:  # it has come to rest: the next change is news again
                strand.restless = False
                strand.current, strand.candidate = candidate, None
            return None
        beside = strand.lives_beside(candidate)
        if strand.mixed:
            strand.candidate = None
            if beside:
                return None
            strand.pair = (old, candidate) if candidate is not strand.replaced else (candidate, old)
            return self._change(strand, Pattern.ROLLOUT, *strand.pair)
        if candidate.calls < SETTLED:
            return None
        strand.current, strand.candidate, strand.replaced = candidate, None, old
        if beside:
            return None
        strand.pair = None
        return self._change(strand, Pattern.ONCE, old, candidate)

    def _change(self, strand: Strand, pattern: Pattern, old: Version, new: Version) -> Change:
        return Change(strand.where, pattern, old, new, snapshot.difference(old.prefix, new.prefix), strand.rate)

    # --- whose version it is --------------------------------------------------------------------------------

    def _related(self, where: Where, version: Version) -> Strand | None:
        route = self._routes.get(where)
        return None if route is None else next((one for one in route.strands if same_prompt(one, version)), None)

    def _add(self, where: Where, version: Version, now: float) -> Strand:
        route = self._routes.get(where)
        if route is None:
            if len(self._routes) >= MAX_ROUTES:
                self._make_room()
            route = self._routes[where] = Route()
        elif route.full:
            self._drop(route, min(route.strands, key=last_seen))
        strand = Strand(where, version)
        strand.count(now)
        route.strands.append(strand)
        self._remember(strand, version)
        return strand

    def _remember(self, strand: Strand, version: Version) -> None:
        strand.versions.append(version)
        if len(strand.versions) > VERSIONS_A_STRAND:
            kept = (strand.current, strand.candidate, strand.replaced, *(strand.pair or ()))
            gone = next(one for one in strand.versions if one not in kept)
            strand.versions.remove(gone)
            self._known.pop((strand.where, gone.digest), None)
        self._known[strand.where, version.digest] = strand, version
        while len(self._known) > MAX_KNOWN:
            self._make_room()

    def _make_room(self) -> None:
        """Forgets the routes whose last calls are the longest ago."""
        for route in heapq.nsmallest(max(1, len(self._routes) // 10), self._routes.values(), key=last_seen):
            for strand in list(route.strands):
                self._drop(route, strand)

    def _drop(self, route: Route, strand: Strand) -> None:
        """Forgets one prompt of a route, and the route with its last."""
        route.strands.remove(strand)
        for version in strand.versions:
            self._known.pop((strand.where, version.digest), None)
        if not route.strands:
            del self._routes[strand.where]

    # --- across restarts ------------------------------------------------------------------------------------

    def _load(self, file: File) -> None:
        for where, current, candidate in file.read():
            strand = self._add(where, current, current.at)
            if candidate is not None:
                strand.candidate = candidate
                self._remember(strand, candidate)

    def save(self) -> None:
        """Writes what its file lacks. Raises OSError."""
        if self._file is not None and self._file.lacking:
            with self._lock:
                self._file.write(strand for route in self._routes.values() for strand in route.strands)

    def _save_last(self) -> None:
        with contextlib.suppress(Exception):  # nobody is left to hear of it
            self.save()


__all__ = ["HOUR", "Change", "Journal", "Where", "key_of"]
