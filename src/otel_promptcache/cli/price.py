"""``otel-promptcache price``: usage payloads in, exact costs out, one JSON object a line; or a ledger again."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO, Any, Final

from otel_promptcache import pricing
from otel_promptcache.cli import _offline, _reprice
from otel_promptcache.model import Usage
from otel_promptcache.pricing import Prices
from otel_promptcache.providers import anthropic, gemini, openai_chat, openai_responses
from otel_promptcache.providers._wire import count, in_context, mapping, string

_READERS: Final[dict[str, Callable[[object], Usage | None]]] = {
    "messages": anthropic.usage,
    "chat": openai_chat.usage,
    "responses": openai_responses.usage,
    "generate_content": gemini.usage,
    "interactions": gemini.interaction_usage,
}
_STORAGE: Final = "caches"
"""The flavor of a row that is no call: an explicit cache that was kept for some hours."""
_TELLING_FIELDS: Final = (
    # A field that only one API's usage has, for rows that do not name the API.
    ("prompt_tokens", "chat"),
    ("prompt_cache_hit_tokens", "chat"),
    ("promptTokenCount", "generate_content"),
    ("total_input_tokens", "interactions"),
    ("input_tokens_details", "responses"),
    ("input_tokens", "messages"),
)
_CONTEXT: Final = {"service_tier": "tier", "speed": "speed", "processing": "processing", "inference_geo": "geo"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        help="JSON lines, plain or .gz, - for standard input; a line holds usage, model, provider and, where known, "
        "api_flavor (messages, chat, responses, generate_content, interactions, caches), request_time, context, "
        "account, upstream and billed_usd",
    )
    _offline.prices_argument(parser, "what OTEL_PROMPTCACHE_PRICE_FILE names")
    parser.add_argument(
        "--at", metavar="TIME", help="ISO 8601 time of the requests that do not tell theirs; without, now"
    )
    parser.add_argument(
        "--reprice",
        action="store_true",
        help="FILE is a ledger (OTLP JSON lines): what its calls cost by these prices, and what changed",
    )
    parser.add_argument("--write", metavar="FILE", help="with --reprice: a new file for the ledger with these costs")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="of --reprice: a table, or a line a changed call"
    )


def run(options: argparse.Namespace) -> int:
    try:
        prices = _offline.price_table(options.prices)
        now = time.time() if options.at is None else _moment(options.at)
    except ValueError as error:
        print(f"otel-promptcache price: {error}", file=sys.stderr)
        return 2
    if options.reprice:
        return _reprice.run(options, prices)
    bill = Bill()
    try:
        with opened(options.file) as lines:
            for row in price_lines(lines, prices, now):
                print(json.dumps(row))
                bill.add(row)
    except BrokenPipeError:
        raise  # whoever reads our output has seen enough: no fault of the file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"otel-promptcache price: {options.file}: {reason}", file=sys.stderr)
        return 2
    if bill.items:
        print(bill, file=sys.stderr)
    return 0


@dataclass
class Bill:
    """What was billed beside what we find, for lines that tell both."""

    items: int = 0
    unpriced: int = 0
    billed: Decimal = Decimal(0)
    found: Decimal = Decimal(0)
    largest: Decimal = Decimal(0)

    def add(self, row: Mapping[str, Any]) -> None:
        if row.get("billed_usd") is None:
            return
        self.items += 1
        if row["cost_usd"] is None:
            self.unpriced += 1
            return
        self.billed += Decimal(str(row["billed_usd"]))
        self.found += Decimal(str(row["cost_usd"]))
        self.largest = max(self.largest, abs(Decimal(str(row["difference_usd"]))))

    def __str__(self) -> str:
        without = f", {self.unpriced} of them without a price" if self.unpriced else ""
        return (
            f"{self.items} bills{without}: {self.billed:.6f} USD billed, {self.found:.6f} USD by these prices; "
            f"largest difference of one {self.largest:.9f} USD"
        )


def price_lines(
    lines: Iterable[str], prices: Prices = pricing.LISTED, now: float | None = None
) -> Iterator[dict[str, Any]]:
    """``{id, cost_usd, without_cache_usd, saving_usd, price_version}`` for each line; null with a ``reason`` where it
    has no price; with ``billed_usd`` and ``difference_usd`` where the line says what was billed. ``now``: POSIX
    seconds for lines without a time."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _priced(line, number, prices, time.time() if now is None else now)


