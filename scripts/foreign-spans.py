"""foreign-spans.py: what other instrumentations write on their spans, for the tests of the Collector's names.

Runs each in its environment (`make neighbours` makes them) against a provider whose token counts are known, and prints
JSON: `{instrumentation: {call: [spans]}}`. Content is left out; scope, name, kind, ids and plain attributes stay.
"""

from __future__ import annotations

import json
import os
import sys

import environments

sys.path.insert(0, str(environments.ROOT / "tests"))
os.environ["PROMPTCACHE_NEIGHBOURS"] = "all"

import neighbours
from instrumentation.conftest import Provider

CALLS = ("messages_sync", "messages_stream", "chat_sync", "responses_sync")
RUNS = {
    # Name of the recording: neighbour, what is started, calls, whether the SDK's own spans are on.
    "anthropic": ("opentelemetry", (), ("messages_sync", "messages_stream"), True),
    "opentelemetry": ("opentelemetry", ("opentelemetry",), CALLS, False),
    "openllmetry": ("openllmetry", ("openllmetry",), CALLS, False),
    "openinference": ("openinference", ("openinference",), CALLS, False),
    "traceai": ("traceai", ("traceai",), CALLS, False),
    "hand-set": ("traceai", ("register",), ("manual_span",), False),
    "with us": ("openinference", ("openinference", "ours"), CALLS, False),
}
KEPT = ("llm.", "gen_ai.", "cache_", "openinference.", "fi.", "promptcache.", "anthropic.")
CONTENT = (
    "message",
    "prompts",
    "prompt.",
    "completion.",
    "content",
    "input.",
    "output.",
    "tools",
    "invocation",
    "choice",
    "instructions",
    "parameters",
)


def kept(name: str) -> bool:
    usage = "usage" in name or "token" in name
    return name.startswith(KEPT) and (usage or not any(word in name for word in CONTENT))


def main() -> int:
    url = Provider().url
    found: dict[str, dict[str, list[dict]]] = {}
    for recording, (neighbour, start, calls, native) in RUNS.items():
        made = neighbours.made(url, neighbour, start, calls, native=native)["calls"]
        found[recording] = {
            call: [
                {name: span[name] for name in ("scope", "name", "kind")}
                | {"attributes": {name: value for name, value in span["attributes"].items() if kept(name)}}
                for span in one["spans"]
            ]
            for call, one in made.items()
        }
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
