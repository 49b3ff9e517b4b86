"""One daemon thread for what need not run on the caller's: line hashes, ledger events, loading prices.

The queue is bounded and never blocks: what does not fit is dropped and counted. A forked child starts its own
thread with an empty queue, because the parent still does what was queued before.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Final

from otel_promptcache._fork import after_fork_in_child

CAPACITY: Final = 4096
FLUSH_SECONDS: Final = 3.0
"""That what is queued is waited for, at most: milliseconds of work, on a machine that is busy."""
_over: list[float] = []
"""When the end of this process has waited long enough, once it has begun: for all workers together."""


class Worker:
    """Runs jobs in order. ``trouble(error)`` hears of jobs that raise."""

    def __init__(self, trouble: Callable[[Exception], None], capacity: int = CAPACITY) -> None:
        self._trouble = trouble
        self._capacity = capacity
        self.dropped = 0
        self._reset()
        after_fork_in_child(self._reset)
        self.flush_last()

    def _reset(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()  # the one thing that may be told while it is being told
        self._idle = threading.Event()
        self._idle.set()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def stop(self) -> None:
        """Does what is queued, then ends the thread."""
        atexit.unregister(self._at_exit)
        self.flush()
        self._stopping = True
        self._wake.put(None)

    def submit(self, job: Callable[[], None], limit: int | None = None) -> bool:
        """Queues a job; False when as many wait as ``limit`` or the queue allows, or when no thread can be had."""
        if len(self._jobs) >= (self._capacity if limit is None else limit):
            self.dropped += 1
            return False
        self._idle.clear()
        self._jobs.append(job)
        if self._thread is None and not self._start():
            self._jobs.clear()
            self._idle.set()
            self.dropped += 1
            return False
        self._rouse()
        return True

    def hand_over(self, job: Callable[[], None]) -> None:
        """Queues a job where no lock may be taken: a destructor runs wherever memory is asked for, also in the middle
        of ``submit``, with the lock of anything held. Never refused; starts no thread, see ``start``."""
        self._jobs.append(job)
        self._rouse()

    def _rouse(self) -> None:
        if self._wake.empty():
            self._wake.put(None)

    def start(self) -> None:
        """Makes sure that somebody does what is handed over."""
        if self._thread is None:
            self._start()

    def _start(self) -> bool:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="otel-promptcache", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is shutting down
                    return False
                self._thread = thread
        return True

    def _run(self) -> None:
        jobs, wake, idle = self._jobs, self._wake, self._idle
        while not self._stopping or jobs:
            wake.get()
            idle.clear()  # a job may have been queued just before we said that all was done
            while jobs:
                job = jobs.popleft()
                try:
                    job()
                except Exception as error:
                    self._trouble(error)
                del job
            idle.set()
            if jobs:  # something came between the last look and the word that all is done
                idle.clear()
                wake.put(None)

    def flush_last(self) -> None:
        """Has the queue emptied at exit before anything that is registered by now: exit handlers run backwards, and
        what is queued must be written before an SDK that was set up after us shuts down."""
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        if not _over:
            _over.append(monotonic() + FLUSH_SECONDS)
        self.flush(_over[0] - monotonic())

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Waits until everything queued is done, ``timeout`` seconds at most."""
        if self._jobs:
            self.start()
        if self._thread is None or not self._thread.is_alive() or threading.current_thread() is self._thread:
            return not self._jobs
        deadline = monotonic() + timeout
        while self._jobs or not self._idle.is_set():
            left = deadline - monotonic()
            if left <= 0:
                return False
            self._rouse()
            self._idle.wait(min(left, 0.05))
        return True
