"""Files that a command is given."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from otel_promptcache.analysis.ledger import Reading


@contextmanager
def opened(names: Sequence[str]) -> Iterator[Iterable[str]]:
    """The lines of several files as one; a byte that is no UTF-8 spoils its line only."""

    def lines() -> Iterator[str]:
        for name in names:
            if name == "-":
                yield from sys.stdin
                continue
            handle: IO[str]
            with (
                gzip.open(name, "rt", encoding="utf-8", errors="replace")
                if name.endswith(".gz")
                else open(name, encoding="utf-8", errors="replace")
            ) as handle:
                yield from handle

    yield lines()


def newer(reading: Reading) -> str:
    """What to add where events of a ledger were passed over, because a version wrote them that means something else."""
    count = reading.of_another_schema
    return f" ({count:,} of a version of otel-promptcache that this one cannot read)" if count else ""
