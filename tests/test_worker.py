"""One thread for what need not run on the caller's: in order, bounded, and never in anybody's way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from otel_promptcache.worker import Worker


class Held:
    """A job that waits until it is let go."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.free = threading.Event()

    def __call__(self) -> None:
        self.started.set()
        assert self.free.wait(30)


@pytest.fixture
def held() -> Iterator[Held]:
    job = Held()
    yield job
    job.free.set()


@pytest.fixture
def errors() -> list[Exception]:
    return []


@pytest.fixture
def worker(errors: list[Exception]) -> Worker:
    return Worker(errors.append, capacity=10)


def test_jobs_run_in_order(worker: Worker, held: Held) -> None:
    """On a thread of its own, as they came."""
    done: list[tuple[int, str]] = []
    worker.submit(held)
    assert held.started.wait(30)
    for number in range(10):
        worker.submit(lambda number=number: done.append((number, threading.current_thread().name)))  # type: ignore[misc]
    held.free.set()
    assert worker.flush(60) is True
    assert done == [(number, "otel-promptcache") for number in range(10)]


def test_no_thread_before_the_first_job(worker: Worker) -> None:
    """Importing and setting up starts nothing; the thread does not keep a process alive."""
    assert worker._thread is None
    worker.submit(lambda: None)
    assert worker._thread is not None
    assert worker._thread.daemon is True


def test_what_does_not_fit_is_dropped_and_counted(worker: Worker, held: Held) -> None:
    """The caller is told, and never waits."""
    done: list[int] = []
    worker.submit(held)
    assert held.started.wait(30)
    begun = monotonic()
    answers = [worker.submit(lambda number=number: done.append(number)) for number in range(15)]  # type: ignore[misc]
    assert monotonic() - begun < 20
    assert answers == [True] * 10 + [False] * 5
    assert worker.dropped == 5
    held.free.set()
    assert worker.flush(60) is True
    assert done == list(range(10))
    assert worker.submit(lambda: done.append(99)) is True


def test_errors_are_told_and_go_no_further(worker: Worker, errors: list[Exception]) -> None:
    """The next job runs."""
    done: list[str] = []

    def broken() -> None:
        raise LookupError("broken")

    for job in (broken, lambda: done.append("next"), broken, lambda: done.append("last")):
        worker.submit(job)
    assert worker.flush(60) is True
    assert [str(error) for error in errors] == ["broken", "broken"]
    assert done == ["next", "last"]


class TestFlush:
    """Waits until everything queued is done."""

    def test_nothing_to_do(self, worker: Worker) -> None:
        """At once, with or without a thread."""
        assert worker.flush(0) is True
        worker.submit(lambda: None)
        assert worker.flush(60) is True
        assert worker.flush(0) is True

    def test_not_longer_than_allowed(self, worker: Worker, held: Held) -> None:
        """A job that hangs does not hang an exit."""
        worker.submit(held)
        assert held.started.wait(30)
        begun = monotonic()
        assert worker.flush(0.1) is False
        assert 0.05 < monotonic() - begun < 20

    def test_also_for_the_job_that_runs(self, worker: Worker, held: Held) -> None:
        """An empty queue is not the end of the work."""
        worker.submit(held)
        assert held.started.wait(30)
        assert worker.flush(0.05) is False
        held.free.set()
        assert worker.flush(60) is True

    def test_a_job_that_was_queued_while_the_last_one_ended(self, worker: Worker, held: Held) -> None:
        """Between two steps of ``submit`` the thread may say that all is done; the job is waited for all the same."""
        first = Held()

        class Slow(deque[Callable[[], None]]):
            """A queue in which the second job arrives late."""

            def append(self, job: Callable[[], None], /) -> None:
                if job is held:
                    first.free.set()
                    assert worker._idle.wait(30)
                super().append(job)

        worker._jobs = Slow()
        worker.submit(first)
        assert first.started.wait(30)
        worker.submit(held)
        assert held.started.wait(30)
        assert worker.flush(0.05) is False

    def test_from_a_job(self, worker: Worker) -> None:
        """Which would wait for itself: it is told that there is more, or not."""
        answers: list[bool] = []
        worker.submit(lambda: answers.append(worker.flush()))
        assert worker.flush(60) is True
        assert answers == [True]

    def test_jobs_of_jobs(self, worker: Worker) -> None:
        """What a job queues is done too."""
        done: list[str] = []
        worker.submit(lambda: worker.submit(lambda: done.append("second")) and None)
        assert worker.flush(60) is True
        assert done == ["second"]


def test_many_callers(worker: Worker) -> None:
    """Nothing is done twice; what is lost is counted."""
    done: list[int] = []

    def submit(start: int) -> None:
        for number in range(start, start + 200):
            worker.submit(lambda number=number: done.append(number))  # type: ignore[misc]

    threads = [threading.Thread(target=submit, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worker.flush(60) is True
    assert len(done) == len(set(done))
    assert len(done) + worker.dropped >= 800
    for start in range(0, 4000, 1000):
        mine = [number for number in done if start <= number < start + 1000]
        assert mine == sorted(mine)


def test_no_thread_can_be_had(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very end of a process: the job is dropped and counted, and flushing does not wait."""

    def refuse(_: Any) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert worker.submit(lambda: None) is False
    assert worker.dropped == 1
    assert worker.flush() is True


def run(script: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    return done.stdout, done.stderr


AT_EXIT = """
import time
from otel_promptcache.worker import Worker
worker = Worker(print)
for number in range(3):
    worker.submit(lambda number=number: (time.sleep(0.02), print(number)))
"""


def test_what_is_queued_is_done_before_the_process_ends() -> None:
    """Without being asked to."""
    assert run(AT_EXIT) == ("0\n1\n2\n", "")


FORKED = """
import os, sys, threading
from otel_promptcache.worker import Worker
worker = Worker(print)
inside, free = threading.Event(), threading.Event()
worker.submit(lambda: (inside.set(), free.wait(30)))
inside.wait(30)
worker.submit(lambda: os.write(1, b"parent\\n"))
child = os.fork()
if child == 0:
    done = []
    assert worker.flush(0) is True
    assert worker.submit(lambda: done.append(os.getpid()))
    assert worker.flush(60) is True and done == [os.getpid()]
    os.write(1, b"child\\n")
    os._exit(0)
os.waitpid(child, 0)
free.set()
assert worker.flush(60) is True
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    """And an empty queue: what was queued before is done once, by the parent."""
    out, problems = run(FORKED)
    assert (sorted(out.split()), problems) == (["child", "parent"], "")


AT_EXIT_TOGETHER = """
import threading, time
from otel_promptcache import worker
worker.FLUSH_SECONDS = 0.5
workers = [worker.Worker(print) for _ in range(40)]
for one in workers:
    one.submit(threading.Event().wait)
import atexit
began = []
atexit.register(lambda: began.append(time.monotonic()))
atexit._run_exitfuncs()
print(time.monotonic() - began[0])
"""


def test_workers_that_hang_hold_up_an_exit_together() -> None:
    """As long as one of them, not one after the other: that would be 20 seconds."""
    out, problems = run(AT_EXIT_TOGETHER)
    assert problems == ""
    assert 0.4 < float(out) < 10
