"""The history of one process: a trie of prefixes, bounded as a whole and for each scope.

Recognising a resent conversation compares one number a segment, or one for a whole run of messages, and a new turn adds
only itself. A request pins the place where its prompt ends; forgetting the oldest requests frees the segments that
nothing else stands on.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final, NamedTuple
from weakref import ref

from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.fingerprint import HashKey, canonical
from otel_promptcache.fingerprint.fields import plain_text
from otel_promptcache.history import TELLING, Info, Node, Path, Remembered, Sent, Sight, Write
from otel_promptcache.history.info import Traits, size_of, traits
from otel_promptcache.history.simulation import place_entries, simulate, withdraw
from otel_promptcache.history.trie import Rows, Stem
from otel_promptcache.model import Kind, Link, Prompt, Run, Scope, Section, Segment, Usage
from otel_promptcache.providers.rules import MINUTE, Matching, Rules, rules_for

MAX_SCOPES: Final = 4096
MAX_IDS: Final = 20_000
MAX_UNREAD: Final = 10_000
MAX_RUNS: Final = 256
"""Conversations whose newest state is recognised at one glance."""
MAX_KIN: Final = 8
MAX_TRAITS: Final = 512
"""Combinations of role, kind and section that are held once; a tool result's role carries the id of its call."""
MAX_VERSIONS: Final = 4
"""Of what one route sends in front of the messages: a new prompt is rolled out beside the old one."""
SEGMENTS_A_REQUEST: Final = 4
"""One request is remembered for every so many segments that may be: identical requests add no segments."""
_SAME: Final = 0.15
"""Share by which two counts of one prefix may differ."""
_SHARE_OF_ONE_SCOPE: Final = 0.5
_TRIMMED_TO: Final = 0.9
"""Forgetting goes a little further than needed, so that it is not done for every request."""


class _Branch:
    """All prefixes of one scope."""

    __slots__ = ("root", "segments", "sent")

    def __init__(self, root: Stem) -> None:
        self.root = root
        self.sent: deque[Sent] = deque()
        self.segments = 0


class _Resent(NamedTuple):
    """Messages in a row as they were last sent: how many, their hash, and where they end, stem by stem."""

    length: int
    print: int
    ends: tuple[tuple[Stem, int], ...]


class _Contents:
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


