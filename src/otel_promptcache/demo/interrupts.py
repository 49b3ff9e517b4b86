"""Ctrl-C and SIGTERM: both end the demo with everything stopped that it has started."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def _in_charge() -> bool:
    """Only the main thread may say what signals do."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM unwind the program, as Ctrl-C does."""
    if not _in_charge():
        yield
        return

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def put_off() -> Iterator[None]:
    """Puts both signals off until the block is over: a process that is just being started must not be forgotten."""
    if not _in_charge():
        yield
        return
    waiting: list[int] = []

    def note(number: int, _frame: object) -> None:
        waiting.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
