"""The shared history beside the calls: asked on a thread of its own, waited for at the end of a call, and not for long.

A call loses nothing to a server that is slow, down, full, read-only or filled with something else: what does not come
in time does not come, and the answer of this process's own history stands.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from functools import cache
from time import monotonic
from typing import Any, Final, Protocol

from otel_promptcache._fork import after_fork_in_child
from otel_promptcache._version import __version__
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history import History, Sent, Sight, Write
from otel_promptcache.history.fleet import Caller, Fleet, Shared
from otel_promptcache.history.records import SCHEMA
from otel_promptcache.history.redis import Member, Server
from otel_promptcache.history.sharing import kept_for
from otel_promptcache.model import Prompt, Usage
from otel_promptcache.semconv import Lookup
from otel_promptcache.worker import FLUSH_SECONDS, Worker

log = logging.getLogger("otel_promptcache")

JOBS: Final = 512
"""Calls that wait to be asked about, at most: they hold their prompts."""
FAILURES: Final = 3
"""In a row, after which the server is left alone for a while."""
PAUSES: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds until it is tried again, with one call; the last holds from then on."""
ENROL_SECONDS: Final = 60.0
MAX_SAID: Final = 100
MAX_UNSURE: Final = 10_000
"""Writes that ran out and may have been read by others, at most."""
TOLD_WITHIN: Final = 60.0
"""Seconds after the end of an entry in which a worker may still tell that it was read: it does when its response is
over."""


class Counted(Protocol):
    """What is counted of all this."""

    def looked_up(self, outcome: Lookup) -> None: ...

    def key_mismatch(self) -> None:
        """Another worker has another hash key."""
        ...