class Memory:
    """``History`` in this process. Thread-safe; a fork keeps what was known."""

    def __init__(self, key: HashKey, max_segments: int, remember_bytes: int = 0) -> None:
        """``remember_bytes``: of the segments' own content, so that a diagnosis can tell the very character; 0 keeps
        hashes only."""
        self._prepare(key, max_segments, remember_bytes)
        after_fork_in_child(self._after_fork)

    def _prepare(self, key: HashKey, max_segments: int, remember_bytes: int = 0) -> None:
        self._key = key
        self._max = max_segments
        self._remember_bytes = remember_bytes
        # Reentrant: a signal handler may make a call of its own while we hold the lock.
        self._lock = threading.RLock()
        self._at_work = False
        self._begin()
        self._writes: list[tuple[float, int, Write]] = []
        self._unread: deque[Write] = deque(maxlen=MAX_UNREAD)
        self._order = itertools.count()

    def _begin(self) -> None:
        self._segments = 0
        self._infos: dict[int, Info] = {}
        self._remembered = _Contents(self._remember_bytes) if self._remember_bytes else None
        self._traits: dict[Traits, Traits] = {}
        self._branches: OrderedDict[Scope, _Branch] = OrderedDict()
        self._runs: OrderedDict[tuple[Stem, int, int], _Resent] = OrderedDict()
        """By the place in front and the first message. All in it is alive: forgetting any empties it."""
        self._by_id: OrderedDict[tuple[str, str], Sent] = OrderedDict()
        self._by_site: OrderedDict[tuple[str, str, str], OrderedDict[Node | None, Sent]] = OrderedDict()
        """The newest request for each of the newest versions of what a route sends in front of the messages."""

    def _after_fork(self) -> None:
        # Another thread may have held the lock when the process was copied. What was paid for belongs to the parent.
        self._lock = threading.RLock()
        if self._at_work:
            self._at_work = False
            self._begin()
        self._writes = []
        self._unread.clear()

    def __len__(self) -> int:
        """Remembered segments."""
        return self._segments

    def sent(
        self, prompt: Prompt, scope: Scope, *, now: float, route: str, conversation: str, link: Link | None
    ) -> Sight:
        rules = rules_for(scope.provider, scope.model)
        with self._lock:
            if self._at_work:
                # A signal handler's call, in the middle of another's: it is told nothing, and leaves nothing.
                aside = Memory(self._key, self._max)
                return aside.sent(prompt, scope, now=now, route=route, conversation=conversation, link=link)
            branch = self._branch(scope)
            ends = self._known(branch.root, prompt)
            sent = Sent(scope, now, link, route, conversation)
            sent.dialect = prompt.dialect
            known = Path(ends)
            sight = Sight(sent, known, ends[-1][0].last(ends[-1][1]) if known else None)
            if prompt.previous_id or prompt.conversation_id or conversation:
                sight.held = bool(prompt.previous_id or prompt.conversation_id)
                sight.holder = self._holder(prompt, conversation, scope.tenant)
            sight.sites = tuple(reversed(self._by_site.get((route, scope.endpoint, scope.tenant), {}).values()))
            if sight.previous is not None:
                sight.unanswered = not sight.previous.readable
            if rules.machine_rate:
                sight.rate = _rate(branch.sent, now, 4 * rules.machine_rate)
            simulate(sight, prompt, rules, now)
            self._at_work = True
            try:
                self._record(branch, prompt, sight, ends, rules, now)
            except BaseException:
                self._begin()  # half of something is worse than nothing
                raise
            finally:
                self._at_work = False
            sent.lineage = self._lineage(sight)
            if sight.fresh or (sight.previous is not None and sight.previous.prompt is not None):
                sent.prompt = ref(prompt.segments)
        return sight

    def describe(self, prompt: Prompt, sight: Sight) -> None:
        if sight.fresh:
            for info, segment in zip(sight.infos[sight.shared :], prompt.segments[sight.shared :], strict=True):
                info.describe(self._key, segment)
        sight.sent.prompt = None

    def begun(self, sight: Sight, now: float | None = None) -> None:
        sight.sent.readable = True
        if sight.sent.began is None:
            sight.sent.began = now
        sight.sent.before = None
        for node, _ in sight.sent.breakpoints:
            if node.entry is not None:
                node.entry.readable = True

    def ended(self, sight: Sight, usage: Usage | None, response_id: str, write: Write | None) -> None:
        sent = sight.sent
        with self._lock:
            if response_id:
                sent.response_id = response_id
                self._remember_id(response_id, sent)
            if usage is None or not usage.available:
                if not sent.readable:
                    withdraw(sight)
                return
            if not usage.server_tools:  # else counts add up several inner requests and tell no lengths
                self._learn(sight, usage)
            if usage.read:
                self._mark_read(sight, sent.at)
            if write is not None and sent.breakpoints:
                for node, _ in sent.breakpoints:
                    # An entry that an earlier request already holds is not what this one paid for.
                    if node.entry is not None and node.entry.write is None and node.length > sight.live:
                        node.entry.write = write
                        write.read = write.read or node.entry.read
                heapq.heappush(self._writes, (write.expires, next(self._order), write))
                self._settle_writes(sent.at)

    def expired_writes(self, now: float) -> list[Write]:
        with self._lock:
            self._settle_writes(now)
            unread = list(self._unread)
            self._unread.clear()
        return unread

    def _settle_writes(self, now: float) -> None:
        """Sets aside what has run out unread. Done with every write, as nobody may ever ask for it."""
        while self._writes and self._writes[0][0] < now:
            write = heapq.heappop(self._writes)[2]
            if not write.read:
                self._unread.append(write)

    # --- looking up -----------------------------------------------------------------------------------------

    def _branch(self, scope: Scope) -> _Branch:
        branch = self._branches.get(scope)
        if branch is None:
            names = (scope.provider, scope.endpoint, scope.credential, scope.model, scope.cache_key)
            root = Stem(None)
            root.keep(0).chain = self._key.root(*names)
            branch = self._branches[scope] = _Branch(root)
            while len(self._branches) > MAX_SCOPES:
                self._forget_all(self._branches.popitem(last=False)[1])
        else:
            self._branches.move_to_end(scope)
        return branch

    def _known(self, root: Stem, prompt: Prompt) -> list[tuple[Stem, int]]:
        """Where the longest known prefix ends, stem by stem: one comparison a segment, and one for messages resent in a
        row. The last place is where the rest goes on."""
        segments = prompt.segments
        ends: list[tuple[Stem, int]] = []
        stem, at, index = root, 0, 0
        for run in (*segments.runs, None):
            infos = stem.rows.infos
            for place in range(index, run.start if run is not None else len(segments)):
                key = segments[place].key
                if at < len(infos) and infos[at].key == key:
                    at += 1
                    continue
                fork = stem.forks.get((at, key))
                ends.append((stem, at))
                if fork is None:
                    return ends
                stem, at, infos = fork, 1, fork.rows.infos
            if run is not None:
                index = run.start
                known = self._runs.get((stem, at, hash(run.texts[0])))
                if known is not None and known.print == _print(run, known.length):
                    ends += [(stem, at), *known.ends] if known.ends[0][0] is not stem else known.ends
                    stem, at = ends.pop()
                    index += known.length
        ends.append((stem, at))
        return ends

    def _remember_runs(self, root: Stem, prompt: Prompt, path: Path) -> None:
        for run in prompt.segments.runs:
            end = run.start + len(run.texts)
            behind = [piece for piece in path.pieces if run.start < piece.stem.start + piece.end]
            ends = tuple((stem, min(last, end - stem.start)) for stem, _, last in behind if stem.start < end)
            before = path.piece(run.start) if run.start else None
            stem, at = (before.stem, before.end) if before is not None else (root, 0)
            place = (stem, at, hash(run.texts[0]))
            known = self._runs.get(place)
            if known is None or known.ends != ends:
                self._runs[place] = _Resent(len(run.texts), _print(run, len(run.texts)), ends)
            self._runs.move_to_end(place)
            if len(self._runs) > MAX_RUNS:
                self._runs.popitem(last=False)

    def _holder(self, prompt: Prompt, conversation: str, tenant: str) -> Sent | None:
        for identity in (prompt.previous_id, prompt.conversation_id, conversation):
            if identity and (found := self._by_id.get((tenant, identity))) is not None and found.leaf is not None:
                return found
        return None

    def _lineage(self, sight: Sight) -> str:
        """The conversation that a request continues, as far as its prompt shows it; else a new one."""
        if sight.holder is not None:
            return sight.holder.lineage
        if sight.previous is not None and sight.shared and sight.infos[sight.shared - 1].section is Section.MESSAGES:
            return sight.previous.lineage
        return sight.relative.lineage if sight.relative is not None else secrets.token_hex(8)

    def _remember_id(self, identity: str, sent: Sent) -> None:
        self._by_id[sent.scope.tenant, identity] = sent
        self._by_id.move_to_end((sent.scope.tenant, identity))
        while len(self._by_id) > MAX_IDS:
            self._by_id.popitem(last=False)

    # --- recording ------------------------------------------------------------------------------------------

    def _record(
        self,
        branch: _Branch,
        prompt: Prompt,
        sight: Sight,
        ends: list[tuple[Stem, int]],
        rules: Rules,
        now: float,
    ) -> None:
        sent = sight.sent
        previous = sight.previous
        if previous is not None:
            sent.before, sent.shared = previous, sight.shared
            if not previous.readable and previous.before is not None:
                sent.before, sent.shared = previous.before, min(sight.shared, previous.shared)
        self._extend(branch, prompt, sight, ends)
        for stem, at in ends:
            stem.reached(at, sent)
        path = sight.nodes = Path(ends)
        sight.infos = path.infos()
        sent.leaf = ends[-1][0].pin(ends[-1][1])
        front = _leading(sight.infos)
        if front:
            sight.leading = path.keep(front)
        if prompt.segments.runs:
            self._remember_runs(branch.root, prompt, path)
        if rules.matching is Matching.BREAKPOINT and prompt.breakpoints:
            sent.breakpoints = place_entries(prompt, path, now)
        branch.sent.append(sent)
        site = (sent.route, sent.scope.endpoint, sent.scope.tenant)
        versions = self._by_site.setdefault(site, OrderedDict())
        versions[sight.leading] = sent
        versions.move_to_end(sight.leading)
        if len(versions) > MAX_VERSIONS:
            versions.popitem(last=False)
        self._by_site.move_to_end(site)
        if len(self._by_site) > MAX_SCOPES:
            self._by_site.popitem(last=False)
        for identity in (prompt.conversation_id, sent.conversation):
            if identity:
                self._remember_id(identity, sent)
        self._trim(branch)

    def _extend(self, branch: _Branch, prompt: Prompt, sight: Sight, ends: list[tuple[Stem, int]]) -> None:
        """Adds the segments that are new behind the last of ``ends``, and notes which earlier requests they were in."""
        segments, start = prompt.segments, sight.shared
        total = len(segments)
        if start == total:
            return
        stem, at = ends[-1]
        if at < len(stem):
            fork = Stem(stem.pin(at))
            stem.forks[at, segments[start].key] = fork
            stem, at = fork, 0
            ends.append((stem, at))
        meeting = _Meeting(sight.sent)
        rows = stem.rows
        for run in (*segments.runs, None):
            stop = run.start if run is not None else total
            if start < stop:
                self._add(meeting, rows, segments[start:stop])
                start = stop
            if run is not None and start < run.start + len(run.texts):
                self._add_run(meeting, rows, run, start - run.start)
                start = run.start + len(run.texts)
        before = rows.sizes[-1] if at else stem.size
        rows.sizes.extend(itertools.accumulate([info.size for info in rows.infos[at:]], initial=before))
        rows.sizes.pop(at)  # the size in front, which the row has already
        added = total - sight.shared
        ends[-1] = (stem, len(stem))
        branch.segments += added
        self._segments += added
        sight.fresh = meeting.fresh
        if meeting.kin:
            ordered = sorted(meeting.kin.values(), key=lambda pair: pair[0], reverse=True)
            sight.kin = tuple(earlier for _, earlier in ordered[:MAX_KIN])
            sight.relative = next((one for one in sight.kin if id(one) in meeting.relatives), None)

    def _add(self, meeting: _Meeting, rows: Rows, segments: Sequence[Segment]) -> None:
        for segment in segments:
            info = self._infos.get(segment.key)
            if info is None:
                info = self._infos[segment.key] = self._new(segment)
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
        if self._remembered is not None:
            self._remembered.keep(info, Remembered(segment.role, plain_text(segment) is not None, data))
        return info

    def _add_run(self, meeting: _Meeting, rows: Rows, run: Run, start: int) -> None:
        """The same for messages that are a role and a text: the first sight of a long conversation is mostly these."""
        infos, sent, add = self._infos, meeting.sent, rows.infos.append
        texts = run.texts[start:] if start else run.texts
        roles = {role: self._shared_traits(Traits(Section.MESSAGES, Kind.TEXT, hash(role))) for role in set(run.roles)}
        for role, text in zip(run.roles[start:], texts, strict=True):
            key = hash((role, text))
            info = infos.get(key)
            if info is None:
                size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
                info = infos[key] = Info(key, size, roles[role])
                meeting.fresh += 1
                if self._remembered is not None:
                    self._remembered.keep(info, Remembered(role, True, text.encode("utf-8", "surrogatepass")))
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

    def _learn(self, sight: Sight, usage: Usage) -> None:
        """Takes token counts over to the nodes they belong to."""
        sent = sight.sent
        # What the server held is counted, but is not on the wire: such counts belong to no prefix of ours.
        held = sight.held
        sent.total = usage.input_total
        if usage.read is not None or usage.write is not None:
            sent.cached = (usage.read or 0) + (usage.write or 0)
        if sent.leaf is not None and usage.input_total and not held:
            sent.leaf.tokens = usage.input_total
        if sent.breakpoints:
            if sent.cached:
                last = max((node for node, _ in sent.breakpoints), key=lambda node: node.length)
                if not held:
                    last.tokens = sent.cached
                    if usage.read and 0 < sight.live < last.length and not sight.alone and _plausible(sight, usage):
                        # What was read ends exactly at the entry that matched.
                        sight.nodes.keep(sight.live).tokens = usage.read
            else:
                # Nothing read, nothing written: the provider stored nothing for this request.
                for node, _ in sent.breakpoints:
                    if node.entry is not None and node.entry.used == sent.at:
                        node.entry = None

    def _mark_read(self, sight: Sight, at: float) -> None:
        """Reading keeps entries alive, and pays for their writes: also for those whose writer is still at work."""
        for node in sight.nodes.nodes(max(sight.live, sight.pending, sight.expired, sight.beyond)):
            entry = node.entry
            if entry is not None and entry.used < at:
                entry.read = True
                if entry.write is not None:
                    entry.write.read = True
                if node.length <= sight.live:
                    entry.used = at

    # --- forgetting -----------------------------------------------------------------------------------------

    def _trim(self, branch: _Branch) -> None:
        share = int(self._max * _SHARE_OF_ONE_SCOPE)
        if branch.segments > share:
            self._forget(branch, int(share * _TRIMMED_TO))
        if len(branch.sent) > share // SEGMENTS_A_REQUEST:
            for _ in range(max(1, int(len(branch.sent) * (1 - _TRIMMED_TO)))):
                self._release(branch, branch.sent.popleft())
        if self._segments > self._max:
            # The scope that holds most gives way first, whoever came last.
            while self._segments > self._max * _TRIMMED_TO:
                largest = max(self._branches.values(), key=lambda one: one.segments)
                if not self._forget(largest, largest.segments - max(1, int(self._max * (1 - _TRIMMED_TO)))):
                    break

    def _forget(self, branch: _Branch, target: int) -> bool:
        """Forgets the oldest requests of a scope until it has ``target`` segments; False when there was nothing to."""
        before = branch.segments
        while branch.segments > target and branch.sent:
            self._release(branch, branch.sent.popleft())
        return branch.segments < before

    def _forget_all(self, branch: _Branch) -> None:
        while branch.sent:
            self._release(branch, branch.sent.popleft())

    def _release(self, branch: _Branch, sent: Sent) -> None:
        leaf = sent.leaf
        sent.leaf = sent.before = None
        sent.breakpoints = ()
        while leaf is not None:
            leaf.refs -= 1
            stem = leaf.stem
            if leaf.refs or leaf.at < stem.pinned:
                return
            gone = stem.trimmed()
            self._runs.clear()
            branch.segments -= len(gone)
            self._segments -= len(gone)
            for info in gone:
                info.refs -= 1
                if not info.refs:
                    self._infos.pop(info.key, None)
                    if self._remembered is not None:
                        self._remembered.drop(info)
            leaf = stem.parent
            if len(stem) or leaf is None:
                return
            del leaf.stem.forks[leaf.at, gone[0].key]


class _Meeting:
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


def _leading(infos: Sequence[Info]) -> int:
    """Segments in front of the history: parameters, tools, system prompt."""
    return next((index for index, info in enumerate(infos) if info.section > Section.SYSTEM), len(infos))


def _rate(sent: deque[Sent], now: float, most: int) -> int:
    """Requests of a scope in the minute before, counted no further than ``most``."""
    return sum(
        1 for _ in itertools.takewhile(lambda one: now - one.at < MINUTE, itertools.islice(reversed(sent), most))
    )


def _plausible(sight: Sight, usage: Usage) -> bool:
    """Whether so many tokens can have been read up to the entry that is known: another process may have left a longer
    one."""
    read, node = usage.read or 0, sight.nodes.kept(sight.live)
    if node is not None and node.tokens:
        return abs(read - node.tokens) <= _SAME * node.tokens
    totals = [one.total for one in sight.holders(sight.live) if one.total]
    return not totals or read <= max(totals)


def _print(run: Run, length: int) -> int:
    """Process-local hash of the first messages of a run. Strings remember theirs: nothing is read again."""
    if length > len(run.texts):
        return 0
    return hash((tuple(run.roles[:length]), tuple(run.texts[:length])))
