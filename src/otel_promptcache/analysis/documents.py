"""Files as JSON objects: lines, or a whole document, plain or compressed; YAML where PyYAML is there."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any, Final

from otel_promptcache.providers._wire import AsWritten, mapping

STDIN: Final = "-"


class TrafficError(ValueError):
    """A file that cannot be read as recorded traffic; the message says what was expected."""


def opened(name: str) -> AbstractContextManager[IO[str]]:
    if name == STDIN:
        return nullcontext(sys.stdin)
    if name.endswith(".gz"):
        return gzip.open(name, "rt", encoding="utf-8")
    return open(name, encoding="utf-8-sig")


def documents(name: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a file: its lines, or the whole of it. The last line of a growing log may be cut off."""
    plain = name.removesuffix(".gz")
    if plain.endswith((".yaml", ".yml")):
        yield mapping(_yaml(name))
        return
    with opened(name) as handle:
        lines = (line for line in handle if line.strip())
        first = next(lines, "")
        if parsed(first) is None:
            yield from _objects(parsed(first + "".join(lines)))
            return
        yield from _objects(parsed(first))
        for line in lines:
            yield from _objects(parsed(line))


def parsed(text: str) -> object:
    """The JSON that a text is, None where it is none. What tells two spellings of one value apart is kept: keys that
    come twice, and numbers that Python would write in another way."""
    try:
        return json.loads(text, object_pairs_hook=_every_key, parse_float=_as_written)
    except (ValueError, RecursionError):
        return None


def _every_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The last of equal keys counts, as with most readers; the others stay beside it under a name of their own."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    last = {key: place for place, (key, _) in enumerate(pairs)}
    return {key if last[key] == place else f"{key}\0{place}": value for place, (key, value) in enumerate(pairs)}


def _as_written(text: str) -> float:
    number = float(text)
    return number if repr(number) == text else AsWritten(text)


def _objects(document: object) -> Iterator[Mapping[str, Any]]:
    for one in document if isinstance(document, list) else (document,):
        if isinstance(one, dict):
            yield one


def _yaml(name: str) -> object:
    try:
        import yaml
    except ModuleNotFoundError:
        raise TrafficError(f"{name}: reading YAML needs PyYAML: pip install pyyaml") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with opened(name) as handle:
            return yaml.load(handle, loader)  # noqa: S506 - a safe loader, the quick one where there is one
    except yaml.YAMLError:
        raise TrafficError(f"{name}: not YAML") from None
