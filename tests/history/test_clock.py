"""Workers whose clocks differ, by the server's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from history.test_fleet import QUESTION, SYSTEM, body, read, wrote
from history.workers import Worker
from hypothesis import given
from hypothesis import strategies as st

from otel_promptcache.history.clock import HOLDS, Offset
from otel_promptcache.history.redis import Server
from otel_promptcache.model import Diagnosis, Usage
from otel_promptcache.semconv import Reason, Status

if TYPE_CHECKING:
    from servers.valkey import Running


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0.0001, 0.5), st.floats(0.0, 1.0)), min_size=1, max_size=20),
)
def test_no_estimate_is_farther_off_than_the_quickest_answer_was_under_way(
    ahead: float, answers: list[tuple[float, float]]
) -> None:
    """Wherever on the way there and back the server read its clock."""
    offset = Offset()
    for number, (took, share) in enumerate(answers):
        asked = 1e9 + number
        offset.heard(asked + took * share + ahead, asked, took, float(number))
    quickest = min(took for took, _ in answers)
    assert abs(offset.seconds - ahead) <= quickest + 0.001


def test_clocks_that_agree_are_left_alone() -> None:
    offset = Offset()
    offset.heard(100.004, 100.0, 0.01, 0.0)
    assert offset.seconds == 0.0


def test_a_clock_that_is_set_is_believed_at_once() -> None:
    """A slow answer that contradicts a quick one: no clock is where it was."""
    offset = Offset()
    offset.heard(1000.0005, 1000.0, 0.001, 0.0)
    offset.heard(1310.1, 1010.0, 0.2, 10.0)
    assert offset.seconds == pytest.approx(300.0, abs=0.2)


def test_what_was_heard_long_ago_does_not_bind() -> None:
    offset = Offset()
    offset.heard(1000.0, 1000.0, 0.001, 0.0)
    assert not offset.known(HOLDS)
    offset.heard(2000.02, 2000.0, 0.1, 2 * HOLDS)
    assert offset.known(2 * HOLDS)


# --- Workers --------------------------------------------------------------------------------------------------


class Skewed:
    """A worker whose clock is wrong, beside a server whose clock is right."""

    def __init__(self, url: str, seconds: float) -> None:
        self.clock: Callable[[], float] = lambda: time.time() + seconds
        self.worker = Worker(url, server=Server(url, timeout=60.0, clock=self.clock))

    def call(self, usage: Usage) -> Diagnosis:
        sent = self.worker.send("anthropic", body(SYSTEM, QUESTION), self.clock())
        self.worker.begin(sent, self.clock())
        return self.worker.end(sent, usage, self.clock())


@pytest.mark.parametrize("ahead", [-400.0, 400.0, -7200.0, 7200.0])
def test_a_worker_whose_clock_is_wrong(shared_server: Running, ahead: float) -> None:
    """From its first call on: nothing expires early, nothing lives on, and nobody is asked from the future."""
    right, wrong = Skewed(shared_server.url, 0.0), Skewed(shared_server.url, ahead)
    assert wrong.call(wrote(2000)).status is Status.COLD
    assert right.call(read(2000, 2000)).status is Status.HIT
    assert wrong.call(read(2000, 2000)).status is Status.HIT
    missed = [right.call(wrote(2000)), wrong.call(wrote(2000))]
    # Within two seconds of the first answer; an entry that is there and was read before was evicted.
    assert {one.reason for one in missed} <= {Reason.PROVIDER_EVICTED, Reason.WRITE_NOT_VISIBLE}
    assert all(one.evidence is not None and 0 <= (one.evidence.gap or 0) < 60 for one in missed)


@pytest.mark.parametrize("ahead", [0.0, 90.0])
def test_a_clock_that_is_set_while_a_call_is_on_its_way(shared_server: Running, ahead: float) -> None:
    """The end of a call is not told as of before its beginning. It was a minute ago: the other worker knows what time
    it is from one answer, which may have been slow."""
    skew = 0.0
    server = Server(shared_server.url, timeout=60.0, clock=lambda: time.time() + skew)
    worker = Worker(shared_server.url, server=server)
    sent = worker.send("anthropic", body(SYSTEM, QUESTION), time.time() - 60)
    skew = -500.0
    worker.begin(sent, time.time() - 60 + skew)
    worker.end(sent, wrote(2000), time.time() - 60 + skew)
    other = Skewed(shared_server.url, ahead)
    assert other.call(wrote(2000)).reason is Reason.PROVIDER_EVICTED  # and not that the first answer has yet to begin
    assert other.call(read(2000, 2000)).expected == 2000


def test_a_user_who_may_not_ask_for_the_time(shared_server: Running) -> None:
    """It is counted; the worker's own clock is taken."""
    client = shared_server.client
    client.execute_command("ACL", "SETUSER", "timeless", "on", ">secret", "~*", "+@all", "-time")
    try:
        server = Server(shared_server.url.replace("redis://", "redis://timeless:secret@"), timeout=60.0)
        worker = Worker(shared_server.url, server=server)
        sent = worker.send("anthropic", body(SYSTEM, QUESTION), time.time())
        assert worker.end(sent, wrote(2000), time.time()).status is Status.COLD
        assert worker.fleet.troubles["NoPermissionError"] > 0
        assert server.ahead() == 0.0
    finally:
        client.execute_command("ACL", "DELUSER", "timeless")
