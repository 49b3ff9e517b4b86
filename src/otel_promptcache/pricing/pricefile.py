"""Price files: private models, corrections, discounts and surcharges, as rows of a TOML file.

Our own corrections of the price data are such a file (``corrections.toml``, beside this module), and so is what
``OTEL_PROMPTCACHE_PRICE_FILE`` names; ``docs/money.md`` shows one. A file is taken as a whole or not at all: half of a
contract is a wrong bill that nobody notices. What is wrong with it is said for each row, with file, line and key.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, Final, NamedTuple

from otel_promptcache.pricing._tables import PRICES, PROCESSINGS, TABLES, Band, WrongError

MAX_BYTES: Final = 2**20
"""Some ten thousand prices. A file is read while the application serves, and larger ones take seconds."""
MAX_PROBLEMS: Final = 20

_ALWAYS: Final = (float("-inf"), float("inf"))


class PriceFileError(ValueError):
    """A price file that cannot be used. One sentence for each thing that is wrong, each with file, line and key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Asked(NamedTuple):
    """What a price is asked for: everything that it may depend on but the size of the prompt."""

    provider: str
    listed_as: str
    """The provider's id in the price data; rows may name it by either."""
    model: str
    tier: str
    speed: str
    processing: str
    geo: str
    account: str
    upstream: str
    hour: int
    """Hours since the epoch."""

    @property
    def processings(self) -> tuple[str, ...]:
        """The kinds of processing in force that change prices."""
        said = (self.processing, self.tier, self.speed)
        return tuple(name for name in PROCESSINGS if name in said)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: whom it is for, when, and what it says."""

    table: str
    line: int
    provider: str
    models: tuple[str, ...] = ()
    """Names, a ``*`` for anything; none of them is all."""
    account: str = ""
    upstream: str = ""
    geo: str = ""
    start: float = _ALWAYS[0]
    stop: float = _ALWAYS[1]
    """Hours since the epoch, the end exclusive."""
    prices: Mapping[str, Band] = field(default_factory=dict)
    factors: Mapping[str, Decimal] = field(default_factory=dict)
    """Of a kind of processing; of ``percent`` as what remains to be paid; ``times`` the input price."""
    ttl: int = 0
    weekdays: frozenset[int] = frozenset()
    dates: frozenset[date] = frozenset()
    hour: int = 0

    def holds(self, asked: Asked) -> int | None:
        """How closely it fits what is asked for, None where it does not."""
        if (
            not self.start <= asked.hour < self.stop
            or (self.account and self.account != asked.account)
            or (self.upstream and self.upstream != asked.upstream)
            or (self.geo and self.geo != asked.geo)
        ):
            return None
        named = 0
        if self.models:
            fitting = [_closeness(name) for name in self.models if _fits(name, asked.model)]
            if not fitting:
                return None
            named = max(fitting)
        return 8000 * bool(self.account) + 4000 * bool(self.upstream) + 2000 * bool(self.geo) + named


def _fits(name: str, model: str) -> bool:
    return fnmatchcase(model, name) if "*" in name else name == model


def _closeness(name: str) -> int:
    return min(len(name), 999) if "*" in name else 1000


@dataclass(frozen=True, slots=True)
class PriceFile:
    """The rows of a file that is right."""

    name: str
    """How costs name it: ``prices.toml 3f2a91c0``."""
    rows: tuple[Row, ...] = ()
    by_provider: Mapping[tuple[str, str], tuple[Row, ...]] = field(default_factory=dict)

    def fitting(self, table: str, asked: Asked) -> list[Row]:
        """The rows of a table that hold for this, the closest last."""
        found = [
            (closeness, row)
            for provider in dict.fromkeys((asked.listed_as, asked.provider))
            for row in self.by_provider.get((table, provider), ())
            if (closeness := row.holds(asked)) is not None
        ]
        return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def read(path: str) -> PriceFile:
    """The file at a path. Raises PriceFileError, and OSError where it cannot be opened."""
    name = os.path.basename(path)
    with open(path, "rb") as handle:
        raw = handle.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise PriceFileError([f"{name}: takes at most {MAX_BYTES // 2**20} MiB, some ten thousand prices"])
    return parse(raw, name)


def parse(raw: bytes, name: str) -> PriceFile:
    """A price file from its bytes. Raises PriceFileError."""
    try:
        text = raw.decode("utf-8-sig")
        document = tomllib.loads(text, parse_float=Decimal)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PriceFileError([f"{name}:{line}: it is no UTF-8"]) from None
    except ValueError as error:  # the parser's own, and what numbers of thousands of digits come to
        raise PriceFileError([f"{name}: it is no TOML: {_without_content(error)}"]) from None
    except RecursionError:
        raise PriceFileError([f"{name}: it is nested too deep"]) from None
    return _Reading(name, text).file(document, hashlib.sha256(raw).hexdigest()[:8])


def _without_content(error: Exception) -> str:
    """Where the parser stopped, without what it may quote of the file."""
    place = re.search(r"at line (\d+), column (\d+)|at end of document", str(error))
    return place[0] if place else "the parser does not say where"


def _unknown(table: str) -> Callable[[object], object]:
    def refuse(_: object) -> object:
        raise WrongError(f"is no key of [[{table}]]; known are {', '.join(TABLES[table][0])}")

    return refuse


class _Reading:
    """One pass over a parsed file, with what is wrong in it."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._places: dict[tuple[str, int, str], int] | None = None
        self._problems: list[str] = []
        self._more = 0

    def file(self, document: Mapping[str, Any], digest: str) -> PriceFile:
        rows: list[Row] = []
        version = document.get("version")
        if version is not None and not (isinstance(version, str) and 0 < len(version) <= 64):
            self._wrong("", 0, "version", "takes a text of at most 64 characters")
        for table, content in document.items():
            if table == "version":
                continue
            if table not in TABLES:
                self._wrong("", 0, table, f"is no table; known are {', '.join(f'[[{name}]]' for name in TABLES)}")
            elif not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
                self._wrong("", 0, table, f"takes rows, each under a [[{table}]]")
            else:
                rows += [row for at, raw in enumerate(content) if (row := self._row(table, at, raw)) is not None]
        self._overlaps(rows)
        if self._problems:
            if self._more:
                self._problems.append(f"{self._name}: and {self._more} more like these")
            raise PriceFileError(self._problems)
        grouped: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            grouped[row.table, row.provider].append(row)
        named = f"{self._name} {version or digest}"
        return PriceFile(named, tuple(rows), {key: tuple(some) for key, some in grouped.items()})

    def _row(self, table: str, at: int, raw: Mapping[str, object]) -> Row | None:
        keys, needed = TABLES[table]
        found: dict[str, Any] = {}
        right = True
        for key, value in raw.items():
            try:
                found[key] = keys.get(key, _unknown(table))(value)
            except WrongError as error:
                self._wrong(table, at, key, str(error))
                right = False
        for key in needed:
            if key not in raw:
                self._wrong(table, at, key, "is missing")
                right = False
        start, stop = found.get("from", _ALWAYS[0]), found.get("until", _ALWAYS[1])
        if right and start >= stop:
            self._wrong(table, at, "until", "must be later than from")
            right = False
        if table == "price" and right and not any(name in found for name in PRICES):
            self._wrong(table, at, "input", f"is missing: a price names at least one of {', '.join(PRICES)}")
            right = False
        return self._made(table, at, found, start, stop) if right else None

    def _made(self, table: str, at: int, found: dict[str, Any], start: float, stop: float) -> Row:
        factors: dict[str, Decimal] = {name: found[name] for name in (*PROCESSINGS, "times") if name in found}
        if "percent" in found:
            share = found["percent"] / 100
            factors["percent"] = 1 - share if table == "discount" else 1 + share
        return Row(
            table,
            self._line(table, at, ""),
            found["provider"],
            found.get("model", ()),
            found.get("account", ""),
            found.get("upstream", ""),
            found.get("geo", ""),
            start,
            stop,
            {name: found[name] for name in PRICES if name in found},
            factors,
            found.get("ttl", 0),
            found.get("weekdays", frozenset()),
            found.get("dates", frozenset()),
            found.get("hour", 0),
        )

    def _overlaps(self, rows: list[Row]) -> None:
        """Of two rows for the same at the same time nobody could say which one holds."""
        same: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in rows:
            for model in row.models or ("",):
                same[row.table, row.provider, model, row.account, row.upstream, row.geo, row.ttl].append(row)
        said: set[int] = set()
        for some in same.values():
            some.sort(key=lambda row: (row.start, row.line))
            for earlier, later in pairwise(some):
                if later.start < earlier.stop and later.line not in said:
                    said.add(later.line)
                    self._say(
                        f"{self._name}:{later.line}: [[{later.table}]] is for the same and at the same time as the row "
                        f"in line {earlier.line}"
                    )

    # --- saying it ------------------------------------------------------------------------------------------

    def _wrong(self, table: str, at: int, key: str, sentence: str) -> None:
        # The value is not repeated: what stands in the wrong place may be a secret.
        where = f"[[{table}]] {key}" if table else key
        self._say(f"{self._name}:{self._line(table, at, key)}: {where} {sentence}")

    def _say(self, problem: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(problem)
        else:
            self._more += 1

    def _line(self, table: str, at: int, key: str) -> int:
        """The line of a key of a row, of the row where the key is not there; 1 where nobody can tell."""
        if self._places is None:
            self._places = _places(self._text)
        places = self._places
        return places.get((table, at, key)) or places.get((table, at, "")) or places.get(("", 0, table)) or 1


_HEADER: Final = re.compile(r"\s*\[\[?\s*\"?([A-Za-z0-9_-]+)\"?\s*\]\]?")
_KEY: Final = re.compile(r"\s*\"?([A-Za-z0-9_-]+)\"?\s*=")
_QUOTED: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL
)
"""Texts and comments: what looks like a table or a key in there is none."""


def _places(text: str) -> dict[tuple[str, int, str], int]:
    """Lines by table, row of the table and key, for the parser of the standard library does not tell them."""
    found: dict[tuple[str, int, str], int] = {}
    counts: defaultdict[str, int] = defaultdict(int)
    table, at, depth = "", 0, 0
    shown = _QUOTED.sub(lambda quoted: "\n" * quoted[0].count("\n") or quoted[0], text).split("\n")
    bare = _QUOTED.sub(lambda quoted: "\n" * quoted[0].count("\n"), text).split("\n")
    for number, (line, marks) in enumerate(zip(shown, bare, strict=True), 1):
        if depth == 0:
            if header := _HEADER.match(line):
                table = header[1]
                at, counts[table] = counts[table], counts[table] + 1
                found.setdefault(("", 0, table), number)
                found[table, at, ""] = number
            elif key := _KEY.match(line):
                found.setdefault((table, at, key[1]), number)
        depth += marks.count("[") + marks.count("{") - marks.count("]") - marks.count("}")
    return found
