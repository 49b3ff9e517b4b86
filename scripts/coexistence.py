"""coexistence.py [NEIGHBOUR ...]: runs every other instrumentation before and after us, and prints the table of
docs/coexistence.md."""

from __future__ import annotations

import os
import sys
from collections import Counter

import environments

sys.path.insert(0, str(environments.ROOT / "tests"))
os.environ["PROMPTCACHE_NEIGHBOURS"] = "all"

from instrumentation.conftest import Provider
from neighbours import BY_NAME, INPUT, NEW, Neighbour, bearers, interpreter, made, role, total
from neighbours.calls import CALLS

FORMS = (
    # Column, and the calls it sums up.
    ("sync", ("messages_sync", "chat_sync", "responses_sync")),
    ("async", ("messages_async", "chat_async", "responses_async")),
    ("streams", ("messages_stream", "messages_async_stream", "messages_helper", "chat_stream", "responses_stream")),
    ("raw", ("messages_raw", "messages_streaming_raw", "chat_raw", "chat_streaming_raw", "responses_raw")),
)
COLUMNS = ("beside", "version", "order", *(form for form, _ in FORMS), "sum without us", "with us", "per provider")


def versions(one: Neighbour) -> str:
    """The version of its first package."""
    name = one.packages[0].partition("==")[0]
    return environments.versions(interpreter(one.name), name)[0]


def roles(calls: dict[str, dict], names: tuple[str, ...]) -> str:
    """What became of our figures in these calls: each kind once, with how often where there are several."""
    found = Counter(role(calls[name]).partition(" ")[0] for name in names)
    return ", ".join(kind if len(found) == 1 else f"{kind} {count}" for kind, count in found.most_common())


def lines(url: str, one: Neighbour) -> list[tuple[str, ...]]:
    """Two rows: after it and before it. Each with the SDK's own spans where the SDK has them."""
    native = one.sdks == NEW
    provider = sum(INPUT[name.partition("_")[0]] for name in CALLS)
    without_us = made(url, one.name, one.starts, list(CALLS), native=native)["calls"]
    before = sum(map(total, without_us.values()))
    found = []
    for order, start in (("after it", [*one.starts, "ours"]), ("before it", ["ours", *one.starts])):
        calls = made(url, one.name, start, list(CALLS), native=native)["calls"]
        assert all(len(bearers(call)) <= 1 for call in calls.values())
        sums = f"{before:,}", f"{sum(map(total, calls.values())):,}", f"{provider:,}"
        found.append((one.title, versions(one), order, *(roles(calls, names) for _, names in FORMS), *sums))
    return found


def main() -> int:
    url = Provider().url
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS), flush=True)
    failed = False
    for name in sys.argv[1:] or BY_NAME:
        try:
            for line in lines(url, BY_NAME[name]):
                print("| " + " | ".join(line) + " |", flush=True)
        except environments.UnavailableError as error:
            failed = True
            print(f"| {BY_NAME[name].title} | not installed: {error} |" + " |" * (len(COLUMNS) - 2), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
