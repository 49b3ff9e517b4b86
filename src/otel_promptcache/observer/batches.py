"""Batches that this process submitted or read: who submitted them, and what has been counted already."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.observer.recording import Origin

MAX_BATCHES: Final = 1_000
MAX_ITEMS: Final = 250_000
"""Items of all batches together whose results have not been read to the end."""


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

    origin: Origin
    at: float
    """POSIX seconds."""
    model: str = ""
    """Of a single response, as it was asked for."""


class _Batch:
    __slots__ = ("counted", "done", "submission")

    def __init__(self) -> None:
        self.submission: Submission | None = None
        self.counted: set[int] = set()
        self.done = False
        """Whether all of its items are counted."""


class Batches:
    """The newest batches, by id. Threads may share it."""

    def __init__(self, batches: int = MAX_BATCHES, items: int = MAX_ITEMS) -> None:
        self._max_batches, self._max_items = batches, items
        self._lock = threading.Lock()
        self._batches: OrderedDict[str, _Batch] = OrderedDict()
        self._files: OrderedDict[str, str] = OrderedDict()
        self._items = 0
        after_fork_in_child(self._renew_lock)

    def _renew_lock(self) -> None:
        """Another thread may have held it when the process was copied."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Items that are remembered."""
        return self._items

    def submitted(self, identity: str, submission: Submission) -> None:
        with self._lock:
            self._batch(identity).submission = submission

    def wrote(self, file: str, identity: str) -> None:
        """Notes that a file has the results of a batch."""
        with self._lock:
            known = self._files.get(file) == identity
            self._files[file] = identity
            if len(self._files) > self._max_batches:
                self._files.popitem(last=False)
            early = None if known else self._batches.pop(file, None)
            if early is not None:  # it was read before anybody knew whose it is
                batch = self._batch(identity)
                self._items -= len(early.counted & batch.counted)
                batch.counted |= early.counted
                if early.done:
                    batch.done = True
                    self._drop(batch)

    def count(self, subject: str, custom_id: str) -> bool:
        """Whether an item is seen for the first time. ``subject``: the batch, or the file of its results."""
        with self._lock:
            batch = self._batch(self._files.get(subject, subject))
            item = hash(custom_id)
            if batch.done or item in batch.counted:
                return False
            if self._items >= self._max_items:
                self._forget()
            batch.counted.add(item)
            self._items += 1
            return True

    def read(self, subject: str) -> None:
        """Notes that the results have been read to the end."""
        with self._lock:
            batch = self._batch(self._files.get(subject, subject))
            batch.done = True
            self._drop(batch)

    def submission(self, subject: str) -> Submission | None:
        """Who submitted it, None where that was another process."""
        with self._lock:
            return self._batch(self._files.get(subject, subject)).submission

    def _batch(self, identity: str) -> _Batch:
        batch = self._batches.get(identity)
        if batch is None:
            batch = self._batches[identity] = _Batch()
            if len(self._batches) > self._max_batches:
                self._drop(self._batches.popitem(last=False)[1])
        else:
            self._batches.move_to_end(identity)
        return batch

    def _forget(self) -> None:
        """Makes room: the items of the batch that nobody has looked at for longest."""
        self._drop(next(batch for batch in self._batches.values() if batch.counted))

    def _drop(self, batch: _Batch) -> None:
        self._items -= len(batch.counted)
        batch.counted = set()
