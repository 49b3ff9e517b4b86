"""The change journal: when a route's stable prefix (all that stands in front of the messages) takes a new digest.

A digest that a route has used before costs one look-up. A new one is compared, off the caller's thread, with the
prefix it is a version of: another agent's prompt on the same route is a strand of its own and no change. Nothing is
said until it is clear what kind of change it is: made once, two versions at the same time, or anew on every request.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from otel_promptcache import fingerprint, snapshot
from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import TELLING
from otel_promptcache.model import Link, Prompt, Section
from otel_promptcache.semconv import Pattern, Reason
from otel_promptcache.snapshot import Difference, Part, Prefix

log = logging.getLogger("otel_promptcache")

FORMAT: Final = 1
SETTLED: Final = 3
"""Calls in a row from which a new version is there to stay; new versions in a row from which every request has one."""
MAX_KNOWN: Final = 4_096
"""Digests, of all routes together."""
MAX_ROUTES: Final = 1_024
STRANDS_A_ROUTE: Final = 16
VERSIONS_A_STRAND: Final = 8
CLOSE: Final = 0.02
"""Share of its length by which a line may have become longer or shorter."""
REST: Final = 60.0
"""Seconds between two looks at a prefix that is another one on every request: a look may cost milliseconds."""
HOUR: Final = 3_600.0


class Where(NamedTuple):
    """Whose prefix it is. Another model has another cache, and often another prompt."""

    route: str
    provider: str
    model: str


@dataclass(slots=True, eq=False)
class Version:
    """One digest of a prefix, and who brought it."""

    digest: str
    prefix: Prefix
    service: str
    """``service.version`` of the process."""
    prompt_name: str
    prompt_version: str
    at: float
    link: Link | None = None
    calls: int = 1


class Change(NamedTuple):
    """What is told. ``difference`` is None where the hashes do not show it."""

    where: Where
    pattern: Pattern
    old: Version
    new: Version
    difference: Difference | None
    calls_per_hour: int


@dataclass(slots=True, eq=False)
class _Strand:
    """Versions of one prompt on one route."""

    where: Where
    current: Version
    candidate: Version | None = None
    """The newest version, of which it is not clear yet what it means."""
    mixed: bool = False
    """Whether the current version has been seen since."""
    streak: int = 0
    """New versions in a row, none of which came twice."""
    restless: bool = False
    """Every request has a version of its own; that has been told."""
    looked: float = float("-inf")
    """When a version of a restless strand was last looked at."""
    replaced: Version | None = None
    """What the current version took the place of, as has been told."""
    versions: list[Version] = field(default_factory=list)
    hour: float = float("-inf")
    calls: int = 0
    before: int = 0
    """Calls in the current hour and in the one before."""

    def count(self, now: float) -> None:
        if now - self.hour >= HOUR:
            self.before = self.calls if now - self.hour < 2 * HOUR else 0
            self.hour, self.calls = now, 0
        self.calls += 1

    @property
    def rate(self) -> int:
        """Calls in an hour, as far as it has been watched."""
        return max(self.calls, self.before)


class Journal:
    """Of one process; with a file it knows what earlier ones did. ``tell`` is called on the worker's thread."""

    def __init__(self, key: HashKey, tell: Callable[[Change], None], file: str = "") -> None:
        self._key = key
        self._tell = tell
        self._file = file
        self._begin()
        after_fork_in_child(self._after_fork)
        if file:
            self._load()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._known: dict[tuple[Where, str], tuple[_Strand, Version]] = {}
        self._strands: dict[Where, list[_Strand]] = {}

    def _after_fork(self) -> None:
        self._lock = threading.RLock()

    def settled(self, where: Where, digest: str, now: float) -> bool:
        """Whether a call has the prefix that its route is known to have: then it is counted, and that is all."""
        found = self._known.get((where, digest))
        if found is None:
            return False
        strand, version = found
        if version is not strand.current or strand.candidate is not None or strand.restless:
            return False
        strand.count(now)
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
                version.calls += 1
                telling = version is strand.candidate and not strand.restless
                change = self._seen_again(strand, version)
            else:
                if self._left_alone(where, now):
                    return
                prefix = snapshot.take(prompt, where.provider, self._key)
                version = Version(digest, prefix, service, *name, now, link)
                related = self._related(where, version)
                if related is None:
                    self._add(where, version, now)
                    self._save()
                    return
                known = [line for part in related.current.prefix.parts if part.detail for line in part.detail.lines]
                version.prefix = snapshot.searched(prefix, prompt, frozenset(known))
                related.count(now)
                telling = not related.restless
                change = self._new(related, version)
            if telling or change is not None:
                self._save()
        if change is not None:
            self._tell(change)

    def _left_alone(self, where: Where, now: float) -> bool:
        """Whether a route is known to have another prefix for every request, and has been looked at a moment ago."""
        restless = next((one for one in self._strands.get(where, ()) if one.restless), None)
        if restless is None:
            return False
        if now - restless.looked < REST:
            restless.count(now)
            return True
        restless.looked = now
        return False

    # --- what it means --------------------------------------------------------------------------------------

    def _new(self, strand: _Strand, version: Version) -> Change | None:
        earlier = strand.candidate
        self._remember(strand, version)
        strand.streak = strand.streak + 1 if earlier is None or earlier.calls == 1 else 1
        strand.candidate, strand.mixed = version, False
        if strand.restless or strand.streak < SETTLED or earlier is None:
            return None
        strand.restless = True
        return self._change(strand, Pattern.EVERY_REQUEST, earlier, version)

    def _seen_again(self, strand: _Strand, version: Version) -> Change | None:
        candidate = strand.candidate
        if version is candidate:
            return self._candidate_again(strand, candidate)
        if candidate is not None:
            strand.mixed = strand.mixed or version is strand.current
        elif version is strand.replaced:
            strand.replaced = None
            return self._change(strand, Pattern.ROLLOUT, version, strand.current)
        return None

    def _candidate_again(self, strand: _Strand, candidate: Version) -> Change | None:
        strand.streak = 0
        if strand.restless:
            if candidate.calls >= SETTLED:  # it has come to rest: the next change is news again
                strand.restless = False
                strand.current, strand.candidate = candidate, None
            return None
        if not strand.mixed and candidate.calls < SETTLED:
            return None
        old, strand.candidate = strand.current, None
        if strand.mixed:
            return self._change(strand, Pattern.ROLLOUT, old, candidate)
        strand.current, strand.replaced = candidate, old
        return self._change(strand, Pattern.ONCE, old, candidate)

    def _change(self, strand: _Strand, pattern: Pattern, old: Version, new: Version) -> Change:
        return Change(strand.where, pattern, old, new, snapshot.difference(old.prefix, new.prefix), strand.rate)

    # --- whose version it is --------------------------------------------------------------------------------

    def _related(self, where: Where, version: Version) -> _Strand | None:
        return next((one for one in self._strands.get(where, ()) if _same_prompt(one, version)), None)

    def _add(self, where: Where, version: Version, now: float) -> _Strand | None:
        strands = self._strands.get(where, [])
        if len(strands) >= STRANDS_A_ROUTE or (not strands and len(self._strands) >= MAX_ROUTES):
            return None
        strand = _Strand(where, version)
        self._strands[where] = [*strands, strand]
        self._remember(strand, version)
        strand.count(now)
        return strand

    def _remember(self, strand: _Strand, version: Version) -> None:
        strand.versions.append(version)
        if len(strand.versions) > VERSIONS_A_STRAND:
            kept = (strand.current, strand.candidate, strand.replaced)
            gone = next(one for one in strand.versions if one not in kept)
            strand.versions.remove(gone)
            self._known.pop((strand.where, gone.digest), None)
        if len(self._known) < MAX_KNOWN:
            self._known[strand.where, version.digest] = strand, version

    # --- across restarts ------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            with open(self._file, encoding="utf-8") as handle:
                document = json.load(handle)
            if document["format"] != FORMAT:
                return
            if document["key"] != self._key.id:
                log.warning(
                    "otel-promptcache: OTEL_PROMPTCACHE_JOURNAL_FILE was written under another key (%s); it begins "
                    "anew. One OTEL_PROMPTCACHE_HASH_KEY for all processes keeps it across restarts",
                    Reason.KEY_MISMATCH,
                )
                return
            for one in document["strands"]:
                self._load_strand(one)
        except FileNotFoundError:
            return
        except Exception as error:  # whatever stands in a file, the application starts
            self._begin()
            log.warning(
                "otel-promptcache: OTEL_PROMPTCACHE_JOURNAL_FILE cannot be read (%s); it begins anew",
                type(error).__name__,
            )

    def _load_strand(self, document: Mapping[str, Any]) -> None:
        versions = [_version_in(one) for one in document["versions"]]
        strand = self._add(Where(*document["where"]), versions[0], versions[0].at)
        if strand is not None and len(versions) > 1:
            strand.candidate = versions[1]
            self._remember(strand, versions[1])

    def _save(self) -> None:
        if not self._file:
            return
        strands = [
            {
                "where": strand.where,
                "versions": [_version_out(one) for one in (strand.current, strand.candidate) if one is not None],
            }
            for strands in self._strands.values()
            for strand in strands
        ]
        partial = f"{self._file}.{os.getpid()}"
        with open(partial, "w", encoding="utf-8") as handle:
            json.dump({"format": FORMAT, "key": self._key.id, "strands": strands}, handle)
        os.replace(partial, self._file)


