"""What a backend shows of a span, by the keys that it documents to read (``deploy/backends/*.yaml``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from genai_prices import Usage, calc_price

from backends.recording import Truth

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "backends"
TRANSFORMS = ROOT / "deploy" / "collector" / "backends"
CLASSES = ("input", "read", "write", "output")
CALL = ("model", "provider", "session")
TOKENS = ("input", "read", "write", "uncached", "output")


@dataclass(frozen=True)
class Shown:
    """What is to be seen of a call. ``None``: nothing."""

    input: int | None = None
    read: int | None = None
    write: int | None = None
    uncached: int | None = None
    output: int | None = None
    usd: float | None = None
    model: str = ""
    provider: str = ""
    session: str | None = None
    """``None`` where nothing says what is read."""

    def wrong(self, truth: Truth) -> set[str]:
        """The fields that are not as they should be. A count that nobody reported may be shown as none."""
        found = {name for name in TOKENS if (getattr(self, name) or 0) != (getattr(truth, name) or 0)}
        found |= {name for name in CALL if getattr(self, name) not in (None, getattr(truth, name))}
        if truth.usd is not None and (self.usd is None or abs(self.usd - truth.usd) > 1e-9):
            found.add("usd")
        return found


@dataclass(frozen=True)
class Backend:
    """A backend's documented mapping."""

    name: str
    title: str
    setting: str
    transform: str
    read_on: Any
    sources: Sequence[str]
    call: Mapping[str, Sequence[str]]
    tokens: Sequence[Mapping[str, Any]]
    usd: Sequence[str]
    priced: bool
    as_is: str
    stays: str
    counts: Mapping[str, str] = field(default_factory=dict)
    unlisted: str = "^$"

    def shows(self, span: Mapping[str, Any]) -> Shown:
        """Of a span with these attributes."""
        call = {name: _first(span, keys) or "" for name, keys in self.call.items()}
        if self.counts and not any(re.search(pattern, str(span.get(key))) for key, pattern in self.counts.items()):
            return Shown(**call)
        reading = next(one for one in self.tokens if "where" not in one or one["where"] in span)
        found = {name: _number(_first(span, reading[name])) for name in CLASSES}
        held = sum(found[name] or 0 for name in reading["within"])
        uncached = None if found["input"] is None else max(0, found["input"] - held)
        priced = _sum(uncached, found["read"], found["write"])
        beside = [value for key, value in span.items() if re.search(reading.get("beside", "^$"), key)]
        usd = _first(span, self.usd)
        if usd is None and self.priced and not re.search(self.unlisted, call["model"]):
            usd = _list_price(call["model"], call["provider"], priced, found)
        return Shown(
            input=_sum(priced, *beside),
            read=found["read"],
            write=found["write"],
            uncached=uncached,
            output=found["output"],
            usd=None if usd is None else float(usd),
            **call,
        )


def _first(span: Mapping[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:
        name, _, path = key.partition("#")
        value = span.get(name)
        if path and value is not None:
            value = json.loads(value)
            for step in path.split("."):
                value = (value or {}).get(step)
        if value is not None:
            return value
    return None


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _sum(*parts: int | None) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _list_price(model: str, provider: str, total: int | None, found: Mapping[str, int | None]) -> Decimal | None:
    """A public list's price of what is seen. Written tokens live for five minutes on such lists."""
    if total is None:
        return None
    usage = Usage(
        input_tokens=total,
        cache_read_tokens=found["read"],
        cache_write_tokens=found["write"],
        output_tokens=found["output"],
    )
    try:
        return calc_price(usage, model_ref=model, provider_id=provider or None).total_price
    except LookupError:
        return None


def load() -> dict[str, Backend]:
    """Every backend, by the name of its file."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml"), key=lambda file: file.stem):
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
        found[file.stem] = Backend(name=file.stem, **said)
    return found


def totals(seen: Sequence[Shown | Truth]) -> dict[str, float]:
    """Of tokens and USD over many calls."""
    return {name: sum(asdict(one)[name] or 0 for one in seen) for name in (*TOKENS, "usd")}
