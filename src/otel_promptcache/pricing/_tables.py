"""The tables of a price file: which keys each has, and what each key takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Final

HOUR: Final = 3600
MAX_BITS: Final = 64
MAX_DIGITS: Final = 40
PRICES: Final = ("input", "read", "write", "write_1h", "write_12h", "output", "search", "storage")
"""USD a million tokens; ``search`` a thousand searches, ``storage`` a million tokens and hour."""
PROCESSINGS: Final = ("batch", "flex", "priority", "fast")
LIFETIMES: Final[dict[str, int]] = {"5m": 300, "30m": 1800, "1h": HOUR, "12h": 12 * HOUR, "24h": 24 * HOUR}
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class WrongError(ValueError):
    """A value that a key does not take."""


@dataclass(frozen=True, slots=True)
class Band:
    """A price by prompt size: a whole request pays the price of the highest band that it exceeds."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()

    def at(self, tokens: int) -> Decimal:
        price = self.base
        for start, tier in self.tiers:
            if tokens > start:
                price = tier
        return price


def _number(value: object, least: str, most: str, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise WrongError(what)
    # To make a decimal of an integer of a million digits takes a minute, in which no other thread runs.
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise WrongError(what)
    if isinstance(value, Decimal) and len(value.as_tuple().digits) > MAX_DIGITS:
        raise WrongError(what)
    number = Decimal(value)
    if not number.is_finite() or not Decimal(least) <= number <= Decimal(most):
        raise WrongError(what)
    return number


def _usd(value: object) -> Decimal:
    return _number(value, "0", "1000000", "takes USD a million tokens, 0 to 1000000")


def _price(value: object) -> Band:
    if not isinstance(value, dict):
        return Band(_usd(value))
    what = "takes USD, or prices by prompt size as { 0 = 2, 272000 = 4 }"
    sizes: dict[int, Decimal] = {}
    for size, usd in value.items():
        if not re.fullmatch(r"\d[\d_]{0,12}", size):
            raise WrongError(what)
        sizes[int(size)] = _usd(usd)
    if 0 not in sizes:
        raise WrongError(what)
    return Band(sizes.pop(0), tuple(sorted(sizes.items())))


def _factor(value: object) -> Decimal:
    return _number(value, "0", "1000", "takes a factor from 0 to 1000")


def _percent(value: object) -> Decimal:
    return _number(value, "0", "100", "takes a percentage from 0 to 100")


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 256:
        raise WrongError("takes a name")
    return value.strip()


def _names(value: object) -> tuple[str, ...]:
    found = tuple(_name(one) for one in (value if isinstance(value, list) else [value]))
    if not found:
        raise WrongError("takes a name, or a list of names")
    return found


def _moment(value: object) -> float:
    what = "takes a date, or a date and time on the full hour; UTC where it names no zone"
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    elif isinstance(value, date):
        moment = datetime.combine(value, time(), UTC)
    else:
        raise WrongError(what)
    hours = moment.timestamp() / HOUR
    if hours != int(hours):
        raise WrongError(what)
    return hours


def _ttl(value: object) -> int:
    if not isinstance(value, str) or value not in LIFETIMES:
        raise WrongError(f"takes one of {', '.join(LIFETIMES)}")
    return LIFETIMES[value]


def _weekdays(value: object) -> frozenset[int]:
    if not isinstance(value, list) or not all(isinstance(day, str) and day in WEEKDAYS for day in value):
        raise WrongError(f"takes a list of {', '.join(WEEKDAYS)}")
    return frozenset(WEEKDAYS.index(day) for day in value)


def _dates(value: object) -> frozenset[date]:
    if not isinstance(value, list) or not all(isinstance(day, date) and not isinstance(day, datetime) for day in value):
        raise WrongError("takes a list of dates")
    return frozenset(value)


def _hour(value: object) -> int:
    return int(_number(value, "0", "23", "takes an hour of the day, 0 to 23"))


def _note(value: object) -> str:
    if not isinstance(value, str):
        raise WrongError("takes a text")
    return value


# --- Tables and their keys ----------------------------------------------------------------------------------

_Check = Callable[[object], object]
_WHEN: Final[dict[str, _Check]] = {"from": _moment, "until": _moment, "note": _note}
_WHOSE: Final[dict[str, _Check]] = {"provider": _name, "model": _names, "account": _name, "upstream": _name, **_WHEN}

TABLES: Final[dict[str, tuple[dict[str, _Check], tuple[str, ...]]]] = {
    # Table: its keys with what checks them, and those that must be there.
    "price": (
        {**_WHOSE, **dict.fromkeys(PRICES, _price), **dict.fromkeys(PROCESSINGS, _factor)},
        ("provider", "model"),
    ),
    "write": ({**_WHOSE, "ttl": _ttl, "times": _factor}, ("provider", "ttl", "times")),
    "discount": ({**_WHOSE, "percent": _percent}, ("provider", "percent")),
    "surcharge": ({**_WHOSE, "percent": _percent, "geo": _name}, ("provider", "percent")),
    "off_peak": (
        {"provider": _name, **_WHEN, "weekdays": _weekdays, "dates": _dates, "hour": _hour},
        ("provider", "hour"),
    ),
}
