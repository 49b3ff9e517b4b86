"""``otel-promptcache price``: usage payloads in, exact costs out, one JSON object a line."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO, Any, Final

from otel_promptcache import pricing
from otel_promptcache.model import Cost, Usage
from otel_promptcache.providers import anthropic, gemini, openai_chat, openai_responses
from otel_promptcache.providers._wire import mapping

_READERS: Final[dict[str, Callable[[object], Usage | None]]] = {
    "messages": anthropic.usage,
    "chat": openai_chat.usage,
    "responses": openai_responses.usage,
    "generate_content": gemini.usage,
}
_TELLING_FIELDS: Final = (
    # A field that only one API's usage has, for rows that do not name the API.
    ("prompt_tokens", "chat"),
    ("promptTokenCount", "generate_content"),
    ("input_tokens_details", "responses"),
    ("input_tokens", "messages"),
)
_CONTEXT: Final = {"service_tier": "tier", "speed": "speed", "processing": "processing", "inference_geo": "geo"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        help="JSON lines, plain or .gz, - for standard input; a line holds usage, model, provider and, where known, "
        "api_flavor (messages, chat, responses, generate_content), request_time and context",
    )


def run(options: argparse.Namespace) -> int:
    try:
        with _opened(options.file) as lines:
            for row in price_lines(lines):
                print(json.dumps(row))
    except BrokenPipeError:
        raise  # whoever reads our output has seen enough: no fault of the file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"otel-promptcache price: {options.file}: {reason}", file=sys.stderr)
        return 2
    return 0


def price_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """``{id, cost_usd, without_cache_usd, saving_usd}`` for each line; null with a ``reason`` where it has no price."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _priced(line, number)


def _priced(line: str, number: int) -> dict[str, Any]:
    identity: object = number
    try:
        row = mapping(json.loads(line))
        identity = row.get("id", number)
        cost = _cost(row)
        found = {
            "id": identity,
            "cost_usd": _number(cost.total),
            "without_cache_usd": _number(cost.without_cache),
            "saving_usd": _number(cost.saving),
        }
    except RecursionError:
        return _unpriced(identity, "the line is nested too deep")
    except ArithmeticError:
        return _unpriced(identity, "usage: counts beyond all measure")
    except (ValueError, pricing.PriceUnknownError) as error:
        return _unpriced(identity, str(error))
    return found | ({"estimated": True} if cost.estimated else {})


def _unpriced(identity: object, reason: str) -> dict[str, Any]:
    return {"id": identity, "cost_usd": None, "without_cache_usd": None, "saving_usd": None, "reason": reason}


def _cost(row: Mapping[str, Any]) -> Cost:
    raw = mapping(row.get("usage"))
    if not raw:
        raise ValueError("usage: missing, or no JSON object")
    flavor = row.get("api_flavor") or next((name for field, name in _TELLING_FIELDS if field in raw), None)
    reader = _READERS.get(str(flavor))
    if reader is None:
        raise ValueError(f"api_flavor: '{flavor}' is none of {', '.join(_READERS)}")
    usage = reader(raw)
    if usage is None:
        raise ValueError(f"usage: no token counts as the {flavor} API reports them")
    context = mapping(row.get("context"))
    said: dict[str, Any] = {ours: str(context[theirs]) for theirs, ours in _CONTEXT.items() if context.get(theirs)}
    usage = usage._replace(**said)
    provider, model = str(row.get("provider") or ""), str(row.get("model") or "")
    return pricing.cost(usage, provider, (model,), _moment(row.get("request_time")))


def _moment(text: object) -> float:
    """POSIX seconds of an ISO 8601 time; now where none is given."""
    if text is None:
        return time.time()
    moment = datetime.fromisoformat(str(text))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(value: Decimal) -> float:
    """Exact to far more than the 8 decimals of an invoice, and a number to every reader of JSON."""
    return float(round(value, 12))


@contextmanager
def _opened(name: str) -> Iterator[IO[str]]:
    if name == "-":
        yield sys.stdin
        return
    with gzip.open(name, "rt", encoding="utf-8") if name.endswith(".gz") else open(name, encoding="utf-8") as handle:
        yield handle