class Circuit:
    """Leaves a server alone that does not answer, and tries again with one call at a time."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._again = 0.0
        self._trying = False

    def admits(self) -> bool:
        """Whether a call may be asked about: always while the server answers, else one after each pause. Nobody else
        waits while that one is tried."""
        if self._failures < FAILURES:
            return True
        now = self._clock()
        if now < self._again:
            return False
        self._trying, self._again = True, now + self._pause()  # without a lock: two may be tried, and no fork hangs
        return True

    @property
    def closed(self) -> bool:
        """Whether the server may be asked: while it answers, by the call that was admitted, and after each pause."""
        return self._failures < FAILURES or self._trying or self._clock() >= self._again

    def answered(self) -> bool:
        """The server has answered; whether it had not for a while."""
        back, self._failures, self._trying = self._failures >= FAILURES, 0, False
        return back

    def failed(self) -> bool:
        """It has not; whether it is left alone from now on."""
        self._failures += 1
        self._trying = False
        if self._failures >= FAILURES:
            self._again = self._clock() + self._pause()
        return self._failures == FAILURES

    def _pause(self) -> float:
        return PAUSES[min(self._failures - FAILURES, len(PAUSES) - 1)]


class Sharing:
    """The shared history of a process."""

    def __init__(
        self,
        server: Server,
        keys: Sequence[HashKey],
        history: History,
        trouble: Callable[[str, Exception], None],
        counted: Counted,
        *,
        lines: bool = False,
        name: Callable[[], str] = str,
    ) -> None:
        """``keys`` and ``lines``: see ``Fleet``. ``trouble(where, error)`` hears of what went wrong. ``name``: under
        which others may count too."""
        self._name = name
        self._server = server
        self._keys = keys
        self._fleet = Fleet(server, keys, lines=lines)
        self._history = history
        self._trouble = trouble
        self._counted = counted
        self._circuit = Circuit()
        self._worker = Worker(lambda error: trouble("shared", error))
        self._unsure: list[Write] = []
        """What ran out unread here, the concern of our thread alone."""
        self._due = float("inf")
        after_fork_in_child(self._after_fork)
        self._enrolled = 0.0
        self._said: set[tuple[tuple[str, ...], str, str]] = set()

    def _after_fork(self) -> None:
        # What was paid for belongs to the parent.
        self._unsure, self._due = [], float("inf")

    @property
    def keys(self) -> int:
        """How many keys the history is read under."""
        return len(self._keys)

    def credentials(self, secret: str) -> tuple[str, ...]:
        """A digest of an account's secret under each of the keys that are only read."""
        return tuple(key.token(secret) for key in self._keys[1:])

    def start(self) -> None:
        """Loads the library, so that the first call need not wait for it. Connects to nothing: we may yet be forked."""
        self._worker.submit(self._server.prepare)

    def ask(
        self, prompt: Prompt, sight: Sight, tenant: str, route: str, conversation: str, credentials: tuple[str, ...]
    ) -> Asking:
        """Starts asking about a request that was sent just now. Does not wait. ``credentials``: see ``Caller``."""
        asking = Asking(self)
        caller = Caller(tenant, route, conversation, credentials)
        if not self._circuit.admits() or not self._worker.submit(
            lambda: self._look(asking, prompt, sight, caller), JOBS
        ):
            # Line hashes are made in any case; if there is no room for that either, it was not to be.
            self._worker.submit(lambda: self._history.describe(prompt, sight), JOBS)
            asking.over(None, Lookup.SKIPPED)
        return asking

    def _look(self, asking: Asking, prompt: Prompt, sight: Sight, caller: Caller) -> None:
        try:
            self._history.describe(prompt, sight)
            asking.shared = self._attempt(lambda: self._fleet.look(prompt, sight, caller))
        finally:
            shared = asking.shared
            found = shared.sight if shared is not None else None
            asking.over(found, Lookup.ANSWERED if found is not None else Lookup.FAILED)
        self._enrol()

    def begun(self, asking: Asking, at: float) -> None:
        """The response of a stream has begun."""
        self._worker.submit(lambda: self._tell(asking, lambda shared: self._fleet.begun(shared, at)), JOBS)

    def ended(
        self, asking: Asking, at: float, sent: Sent, usage: Usage | None, response_id: str, write: Write | None
    ) -> None:
        """The response is over."""
        ended = self._fleet.ended
        self._worker.submit(
            lambda: self._tell(asking, lambda shared: ended(shared, at, sent, usage, response_id, write)), JOBS
        )

    def settle(self, expired: Sequence[Write], now: float, unread: Callable[[list[Write]], None]) -> None:
        """Takes writes that ran out unread here, and tells ``unread`` of those that no other worker has read either.
        Does not wait. What the shared history was not told of is not called a waste."""
        if expired or self._due <= now:
            self._worker.submit(lambda: self._settle(expired, now, unread), JOBS)

    def _settle(self, expired: Sequence[Write], now: float, unread: Callable[[list[Write]], None]) -> None:
        known = [*self._unsure, *(write for write in expired if write.marks)][-MAX_UNSURE:]
        due = [write for write in known if write.expires + TOLD_WITHIN <= now]
        self._unsure = [write for write in known if write.expires + TOLD_WITHIN > now]
        read = self._attempt(lambda: self._fleet.were_read(due)) if due else []
        if read is None:
            # Asked again, for as long as what was said of it must be there.
            self._unsure += [write for write in due if now < write.expires - write.ttl + kept_for(write.ttl)]
        elif due:
            unread([write for write, was in zip(due, read, strict=True) if not was])
        self._due = min((write.expires + TOLD_WITHIN for write in self._unsure), default=float("inf"))

    def _tell(self, asking: Asking, tell: Callable[[Shared], None]) -> None:
        shared = asking.shared
        if shared is not None:
            self._attempt(lambda: tell(shared))

    def _attempt(self, run: Callable[[], Any]) -> Any:
        """What ``run`` returns; None where the server has not answered, or is left alone."""
        if not self._circuit.closed:
            return None
        try:
            found = run()
        except Exception as error:
            self._trouble("shared", error)
            if self._circuit.failed():
                log.warning(
                    "otel-promptcache: the shared history does not answer (%s); each worker goes by its own until it "
                    "does. OTEL_PROMPTCACHE_HISTORY_URL names it, otel-promptcache doctor --fleet looks at it",
                    type(error).__name__,
                )
            return None
        if self._circuit.answered():
            log.warning("otel-promptcache: the shared history answers again")
        for kind, times in self._fleet.troubles.items():
            for _ in range(times):
                self._trouble("shared", _refused(kind))
        self._fleet.troubles.clear()
        return found

    def _enrol(self) -> None:
        """Says once a minute that this worker is here, and looks who else is."""
        now = monotonic()
        if now < self._enrolled:
            return
        self._enrolled = now + ENROL_SECONDS
        replies = self._attempt(self._told)
        own = self.member()
        members = replies[-1] if replies and isinstance(replies[-1], list) else []
        for said in members:
            name = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            member = Member.of(name)
            if member is None or member.reads(own) or len(self._said) >= MAX_SAID:
                continue
            worker = (member.keys, member.host, member.name)  # not its clock, which wanders
            if worker not in self._said:
                self._said.add(worker)
                self._counted.key_mismatch()
                log.warning(
                    "otel-promptcache: a worker on %s has another OTEL_PROMPTCACHE_HASH_KEY; neither recognises what "
                    "the other sends",
                    member.host,
                )

    def _told(self) -> list[Any]:
        clock = round(-self._server.ahead())
        return self._server.run(self._server.enrol(str(self.member(clock)), self._server.now))

    def member(self, clock: int = 0) -> Member:
        """What this worker says of itself; ``clock``: seconds that it is ahead."""
        return Member(
            tuple(key.id for key in self._keys), SCHEMA, __version__, socket.gethostname(), self._name(), clock
        )

    def counted(self, outcome: Lookup) -> None:
        self._counted.looked_up(outcome)

    def flush_last(self) -> None:
        self._worker.flush_last()

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Waits until all that was to be told has been told, for ``timeout`` seconds at most."""
        return self._worker.flush(timeout)

    def stop(self) -> None:
        """Tells what is left to tell, and lets go of the connection."""
        self._worker.stop()
        self._server.close()


@cache
def _refused(kind: str) -> Exception:
    """A command was refused, or a reply was no record. Its type's name is what is logged."""
    made: Exception = type(kind, (Exception,), {})()
    return made


class Asking:
    """One call's question. Told its answer on the thread of ``Sharing``, asked for it on the caller's."""

    __slots__ = ("_answer", "_done", "_given", "_outcome", "_sharing", "shared")

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._done = threading.Event()
        self._answer: Sight | None = None
        self._outcome = Lookup.LATE
        self._given: tuple[Sight | None] | None = None
        self.shared: Shared | None = None

    @property
    def ready(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._done.is_set() or self._given is not None

    def over(self, answer: Sight | None, outcome: Lookup) -> None:
        """The answer, or that there will be none."""
        self._answer, self._outcome = answer, outcome
        self._done.set()

    def sight(self, seconds: float) -> Sight | None:
        """What was known when the request was sent, waited for no longer than this, once; None where nobody said."""
        if self._given is None:
            self._done.wait(seconds)
            self._sharing.counted(self._outcome)
            self._given = (self._answer,)
        return self._given[0]

    def begun(self, at: float) -> None:
        self._sharing.begun(self, at)

    def ended(self, at: float, sent: Sent, usage: Usage | None, response_id: str, write: Write | None) -> None:
        self._sharing.ended(self, at, sent, usage, response_id, write)
