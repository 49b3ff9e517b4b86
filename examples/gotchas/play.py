"""Plays the five mistakes and their fixes against a local provider and prints what the cache did.

    pip install 'otel-promptcache[all]'
    python examples/gotchas/play.py

Each is a conversation on the real SDK; the clock is moved instead of waited for. Nothing to pay, no keys.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from anthropic import Anthropic
from openai import OpenAI

from otel_promptcache.emulator import Clock, emulator
from otel_promptcache.testing import Recording, recording

NAMES = ("whitespace_drift", "dynamic_field", "tools_reordered", "image_changed", "low_traffic_long_ttl")


class Played(NamedTuple):
    """Both versions of one mistake, as they were recorded."""

    name: str
    broken: Recording
    fixed: Recording


def play(name: str) -> Played:
    """Runs one of them, each version against a provider of its own."""
    if str(Path(__file__).parent) not in sys.path:
        sys.path.insert(0, str(Path(__file__).parent))
    module = import_module(name)
    return Played(name, _recorded(module, module.broken), _recorded(module, module.fixed))


def _recorded(module: ModuleType, version: Callable[[Any, Clock], None]) -> Recording:
    with emulator() as provider, recording(clock=provider.clock.now) as calls:
        client = (
            Anthropic(base_url=provider.url, api_key="local")
            if module.SDK is Anthropic
            else OpenAI(base_url=f"{provider.url}/v1", api_key="local")
        )
        with client:
            version(client, provider.clock)
    return calls


def input_usd(calls: Recording) -> float:
    """What the input of all calls cost."""
    costs = [call.cost for call in calls.calls]
    return float(sum(cost.read + cost.write + cost.uncached for cost in costs if cost is not None))


def table() -> list[str]:
    """A line of Markdown for each."""
    lines = ["| | reason | place | hit rate | input cost |", "|---|---|---|---|---|"]
    for name in NAMES:
        played = play(name)
        worst = max(played.broken.calls, key=lambda call: call.verdict.lost)
        said = "`, `".join(filter(None, (worst.reason, worst.cause)))
        rates = [f"{(one.hit_ratio or 0):.0%}" for one in (played.broken, played.fixed)]
        costs = [f"${input_usd(one):.4f}" for one in (played.broken, played.fixed)]
        place = worst.path + (f", line {worst.line}" if worst.line else "")
        link = f"[{name.replace('_', ' ')}]({name}.py)"
        lines.append(
            f"| {link} | `{said}` | {f'`{place}`' if place else ''} | {' → '.join(rates)} | {' → '.join(costs)} |"
        )
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
