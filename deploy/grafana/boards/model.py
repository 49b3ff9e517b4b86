"""What a dashboard is made of: plain values, which say nothing of Grafana's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

QUERIES = Path(__file__).resolve().parents[2] / "queries" / "clickhouse"


class Look(Enum):
    """How a panel shows what it found."""

    FIGURE = auto()
    """One number for the time range, or a few."""
    LINES = auto()
    AREAS = auto()
    """Stacked: parts of a whole."""
    BARS = auto()
    """Stacked, one bar an interval: what can be counted or paid."""
    RANK = auto()
    """Horizontal bars, one a row, coloured by threshold."""
    TABLE = auto()
    HEATMAP = auto()
    SCATTER = auto()


class Colour(Enum):
    """Colours mean the same everywhere."""

    GOOD = "green"
    FAIR = "yellow"
    BAD = "red"
    WRITE = "orange"
    UNCACHED = "blue"
    OUTPUT = "purple"


@dataclass(frozen=True, kw_only=True)
class Prom:
    """A question to Prometheus."""

    ask: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, kw_only=True)
class Sql:
    """A question to ClickHouse: a file under ``deploy/queries/clickhouse``."""

    file: str

    @property
    def text(self) -> str:
        return (QUERIES / self.file).read_text()


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table: how it is called and what it is measured in; hidden where the name is empty."""

    name: str
    unit: str = ""
    links: tuple[tuple[str, str], ...] = ()
    """What a click offers, title and address; ``${__data.fields.x}`` is the row's own value."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One question and the way its answer is shown."""

    title: str
    why: str
    """What the answer means, and what to do with it."""
    look: Look
    asks: tuple[Prom | Sql, ...]
    unit: str = "short"
    width: int = 12
    height: int = 8
    decimals: int | None = None
    steps: tuple[tuple[float, Colour], ...] = ()
    """From which value on which colour; below the first it is the opposite end."""
    ceiling: float | None = None
    colours: tuple[tuple[str, Colour], ...] = ()
    """Of series, by legend."""
    columns: tuple[tuple[str, Column], ...] = ()
    """Of tables: by label, or ``Value #A`` for the figures of the first question."""
    sort: str = ""
    interval: str = "5m"
    """The least width of a bar."""
    over: tuple[str, ...] = ()
    """Legends that are drawn as a line over stacked parts."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A row of panels. What needs ClickHouse is folded, so that nothing fails where there is none."""

    title: str
    panels: tuple[Panel, ...]
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that happened, drawn through every graph."""

    name: str
    ask: Prom | Sql
    colour: str
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Board:
    """A dashboard: a few questions of one kind."""

    name: str
    """Part of the file's name and of the uid, which links rely on."""
    title: str
    why: str
    sections: tuple[Section, ...]
    since: str = "now-6h"
    marks: tuple[Mark, ...] = ()

    @property
    def uid(self) -> str:
        return f"promptcache-{self.name}"

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for section in self.sections for panel in section.panels)
