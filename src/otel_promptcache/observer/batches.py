"""Batches that this process submitted or read: who submitted them, and what has been counted already."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, ClassVar, Final, NamedTuple

from otel_promptcache._fork import after_fork_in_child

MAX_BATCHES: Final = 1_000


class NoItems:
    """What a call makes of what is told of the results of batches only."""

    __slots__ = ()

    items: ClassVar[bool] = False
    """Whether the body is a file of items rather than an answer."""

    def item(self, line: Mapping[str, Any]) -> None:
        """One line of such a file."""

    def later(self, job: Callable[[], None]) -> bool:
        """Has a file read that is there already; False where that has been done by now."""
        job()
        return False


class Submission(NamedTuple):
    """Where and when a batch was submitted: its items are the submitter's calls."""

    context: Context
    at: float
    """POSIX seconds."""


class _Batch:
    __slots__ = ("counted", "submission")

    def __init__(self) -> None:
        self.submission: Submission | None = None
        self.counted: set[int] = set()


class Batches:
    """The newest batches, by id. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: OrderedDict[str, _Batch] = OrderedDict()
        self._files: OrderedDict[str, str] = OrderedDict()
        after_fork_in_child(self._renew_lock)

    def _renew_lock(self) -> None:
        """Another thread may have held it when the process was copied."""
        self._lock = threading.Lock()

    def submitted(self, identity: str, submission: Submission) -> None:
        with self._lock:
            self._batch(identity).submission = submission

    def wrote(self, file: str, identity: str) -> None:
        """Notes that a file has the results of a batch."""
        with self._lock:
            self._files[file] = identity
            if len(self._files) > MAX_BATCHES:
                self._files.popitem(last=False)

    def count(self, subject: str, custom_id: str) -> bool:
        """Whether an item is seen for the first time. ``subject``: the batch, or the file of its results."""
        with self._lock:
            counted = self._batch(self._files.get(subject, subject)).counted
            before = len(counted)
            counted.add(hash(custom_id))
            return len(counted) > before

    def submission(self, subject: str) -> Submission | None:
        """Who submitted it, None where that was another process."""
        with self._lock:
            return self._batch(self._files.get(subject, subject)).submission

    def _batch(self, identity: str) -> _Batch:
        batch = self._batches.get(identity)
        if batch is None:
            batch = self._batches[identity] = _Batch()
            if len(self._batches) > MAX_BATCHES:
                self._batches.popitem(last=False)
        else:
            self._batches.move_to_end(identity)
        return batch
