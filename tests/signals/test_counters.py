"""What is counted later is counted once, whoever comes first."""

from __future__ import annotations

from collections.abc import Callable

from otel_promptcache.telemetry.counters import Pending


class Clerk:
    """Remembers what was counted, and the jobs it was asked to do."""

    def __init__(self, *, comes: bool = True) -> None:
        self.counted: list[int] = []
        self.jobs: list[Callable[[], None]] = []
        self.errors = 0
        self._comes = comes

    def count(self, number: int) -> None:
        if number < 0:
            raise ValueError(number)
        self.counted.append(number)

    def later(self, job: Callable[[], None]) -> bool:
        self.jobs.append(job)
        return self._comes

    def trouble(self) -> None:
        self.errors += 1

    def pending(self, capacity: int = 4) -> Pending:
        made = Pending(self.trouble, capacity)
        made.later = self.later
        return made


def test_nothing_is_counted_before_somebody_asks() -> None:
    """A collection counts all that waits, in order, and once."""
    clerk = Clerk()
    pending = clerk.pending()
    for number in range(3):
        pending.add(clerk.count, number)
    assert (clerk.counted, clerk.jobs) == ([], [])
    pending.flush()
    pending.flush()
    assert clerk.counted == [0, 1, 2]


def test_another_thread_is_asked_once_when_many_wait() -> None:
    """And what it has not done by twice as many is done at once: memory is bounded, whoever sleeps."""
    clerk = Clerk()
    pending = clerk.pending()
    for number in range(7):
        pending.add(clerk.count, number)
    assert (clerk.counted, len(clerk.jobs)) == ([], 1)
    pending.add(clerk.count, 7)
    assert clerk.counted == list(range(8))
    clerk.jobs[0]()
    assert clerk.counted == list(range(8))


def test_where_nobody_can_be_asked() -> None:
    """No worker, or one whose queue is full: it is done at once."""
    clerk = Clerk(comes=False)
    pending = clerk.pending()
    for number in range(4):
        pending.add(clerk.count, number)
    assert clerk.counted == [0, 1, 2, 3]


def test_one_that_cannot_be_counted() -> None:
    """Is an error of ours; the others are counted."""
    clerk = Clerk()
    pending = clerk.pending()
    for number in (1, -1, 2):
        pending.add(clerk.count, number)
    pending.flush()
    assert (clerk.counted, clerk.errors) == ([1, 2], 1)


def test_a_child_counts_nothing_of_its_parent() -> None:
    """What waits at a fork is the parent's to count."""
    clerk = Clerk()
    pending = clerk.pending()
    pending.add(clerk.count, 1)
    pending.clear()
    pending.flush()
    assert clerk.counted == []
