"""Recorded traffic as the emulator can replay it: the requests of a sequence in order, and what was reported of each.

A recording is a JSON file with ``provider``, ``model`` and ``sequence``; an exchange of the sequence has
``endpoint``, ``request_body``, ``response`` (``status``, ``headers``, and ``body`` or ``sse``) and, where the time is
known, ``t`` in seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from otel_promptcache.emulator.contents import Content
from otel_promptcache.emulator.wire import FORMATS, Wire, gemini
from otel_promptcache.model import Prompt, Usage
from otel_promptcache.providers._wire import as_list, count, mapping, string

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

_BLOCK: Final = re.compile(r"block size (\d+)")
_MODEL: Final = re.compile(r"/models/([^/:?]+):")
_RESOURCE: Final = re.compile(r"/cachedContents\?|/cachedContents$")

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
    block: int = 0
    """Tokens of the engine's blocks, 0 where the record does not say."""
    creates: str = ""
    """Name of the cache resource that it makes, where it does nothing else."""
    reads_resource: bool = False
    """Whether it names a cache resource that was made before."""


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
        block = _BLOCK.search(string(mapping(found.get("source")).get("version")))
        steps = tuple(_steps(provider, exchanges, int(block[1]) if block else 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{file}: not a recording: {error!r}") from error
    name = f"{file.parent.name}/{file.stem}"
    return Sequence(name, _PROVIDERS.get(provider, provider), model, steps, "" if steps else _why_not(found))


def _why_not(found: Mapping[str, Any]) -> str:
    if any("trimmed" in flag for flag in map(string, as_list(found.get("flags")))):
        return "the requests were cut when they were recorded"
    return "an API that the emulator does not speak"


def _steps(provider: str, exchanges: list[dict[str, Any]], block: int) -> Iterator[Step]:
    at = 0.0
    resources: dict[str, Mapping[str, Any]] = {}
    for number, exchange in enumerate(exchanges):
        moment = _moment(exchange)
        at = at + _PAUSE if moment is None else moment
        body, response = exchange.get("request_body"), mapping(exchange.get("response"))
        if not isinstance(body, dict) or str(response.get("status"))[:1] != "2":
            continue
        endpoint = string(exchange.get("endpoint"))
        who, body = _upstream(string(exchange.get("provider")) or provider, body)
        if _RESOURCE.search(endpoint):
            answer = mapping(response.get("body"))
            name = string(answer.get("name"))
            resources[name] = body
            total = count(mapping(answer.get("usageMetadata")).get("totalTokenCount"))
            prompt = gemini.dialect.prompt(body)
            yield Step(number, at, who, gemini, body, prompt, Usage(total), creates=name)
            continue
        wire = next((one for one in FORMATS if one.dialect.handles(endpoint.partition("?")[0])), None)
        if wire is None:
            continue
        if (model := _MODEL.search(endpoint)) is not None:
            body = {**body, "model": model[1]}
        held = resources.get(string(body.get("cachedContent")))
        prompt = wire.dialect.prompt(body if held is None else _joined(held, body))
        if prompt.segments:
            usage = _usage(wire, response)
            yield Step(number, at, who, wire, body, prompt, usage, block, reads_resource=held is not None)


def _joined(held: Mapping[str, Any], body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request that names a cache resource, with what the resource holds."""
    model = f"models/{string(held.get('model')).removeprefix('models/')}"
    return Content("", "", model, held, 0, 0, 0.0, 0.0, 0.0).resumed(body)


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
