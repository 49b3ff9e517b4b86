"""The history of one process: a trie of prefixes, bounded as a whole and for each scope.

Nodes lie in one table under a rolling hash of the segment keys, so that recognising a resent conversation is one
look-up a segment and a new turn adds only its own nodes. A request pins its last node; forgetting the oldest
requests frees the nodes that nothing else stands on.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.fingerprint import HashKey, canonical
from otel_promptcache.fingerprint.fields import plain_text
from otel_promptcache.history import TELLING, Entry, Info, Node, Remembered, Sent, Sight, Write
from otel_promptcache.model import Link, Prompt, Run, Scope, Section, Segment, Usage
from otel_promptcache.providers.rules import MINUTE, Matching, Rules, rules_for
from otel_promptcache.providers.windows import windows

MAX_SCOPES: Final = 4096
MAX_IDS: Final = 20_000
MAX_UNREAD: Final = 10_000
MAX_RUNS: Final = 256
"""Conversations whose newest state is recognised at one glance."""
MAX_KIN: Final = 8
MAX_VERSIONS: Final = 4
"""Of what one route sends in front of the messages: a new prompt is rolled out beside the old one."""
SEGMENTS_A_REQUEST: Final = 4
"""One request is remembered for every so many segments that may be: identical requests add no segments."""
_SHARE_OF_ONE_SCOPE: Final = 0.5
_TRIMMED_TO: Final = 0.9
"""Forgetting goes a little further than needed, so that it is not done for every request."""


class _Branch:
    """All prefixes of one scope."""

    __slots__ = ("nodes", "root", "sent")

    def __init__(self, root: Node) -> None:
        self.root = root
        self.sent: deque[Sent] = deque()
        self.nodes = 0


class _Resent(NamedTuple):
    """Messages in a row as they were last sent: their hash, their nodes."""

    print: int
    nodes: list[Node]


class _Contents:
    """What segments say, the newest of it, within a number of bytes. It leaves this object for nowhere but a
    comparison in this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._kept: deque[Info] = deque()

    def keep(self, info: Info, segment: Segment, data: bytes) -> None:
        if len(data) > self._most:
            return
        info.remembered = Remembered(segment.role, plain_text(segment) is not None, data)
        self._kept.append(info)
        self._held += len(data)
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
        self._key = key
        self._max = max_segments
        self._remembered = _Contents(remember_bytes) if remember_bytes else None
        # Reentrant: a signal handler may make a call of its own while we hold the lock.
        self._lock = threading.RLock()
        self._table: dict[int, Node] = {}
        self._infos: dict[int, Info] = {}
        self._branches: OrderedDict[Scope, _Branch] = OrderedDict()
        self._runs: OrderedDict[tuple[int, int], _Resent] = OrderedDict()
        """By the prefix in front and the first message. All nodes in it live: forgetting any empties it."""
        self._by_id: OrderedDict[str, Sent] = OrderedDict()
        self._by_site: OrderedDict[tuple[str, str], OrderedDict[int, Sent]] = OrderedDict()
        """The newest request for each of the newest versions of what a route sends in front of the messages."""
        self._writes: list[tuple[float, int, Write]] = []
        self._unread: deque[Write] = deque(maxlen=MAX_UNREAD)
        self._order = itertools.count()
        after_fork_in_child(self._after_fork)

    def _after_fork(self) -> None:
        # Another thread may have held the lock when the process was copied. What was paid for belongs to the parent.
        self._lock = threading.RLock()
        self._writes = []
        self._unread.clear()

    def __len__(self) -> int:
        """Remembered segments."""
        return len(self._table)

    def sent(
        self, prompt: Prompt, scope: Scope, *, now: float, route: str, conversation: str, link: Link | None
    ) -> Sight:
        rules = rules_for(scope.provider, scope.model)
        with self._lock:
            branch = self._branch(scope)
            nodes = self._known(branch.root, prompt)
            sent = Sent(scope, now, link, route, conversation)
            sent.dialect = prompt.dialect
            sight = Sight(sent, nodes, nodes[-1].last if nodes else None)
            if prompt.previous_id or prompt.conversation_id or conversation:
                sight.held = bool(prompt.previous_id or prompt.conversation_id)
                sight.holder = self._holder(prompt, conversation)
            sight.sites = tuple(reversed(self._by_site.get((route, scope.endpoint), {}).values()))
            if sight.previous is not None:
                sight.unanswered = not sight.previous.readable
            if rules.machine_rate:
                sight.rate = _rate(branch.sent, now, 4 * rules.machine_rate)
            _simulate(sight, prompt, rules, now)
            self._record(branch, prompt, sight, rules, now)
            sent.lineage = self._lineage(sight)
        return sight

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
                    _withdraw(sight)
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
            branch = self._branches[scope] = _Branch(Node(hash(scope), None, None, self._key.root(*names), -1))
            while len(self._branches) > MAX_SCOPES:
                self._forget_all(self._branches.popitem(last=False)[1])
        else:
            self._branches.move_to_end(scope)
        return branch

    def _known(self, root: Node, prompt: Prompt) -> list[Node]:
        """The nodes of the longest known prefix: one look-up a segment, and one for messages resent in a row."""
        table, segments = self._table, prompt.segments
        nodes: list[Node] = []
        key, at = root.key, 0
        for run in (*segments.runs, None):
            for index in range(at, run.start if run is not None else len(segments)):
                key = hash((key, segments[index].key))
                node = table.get(key)
                if node is None:
                    return nodes
                nodes.append(node)
            if run is not None:
                at = run.start
                resent = self._resent(key, run)
                if resent:
                    nodes += resent
                    key, at = resent[-1].key, at + len(resent)
        return nodes

    def _resent(self, key: int, run: Run) -> Sequence[Node]:
        """The nodes of the messages that a run of earlier ones, sent behind the same prefix, begins with as a whole."""
        known = self._runs.get((key, hash(run.texts[0])))
        if known is None or known.print != _print(run, len(known.nodes)):
            return ()
        return known.nodes

    def _remember_runs(self, root: Node, prompt: Prompt, nodes: list[Node]) -> None:
        for run in prompt.segments.runs:
            parent = nodes[run.start - 1] if run.start else root
            place = (parent.key, hash(run.texts[0]))
            known = self._runs.get(place)
            end = run.start + len(run.texts)
            if known is None or known.nodes[-1] is not nodes[end - 1]:
                self._runs[place] = _Resent(_print(run, len(run.texts)), nodes[run.start : end])
            self._runs.move_to_end(place)
            if len(self._runs) > MAX_RUNS:
                self._runs.popitem(last=False)

    def _holder(self, prompt: Prompt, conversation: str) -> Sent | None:
        for identity in (prompt.previous_id, prompt.conversation_id, conversation):
            if identity and (found := self._by_id.get(identity)) is not None and found.leaf is not None:
                return found
        return None

    def _lineage(self, sight: Sight) -> str:
        """The conversation that a request continues, as far as its prompt shows it; else a new one."""
        if sight.holder is not None:
            return sight.holder.lineage
        if sight.previous is not None and sight.shared:
            info = sight.nodes[sight.shared - 1].info
            if info is not None and info.section is Section.MESSAGES:
                return sight.previous.lineage
        return sight.relative.lineage if sight.relative is not None else secrets.token_hex(8)

    def _remember_id(self, identity: str, sent: Sent) -> None:
        self._by_id[identity] = sent
        self._by_id.move_to_end(identity)
        while len(self._by_id) > MAX_IDS:
            self._by_id.popitem(last=False)

    # --- recording ------------------------------------------------------------------------------------------

    def _record(self, branch: _Branch, prompt: Prompt, sight: Sight, rules: Rules, now: float) -> None:
        sent = sight.sent
        previous = sight.previous
        if previous is not None:
            sent.before, sent.shared = previous, sight.shared
            if not previous.readable and previous.before is not None:
                sent.before, sent.shared = previous.before, min(sight.shared, previous.shared)
        for node in sight.nodes:
            node.last = sent
        sent.leaf = self._extend(branch, prompt, sight)
        sent.leaf.refs += 1
        if prompt.segments.runs:
            self._remember_runs(branch.root, prompt, sight.nodes)
        if rules.matching is Matching.BREAKPOINT and prompt.breakpoints:
            sent.breakpoints = _place_entries(prompt, sight.nodes, now)
        branch.sent.append(sent)
        site = (sent.route, sent.scope.endpoint)
        versions = self._by_site.setdefault(site, OrderedDict())
        leading = _leading_key(prompt, sight.nodes)
        versions[leading] = sent
        versions.move_to_end(leading)
        if len(versions) > MAX_VERSIONS:
            versions.popitem(last=False)
        self._by_site.move_to_end(site)
        if len(self._by_site) > MAX_SCOPES:
            self._by_site.popitem(last=False)
        for identity in (prompt.conversation_id, sent.conversation):
            if identity:
                self._remember_id(identity, sent)
        self._trim(branch)

    def _extend(self, branch: _Branch, prompt: Prompt, sight: Sight) -> Node:
        """Adds the nodes that are new and notes which earlier requests their segments were in; returns the last."""
        nodes, sent = sight.nodes, sight.sent
        fresh: list[tuple[Info, Segment]] = []
        kin: dict[int, tuple[int, Sent]] = {}
        relatives: set[int] = set()
        parent = nodes[-1] if nodes else branch.root
        for segment in prompt.segments[sight.shared :]:
            info = self._infos.get(segment.key)
            if info is None:
                data = canonical(segment)
                info = self._infos[segment.key] = Info(self._key.digest(segment.role, data), len(data), segment)
                fresh.append((info, segment))
                if self._remembered is not None:
                    self._remembered.keep(info, segment, data)
            elif (earlier := info.last) is not None and earlier.leaf is not None:
                # What is long is telling; that everybody says "yes" is not.
                kin[id(earlier)] = (kin.get(id(earlier), (0, earlier))[0] + info.size, earlier)
                if segment.section is Section.MESSAGES and info.size >= TELLING:
                    relatives.add(id(earlier))
            info.refs += 1
            info.last = sent
            chain = self._key.chain(parent.chain, info.digest)
            node = Node(hash((parent.key, segment.key)), parent, info, chain, segment.element)
            self._table[node.key] = node
            parent.refs += 1
            node.last = sent
            nodes.append(node)
            parent = node
        branch.nodes += len(nodes) - sight.shared
        if fresh:
            sight.fresh = fresh
        if kin:
            ordered = sorted(kin.values(), key=lambda pair: pair[0], reverse=True)
            sight.kin = tuple(earlier for _, earlier in ordered[:MAX_KIN])
            sight.relative = next((one for one in sight.kin if id(one) in relatives), None)
        return parent

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
                    if usage.read and 0 < sight.live < last.length:
                        # What was read ends exactly at the entry that matched.
                        sight.nodes[sight.live - 1].tokens = usage.read
            else:
                # Nothing read, nothing written: the provider stored nothing for this request.
                for node, _ in sent.breakpoints:
                    if node.entry is not None and node.entry.used == sent.at:
                        node.entry = None

    def _mark_read(self, sight: Sight, at: float) -> None:
        """Reading keeps entries alive, and pays for their writes: also for those whose writer is still at work."""
        reach = max(sight.live, sight.pending, sight.expired, sight.beyond)
        for node in sight.nodes[:reach]:
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
        if branch.nodes > share:
            self._forget(branch, int(share * _TRIMMED_TO))
        if len(branch.sent) > share // SEGMENTS_A_REQUEST:
            for _ in range(max(1, int(len(branch.sent) * (1 - _TRIMMED_TO)))):
                self._release(branch, branch.sent.popleft())
        if len(self._table) > self._max:
            # The scope that holds most gives way first, whoever came last.
            while len(self._table) > self._max * _TRIMMED_TO:
                largest = max(self._branches.values(), key=lambda one: one.nodes)
                if not self._forget(largest, largest.nodes - max(1, int(self._max * (1 - _TRIMMED_TO)))):
                    break

    def _forget(self, branch: _Branch, target: int) -> bool:
        """Forgets the oldest requests of a scope until it has ``target`` nodes; False when there was nothing to."""
        before = branch.nodes
        while branch.nodes > target and branch.sent:
            self._release(branch, branch.sent.popleft())
        return branch.nodes < before

    def _forget_all(self, branch: _Branch) -> None:
        while branch.sent:
            self._release(branch, branch.sent.popleft())

    def _release(self, branch: _Branch, sent: Sent) -> None:
        node = sent.leaf
        sent.leaf = sent.before = None
        sent.breakpoints = ()
        while node is not None and node.parent is not None:
            node.refs -= 1
            if node.refs > 0:
                return
            self._table.pop(node.key, None)
            self._runs.clear()
            branch.nodes -= 1
            node.last = None
            node.entry = None
            info = node.info
            if info is not None:
                info.refs -= 1
                if not info.refs:
                    self._infos.pop(info.key, None)
                    if self._remembered is not None:
                        self._remembered.drop(info)
            node = node.parent


