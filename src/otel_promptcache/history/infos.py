"""What is known of all distinct segments, wherever they stand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from otel_promptcache.fingerprint import canonical
from otel_promptcache.fingerprint.fields import plain_text
from otel_promptcache.history import TELLING, Remembered, Sent
from otel_promptcache.history.info import Info, Traits, size_of, traits
from otel_promptcache.history.trie import Rows
from otel_promptcache.model import Kind, Run, Section, Segment

MAX_TRAITS: Final = 512
"""Combinations of role, kind and section that are held once; a tool result's role carries the id of its call."""


class Contents:
    """What segments say, the newest of it, within a number of bytes. It leaves this object for nowhere but a
    comparison in this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._kept: deque[Info] = deque()

    def keep(self, info: Info, content: Remembered) -> None:
        if len(content.data) > self._most:
            return
        info.remembered = content
        self._kept.append(info)
        self._held += len(content.data)
        while self._held > self._most:
            self.drop(self._kept[0])

    def drop(self, info: Info) -> None:
        if info.remembered is not None:
            self._held -= len(info.remembered.data)
            info.remembered = None
        while self._kept and self._kept[0].remembered is None:
            self._kept.popleft()


class Meeting:
    """What the segments that are added for a request were in before."""

    __slots__ = ("fresh", "kin", "relatives", "sent")

    def __init__(self, sent: Sent) -> None:
        self.sent = sent
        self.fresh = 0
        self.kin: dict[int, tuple[int, Sent]] = {}
        self.relatives: set[int] = set()

    def met(self, info: Info) -> None:
        """A segment that was known. What is long is telling; that everybody says "yes" is not."""
        earlier = info.last
        if earlier is not None and earlier.leaf is not None and earlier.scope.tenant == self.sent.scope.tenant:
            self.kin[id(earlier)] = (self.kin.get(id(earlier), (0, earlier))[0] + info.size, earlier)
            if info.size >= TELLING and info.section is Section.MESSAGES:
                self.relatives.add(id(earlier))


class Infos:
    """By their keys, as long as anything stands on them. For whom the history's lock is held."""

    def __init__(self, remember_bytes: int = 0) -> None:
        self.known: dict[int, Info] = {}
        self.remembered = Contents(remember_bytes) if remember_bytes else None
        self._traits: dict[Traits, Traits] = {}

    def add(self, meeting: Meeting, rows: Rows, segments: Sequence[Segment]) -> None:
        for segment in segments:
            info = self.known.get(segment.key)
            if info is None:
                info = self.known[segment.key] = self._new(segment)
                meeting.fresh += 1
            else:
                meeting.met(info)
            info.refs += 1
            info.last = meeting.sent
            rows.infos.append(info)
            rows.elements.append(segment.element)

    def _new(self, segment: Segment) -> Info:
        data = canonical(segment)
        info = Info(segment.key, size_of(segment, data), self._shared_traits(traits(segment)))
        if self.remembered is not None:
            self.remembered.keep(info, Remembered(segment.role, plain_text(segment) is not None, data))
        return info

    def add_run(self, meeting: Meeting, rows: Rows, run: Run, start: int) -> None:
        """The same for messages that are a role and a text: the first sight of a long conversation is mostly these."""
        infos, sent, add = self.known, meeting.sent, rows.infos.append
        texts = run.texts[start:] if start else run.texts
        roles = {role: self._shared_traits(Traits(Section.MESSAGES, Kind.TEXT, hash(role))) for role in set(run.roles)}
        for role, text in zip(run.roles[start:], texts, strict=True):
            key = hash((role, text))
            info = infos.get(key)
            if info is None:
                size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
                info = infos[key] = Info(key, size, roles[role])
                meeting.fresh += 1
                if self.remembered is not None:
                    self.remembered.keep(info, Remembered(role, True, text.encode("utf-8", "surrogatepass")))
            else:
                meeting.met(info)
            info.refs += 1
            info.last = sent
            add(info)
        rows.elements.extend(range(run.first + start, run.first + len(run.texts)))

    def _shared_traits(self, found: Traits) -> Traits:
        known = self._traits.get(found)
        if known is None:
            known = found
            if len(self._traits) < MAX_TRAITS:
                self._traits[found] = found
        return known

    def release(self, gone: Iterable[Info]) -> None:
        """Forgets what stood at places that are no more, unless it stands at others."""
        for info in gone:
            info.refs -= 1
            if not info.refs:
                self.known.pop(info.key, None)
                if self.remembered is not None:
                    self.remembered.drop(info)
