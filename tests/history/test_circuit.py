"""When a server that does not answer is asked again."""

from __future__ import annotations

from otel_promptcache.observer.shared import FAILURES, PAUSES, Circuit


def test_one_call_tries_and_nobody_else_waits_for_it() -> None:
    now = 0.0
    circuit = Circuit(lambda: now)
    assert [circuit.failed() for _ in range(FAILURES)] == [False, False, True]
    for pause in (*PAUSES, PAUSES[-1]):
        assert not circuit.admits()
        assert not circuit.closed
        now += pause
        assert [circuit.admits() for _ in range(3)] == [True, False, False]
        assert circuit.closed  # for the one that was admitted
        circuit.failed()
    now += PAUSES[-1]
    assert circuit.admits()
    assert circuit.answered()
    assert all(circuit.admits() for _ in range(3))


def test_a_trial_that_never_came_to_be_is_made_up_for() -> None:
    """Its place in the queue may have been taken."""
    now = 0.0
    circuit = Circuit(lambda: now)
    for _ in range(FAILURES):
        circuit.failed()
    now += PAUSES[0]
    assert circuit.admits()
    now += PAUSES[0]
    assert circuit.admits()
