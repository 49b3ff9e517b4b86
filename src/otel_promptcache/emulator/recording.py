"""Recorded traffic as the emulator can replay it: the requests of a sequence in order, and what was reported of each.

A recording is a JSON file with ``provider``, ``model`` and ``sequence``; an exchange of the sequence has
``endpoint``, ``request_body``, ``response`` (``status``, ``headers``, and ``body`` or ``sse``) and, where the time is
known, ``t`` in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from otel_promptcache.emulator.wire import FORMATS, Wire
from otel_promptcache.model import Prompt, Usage
from otel_promptcache.providers import dialect_for
from otel_promptcache.providers._wire import as_list, mapping, string

FOLDERS: Final = ("cassettes", "selfhosted")
"""Where the recordings of a folder lie."""

_PROVIDERS: Final[dict[str, str]] = {
    # How recordings name a provider, where that is not gen_ai.provider.name.
    "google-gemini": "gcp.gemini",
    "gemini": "gcp.gemini",
    "llamacpp": "llama_cpp",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_ROUTERS: Final = frozenset({"openrouter"})
"""Who passes a request on to the provider that the model's name begins with."""

_PAUSE: Final = 1.0
"""Seconds between two requests whose times are not recorded."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request with its answer."""

    number: int
    """Place in the sequence, from 0 on."""
    at: float
    """Seconds; only differences count."""
    provider: str
    """``gen_ai.provider.name`` of whose rules hold."""
    wire: Wire
    body: Mapping[str, Any]
    prompt: Prompt
    usage: Usage | None
    """What was reported, None for nothing."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A recording. ``steps`` is empty where ``left_out`` says why."""

    name: str
    provider: str
    model: str
    steps: tuple[Step, ...]
    left_out: str = ""


class RecordingError(ValueError):
    """A folder or a file that holds no recording."""


def sequences(folder: Path) -> Iterator[Sequence]:
    """The recordings of a folder, in the order of their names. Raises ``RecordingError``."""
    files = sorted(file for name in FOLDERS for file in (folder / name).glob("*.json"))
    if not files:
        raise RecordingError(f"{folder}: no recordings: neither {FOLDERS[0]}/*.json nor {FOLDERS[1]}/*.json")
    for file in files:
        yield sequence(file)


def sequence(file: Path) -> Sequence:
    """One recording. Raises ``RecordingError``."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        exchanges = found["sequence"]
        provider, model = str(found["provider"]), str(found["model"])
        steps = tuple(_steps(provider, exchanges))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{file}: not a recording: {error!r}") from error
    name = f"{file.parent.name}/{file.stem}"
    return Sequence(name, provider, model, steps, "" if steps else _why_not(found))


def _why_not(found: Mapping[str, Any]) -> str:
    if any("trimmed" in flag for flag in map(string, as_list(found.get("flags")))):
        return "the requests were cut when they were recorded"
    return "an API that the emulator does not speak"


def _steps(provider: str, exchanges: list[dict[str, Any]]) -> Iterator[Step]:
    at = 0.0
    for number, exchange in enumerate(exchanges):
        at = max(at + _PAUSE if "t" not in exchange else at, _moment(exchange) or 0.0)
        dialect = dialect_for(string(exchange.get("endpoint")))
        body, response = exchange.get("request_body"), mapping(exchange.get("response"))
        wire = next((one for one in FORMATS if dialect is not None and one.dialect.name == dialect.name), None)
        if wire is None or not isinstance(body, dict) or str(response.get("status"))[:1] != "2":
            continue
        if wire.dialect.prompt(body).segments:
            who, body = _upstream(string(exchange.get("provider")) or provider, body)
            prompt = wire.dialect.prompt(body)
            yield Step(number, at, who, wire, body, prompt, _usage(wire, response))


def _moment(exchange: Mapping[str, Any]) -> float | None:
    if isinstance(exchange.get("t"), int | float):
        return float(exchange["t"])
    headers = {name.lower(): value for name, value in mapping(mapping(exchange.get("response")).get("headers")).items()}
    date = headers.get("date")
    date = date[0] if isinstance(date, list) else date
    return parsedate_to_datetime(date).timestamp() if isinstance(date, str) else None


def _upstream(provider: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Whose cache it is, and the request as that provider gets it."""
    model = string(body.get("model"))
    if provider in _ROUTERS and "/" in model:
        provider, _, model = model.partition("/")
        body = {**body, "model": model}
    return _PROVIDERS.get(provider, provider), body


def _usage(wire: Wire, response: Mapping[str, Any]) -> Usage | None:
    if "sse" not in response:
        return wire.dialect.answer(mapping(response.get("body"))).usage
    usage = None
    state: dict[str, Any] = {}
    for line in string(response["sse"]).splitlines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data.startswith("{"):
            answer = wire.dialect.event(json.loads(data), state)
            usage = answer.usage if answer is not None and answer.usage is not None else usage
    return usage
