"""Everything that is counted for one meter provider."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from otel_promptcache._fork import after_fork_in_child
from otel_promptcache.telemetry.counters import Limiter, Pending, Table
from otel_promptcache.telemetry.limits import Limits


class Book:
    """The counts and the instruments they are read by. A counter must not fall: they outlive whoever counts."""

    def __init__(self) -> None:
        self.table = Table()
        self.pending = Pending(lambda: self.table.add_error("metrics"))
        self.limiter = Limiter()
        self.limits = Limits()
        self.sweep: Callable[[], None] = lambda: None
        """Called before counters are read, so that writes that ran out since are in them."""
        self.whoami: dict[str, Any] = {}
        """Version and key of whoever counts."""
        self.instruments: WeakSet[Any] = WeakSet()
        after_fork_in_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked child: what happened before the fork is exported by the parent."""
        self.table.clear()
        self.pending.clear()
        self.limiter.clear()
        self.limits.clear()
        for instrument in self.instruments:
            _forget_points(instrument)
            _free_locks(instrument)


def _forget_points(instrument: Any) -> None:
    """Drops what the SDK remembers of an instrument. It would take our fresh counts off those before the fork (delta
    temporality), and export the parent's histograms once more. It has no public way to say so; without this, as many
    counts are wrong as calls were made before the fork."""
    with contextlib.suppress(Exception):
        real = getattr(instrument, "_real_instrument", None) or instrument
        for storage in real._measurement_consumer._reader_storages.values():  # noqa: SLF001
            storage._instrument_view_instrument_matches.pop(real, None)  # noqa: SLF001


def _free_locks(instrument: Any) -> None:
    """Frees what an export that was under way at the fork holds: there is nobody in the child to give it back, and its
    own metrics would wait for that. The SDK does so for spans and logs."""
    with contextlib.suppress(Exception):
        real = getattr(instrument, "_real_instrument", None) or instrument
        consumer = real._measurement_consumer  # noqa: SLF001
        for holder in (consumer, *consumer._reader_storages, *consumer._reader_storages.values()):  # noqa: SLF001
            for name in ("_lock", "_export_lock"):
                if hasattr(holder, name):
                    getattr(holder, name)._at_fork_reinit()  # noqa: SLF001


_books: Final[WeakKeyDictionary[Any, Book]] = WeakKeyDictionary()
_global = Book()
"""Of whatever meter provider is the global one."""


def book_of(provider: object | None) -> Book:
    """The book of a meter provider, None for the global one. Asked twice it is the same: an SDK takes the callbacks
    of an instrument once, and never lets go of them."""
    if provider is None:
        return _global
    try:
        book = _books.get(provider)
        if book is None:
            book = _books[provider] = Book()
    except TypeError:  # neither hashable nor weakly referenced
        return Book()
    return book
