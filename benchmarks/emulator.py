"""How many requests a second the emulator answers: 50 KB each, over real HTTP, the whole machine for both sides.

    python benchmarks/emulator.py [SECONDS]

The server runs in a process of its own, the clients in this one, eight connections. Every request is a turn of a
conversation: its beginning is cached, its end is new. The bar is 200 requests a second on two cores.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from typing import Any

import httpx2

from otel_promptcache.emulator import Emulator, serve

CONNECTIONS = 8
SIZE = 50_000
BAR = 200

TURNS = 40
TURN = "lorem " * (SIZE // TURNS // 6 - 6)


def _serve(urls: Any) -> None:
    serve(Emulator(machine_rate=0), "127.0.0.1", 0, urls.put)


def turns(tag: str) -> list[dict[str, Any]]:
    said = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n} {TURN}"} for n in range(TURNS - 1)]
    return [*said, {"role": "assistant", "content": "ok"}, {"role": "user", "content": f"{tag} {TURN}"}]


def anthropic(tag: str) -> tuple[str, dict[str, Any]]:
    body = {"model": "claude-opus-5", "max_tokens": 64, "cache_control": {"type": "ephemeral"}, "messages": turns(tag)}
    return "/v1/messages", body


def openai(model: str, tag: str) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"model": model, "messages": turns(tag)}


REQUESTS = {
    "Anthropic Messages": anthropic,
    "OpenAI Chat, breakpoints": lambda tag: openai("gpt-5.6", tag),
    "OpenAI Chat, granules": lambda tag: openai("gpt-4.1", tag),
}
HEADERS = {"x-api-key": "key", "anthropic-version": "2023-06-01", "authorization": "Bearer key"}


async def measure(url: str, make: Any, seconds: float) -> tuple[float, float, int]:
    """Requests a second, the median latency in milliseconds, and the size of a request in bytes."""
    serial = itertools.count()
    took: list[float] = []
    size = len(json.dumps(make("0")[1]))

    async def client(until: float) -> None:
        async with httpx2.AsyncClient(base_url=url, headers=HEADERS) as http:
            while time.perf_counter() < until:
                path, body = make(str(next(serial)))
                began = time.perf_counter()
                answer = await http.post(path, json=body)
                answer.raise_for_status()
                took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client(began + seconds) for _ in range(CONNECTIONS)))
    return len(took) / (time.perf_counter() - began), 1000 * statistics.median(took), size


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    urls: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=_serve, args=(urls,), daemon=True)
    server.start()
    url = urls.get(timeout=20)
    slowest = float("inf")
    for name, make in REQUESTS.items():
        rate, latency, size = asyncio.run(measure(url, make, seconds))
        print(f"{name:<26} {rate:6.0f} requests/s of {size / 1000:.0f} KB, median {latency:5.1f} ms")
        slowest = min(slowest, rate)
    server.terminate()
    server.join()
    print(f"bar of {BAR} requests/s: {'passed' if slowest >= BAR else 'missed'}")
    sys.exit(slowest < BAR)


if __name__ == "__main__":
    main()
