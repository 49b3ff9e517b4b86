"""What each reason and cause means to the person who has to act, from the tables beside this module.

``semconv`` has the sentence for a dashboard; here is the page: what happened, how it is known, code before and after
on the SDKs, and how to see that it is gone. The documentation and ``otel-promptcache explain`` print the same.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from otel_promptcache.semconv import Cause, Reason

_TABLES: Final[Mapping[type, str]] = {Reason: "explanations_reasons.toml", Cause: "explanations_causes.toml"}


class Explanation(NamedTuple):
    """One entry. ``before`` and ``after`` are Python; empty where no code of the application can change it."""

    happened: str
    known: str
    verify: str
    before: str = ""
    after: str = ""


@cache
def table(kind: type[Reason | Cause]) -> Mapping[str, Explanation]:
    """All entries of a kind, by value."""
    text = files(__package__).joinpath(_TABLES[kind]).read_text(encoding="utf-8")
    return {
        name: Explanation(**{key: value.strip("\n") for key, value in entry.items()})
        for name, entry in tomllib.loads(text).items()
    }


def of(what: Reason | Cause) -> Explanation:
    """The entry of one reason or cause."""
    return table(type(what))[what.value]