def key_of(file: str) -> str:
    """The id of the key that a journal's file was written under. Raises OSError, and ValueError for what is none."""
    try:
        with open(file, encoding="utf-8") as handle:
            return str(json.load(handle)["key"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("no journal") from error


def _version_out(version: Version) -> dict[str, Any]:
    return {
        "digest": version.digest,
        "prefix": json.loads(snapshot.prefix_out(version.prefix)),
        "service": version.service,
        "prompt": [version.prompt_name, version.prompt_version],
        "at": version.at,
        "link": version.link,
        "calls": version.calls,
    }


def _version_in(document: Mapping[str, Any]) -> Version:
    link = document["link"]
    name, version = map(str, document["prompt"])
    return Version(
        str(document["digest"]),
        snapshot.prefix_in(document["prefix"]),
        str(document["service"]),
        name,
        version,
        float(document["at"]),
        Link(*map(int, link)) if link else None,
        int(document["calls"]),
    )


def _same_prompt(strand: _Strand, version: Version) -> bool:
    """Whether a prefix is a version of a strand's: named alike by the application, or else alike by its pieces."""
    old = strand.candidate or strand.current
    if old.prompt_name and version.prompt_name:
        return old.prompt_name == version.prompt_name
    before, after = old.prefix.parts, version.prefix.parts
    told = _telling(before, Section.SYSTEM)
    if told:
        # Agents share tools, and tools share their layout; who shares a piece of the system prompt is the same agent.
        return bool(told & _telling(after, Section.SYSTEM)) or any(
            _alike(one, other)
            for one in before
            if one.section is Section.SYSTEM
            for other in after
            if other.section is Section.SYSTEM
        )
    return bool(_telling(before, Section.TOOLS) & _telling(after, Section.TOOLS))


def _alike(one: Part, other: Part) -> bool:
    """Whether two texts are versions of one another. Of a single line hashes show its length, and nothing else."""
    if fingerprint.similar(one.detail, other.detail):
        return True
    lines = [1 if part.detail is None else len(part.detail.lines) for part in (one, other)]
    return lines == [1, 1] and abs(one.size - other.size) <= max(one.size, other.size) * CLOSE


def _telling(parts: tuple[Part, ...], section: Section) -> set[str]:
    return {part.digest for part in parts if part.section is section and part.size >= TELLING}