def _leading_key(prompt: Prompt, nodes: list[Node]) -> int:
    """Names everything in front of the messages."""
    runs = prompt.segments.runs
    end = runs[0].start if runs else len(nodes)
    for index in range(end):
        if prompt.segments[index].section is Section.MESSAGES:
            end = index
            break
    return nodes[end - 1].key if end else 0


def _rate(sent: deque[Sent], now: float, most: int) -> int:
    """Requests of a scope in the minute before, counted no further than ``most``."""
    return sum(
        1 for _ in itertools.takewhile(lambda one: now - one.at < MINUTE, itertools.islice(reversed(sent), most))
    )


def _print(run: Run, length: int) -> int:
    """Process-local hash of the first messages of a run. Strings remember theirs: nothing is read again."""
    if length > len(run.texts):
        return 0
    return hash((tuple(run.roles[:length]), tuple(run.texts[:length])))


def _place_entries(prompt: Prompt, nodes: list[Node], now: float) -> tuple[tuple[Node, int], ...]:
    """Notes an entry at each breakpoint that has no living one; returns the places with their lifetimes."""
    places = tuple(
        (nodes[place.length - 1], place.ttl) for place in prompt.breakpoints if 0 < place.length <= len(nodes)
    )
    for node, ttl in places:
        if node.entry is None or not node.entry.alive(now):
            node.entry = Entry(ttl, now)
    return places