def _priced(line: str, number: int, prices: Prices, now: float) -> dict[str, Any]:
    identity: object = number
    billed: Decimal | None = None
    try:
        row = mapping(json.loads(line))
        identity = row.get("id") or row.get("response_id") or number
        billed = _billed(row)
        found, version, estimated = _found(row, prices, now)
    except RecursionError:
        return _unpriced(identity, billed, "the line is nested too deep")
    except ArithmeticError:
        return _unpriced(identity, billed, "usage: counts beyond all measure")
    except (ValueError, pricing.PriceUnknownError) as error:
        return _unpriced(identity, billed, str(error))
    total, without = found
    priced: dict[str, Any] = {
        "id": identity,
        "cost_usd": _number(total),
        "without_cache_usd": _number(without),
        "saving_usd": _number(without - total),
        "price_version": version,
    }
    if billed is not None:
        priced |= {"billed_usd": _number(billed), "difference_usd": _number(total - billed)}
    return priced | ({"estimated": True} if estimated else {})


def _unpriced(identity: object, billed: Decimal | None, reason: str) -> dict[str, Any]:
    nothing = {"id": identity, "cost_usd": None, "without_cache_usd": None, "saving_usd": None, "reason": reason}
    return nothing if billed is None else nothing | {"billed_usd": _number(billed)}


def _billed(row: Mapping[str, Any]) -> Decimal | None:
    """What a bill says for this call; ``cost`` is what gateways call it."""
    said = row.get("billed_usd", row.get("cost"))
    return Decimal(str(said)) if isinstance(said, int | float) and not isinstance(said, bool) else None


def _found(row: Mapping[str, Any], prices: Prices, now: float) -> tuple[tuple[Decimal, Decimal], str, bool]:
    """Cost and cost without caching in USD, the version of the price, and whether something had to be assumed."""
    raw = mapping(row.get("usage"))
    if not raw:
        raise ValueError("usage: missing, or no JSON object")
    context = mapping(row.get("context"))
    provider, account = string(row.get("provider")), string(row.get("account"))
    model = string(row.get("model")) or string(row.get("response_model"))
    when = _moment(row.get("request_time"), now)
    flavor = row.get("api_flavor") or next((name for field, name in _TELLING_FIELDS if field in raw), None)
    if flavor == _STORAGE:
        kept, version = _storage(raw, context, provider, model, when, account, prices)
        return (kept, Decimal(0)), version, False
    reader = _READERS.get(str(flavor))
    if reader is None:
        raise ValueError(f"api_flavor: '{flavor}' is none of {', '.join((*_READERS, _STORAGE))}")
    usage = reader(raw)
    if usage is None:
        raise ValueError(f"usage: no token counts as the {flavor} API reports them")
    said: dict[str, Any] = {ours: str(context[theirs]) for theirs, ours in _CONTEXT.items() if context.get(theirs)}
    upstream = string(row.get("upstream")) or string(row.get("provider_name"))
    usage = in_context(usage, **said, **({"upstream": upstream} if upstream else {}))
    cost = pricing.cost(usage, provider, (model,), when, account=account, prices=prices)
    return (cost.total, cost.without_cache), cost.version, cost.estimated


def _storage(
    raw: Mapping[str, Any],
    context: Mapping[str, Any],
    provider: str,
    model: str,
    when: float,
    account: str,
    prices: Prices,
) -> tuple[Decimal, str]:
    tokens = count(raw.get("totalTokenCount"))
    if tokens is None:
        raise ValueError("usage: no totalTokenCount, as the caches API reports it")
    try:
        hours = Decimal(str(context.get("hours")))
    except ArithmeticError:
        hours = Decimal("nan")
    if not hours.is_finite() or not 0 <= hours <= 10**6:
        raise ValueError("context: hours takes the hours for which the cache was kept")
    return pricing.storage(tokens, hours, provider, model, when, account=account, prices=prices)


def _moment(text: object, now: float = 0.0) -> float:
    """POSIX seconds of an ISO 8601 time; now where none is given."""
    if text is None:
        return now
    moment = datetime.fromisoformat(str(text))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(value: Decimal) -> float:
    """Exact to far more than the 8 decimals of an invoice, and a number to every reader of JSON."""
    return float(round(value, 12))


@contextmanager
def opened(name: str) -> Iterator[IO[str]]:
    """A file of lines, plain or gzip by its name; ``-`` is standard input."""
    if name == "-":
        yield sys.stdin
        return
    with gzip.open(name, "rt", encoding="utf-8") if name.endswith(".gz") else open(name, encoding="utf-8") as handle:
        yield handle