def _withdraw(sight: Sight) -> None:
    """Takes back what was assumed of a request that failed before its response began: it left nothing to read."""
    sent = sight.sent
    for node, _ in sent.breakpoints:
        if node.entry is not None and node.entry.used == sent.at and not node.entry.readable:
            node.entry = None
    for node in sight.nodes:
        if node.last is sent:
            node.last = sight.previous if node.length <= sight.shared else None


def _simulate(sight: Sight, prompt: Prompt, rules: Rules, now: float) -> None:
    """Fills in what this request may read, by the rules, from what earlier ones left."""
    if rules.matching is Matching.PREFIX:
        _simulate_prefix(sight, prompt, rules, now)
        return
    for window in windows(prompt, rules):
        _search(sight, window, now)
    if sight.previous is not None:
        # What the newest request with this prefix marked, but no window reached.
        for node, _ in sight.previous.breakpoints:
            if sight.live < node.length <= sight.shared and node.entry is not None and prompt.breakpoints:
                if not node.entry.alive(now):
                    sight.expired = max(sight.expired, node.length)
                elif node.entry.readable:
                    sight.beyond = max(sight.beyond, node.length)


def _search(sight: Sight, window: Iterator[int], now: float) -> None:
    """Follows one search to the first entry that can be read."""
    for length in window:
        entry = sight.nodes[length - 1].entry if length <= sight.shared else None
        if entry is None:
            continue
        if not entry.alive(now):
            sight.expired = max(sight.expired, length)
        elif not entry.readable:
            sight.pending = max(sight.pending, length)
        else:
            sight.live = max(sight.live, length)
            return


def _simulate_prefix(sight: Sight, prompt: Prompt, rules: Rules, now: float) -> None:
    ttl = prompt.retention or rules.ttl
    for length in range(sight.shared, 0, -1):
        last = sight.nodes[length - 1].last
        if last is None:
            continue
        if not last.readable and last.before is not None and length <= last.shared:
            last = last.before
        if now - last.at > ttl:
            sight.expired = max(sight.expired, length)
        elif not last.readable:
            sight.pending = max(sight.pending, length)
        else:
            sight.live = length
            break
