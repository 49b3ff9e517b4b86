"""A support desk that never closes: three teams, both SDKs, and a new release every few minutes.

    pip install 'otel-promptcache[all]'
    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 OTEL_PROMPTCACHE_LEDGER=true python examples/support_desk.py

It is what deploy/compose runs, so that dashboards and alerts have something to show. Releases are processes of their
own, started with `opentelemetry-instrument`. Release 1.5.0 puts the time of day in front of its instructions, and
1.5.1 takes it out again: look for the step. Providers are emulated in this process unless ANTHROPIC_BASE_URL and
OPENAI_BASE_URL lead elsewhere. Ctrl-C closes the desk.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import anthropic
import openai

from otel_promptcache import attribute, conversation, prompt, route
from otel_promptcache.emulator import emulator

LAUNCHER = Path(sys.executable).with_name("opentelemetry-instrument")
RELEASES = ("1.4.0", "1.5.0", "1.5.1")
BROKEN = "1.5.0"

MANUAL = "Returns are free within thirty days. Damaged goods are replaced at once and never questioned. " * 150
CATALOGUE = "A lamp of brass with a shade of linen, for bulbs of up to sixty watts, forty centimetres high. " * 200
TOOLS: list[Any] = [
    {
        "name": name,
        "description": f"{name.replace('_', ' ')} by its number".capitalize(),
        "input_schema": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
    }
    for name in ("find_order", "find_parcel", "refund_order")
]
QUESTIONS = (
    "Where is my parcel?",
    "It says delivered, but it is not here.",
    "May I have another one instead?",
    "And the old one, if it turns up?",
    "Thank you. How long will it take?",
)


def marked(text: str) -> dict[str, Any]:
    """A block up to whose end the provider keeps the prompt."""
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


class Desk:
    """One release of the application, with a client of each SDK."""

    def __init__(self, release: str, chance: random.Random) -> None:
        self.release = release
        self.chance = chance
        keyless = "no-key-needed"
        self.anthropic = anthropic.Anthropic(api_key=os.environ.get("ANTHROPIC_API_KEY", keyless), max_retries=1)
        self.openai = openai.OpenAI(api_key=os.environ.get("OPENAI_API_KEY", keyless), max_retries=1)
        self.threads: list[Thread] = []

    def instructions(self) -> str:
        if self.release == BROKEN:
            return f"It is {datetime.now(UTC):%H:%M:%S}.\n{MANUAL}"
        return MANUAL

    def work(self) -> None:
        """One piece of it: mostly an answer, at times something that costs more than it should."""
        (job,) = self.chance.choices((self.reply, self.search, self.digest, self.translate), weights=(60, 30, 7, 3))
        job()

    def reply(self) -> None:
        """The next turn of some customer's conversation."""
        if len(self.threads) < 4:
            self.threads.append(Thread(f"thread-{self.chance.randrange(10**6)}"))
        thread = self.chance.choice(self.threads)
        with (
            route("/threads/{id}/messages"),
            attribute(team="support", feature="replies", tenant=self.chance.choice(("acme", "globex"))),
            conversation(thread.name),
            prompt("reply", version=self.release),
        ):
            failing = self.chance.random() < 0.02
            if not thread.ask(self.anthropic, self.instructions(), failing):
                self.threads.remove(thread)

    def search(self) -> None:
        """A question about the catalogue. OpenAI's models keep what they have seen without being asked."""
        with route("/search"), attribute(team="search", feature="answers"):
            self.openai.chat.completions.create(
                model="gpt-4.1-mini",
                messages=[
                    {"role": "system", "content": CATALOGUE},
                    {"role": "user", "content": f"Which lamp for {self.chance.randrange(20, 90)} watts?"},
                ],
            )

    def digest(self) -> None:
        """A night's letters in one: written to the cache, and never read."""
        letters = " ".join(self.chance.choices(("lamp", "parcel", "late", "wet", "broken", "money", "back"), k=2000))
        said: Any = {"role": "user", "content": [marked(letters)]}
        with route("digest"), attribute(team="reports", feature="digest"):
            self.anthropic.messages.create(
                model="claude-sonnet-4-6",
                max_tokens=400,
                messages=[said],
            )

    def translate(self) -> None:
        """By a model that no list of prices has, for a team that nobody named."""
        with route("/translate"):
            self.openai.chat.completions.create(
                model="in-house-translator", messages=[{"role": "user", "content": "Wo ist mein Paket?"}]
            )


class Thread:
    """A customer's conversation, sent again with every turn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: list[Any] = []

    def ask(self, client: anthropic.Anthropic, instructions: str, failing: bool) -> bool:
        """The next question; False after the last. A failing one has the emulator answer with an error."""
        turn = len(self.said) // 2
        asked: Any = {"role": "user", "content": [marked(QUESTIONS[turn])]}
        fault = {"x-emulator-fault": "500"} if failing else {}
        with suppress(anthropic.InternalServerError):
            with client.messages.stream(
                model="claude-sonnet-4-6",
                max_tokens=300,
                system=[marked(instructions)],  # type: ignore[list-item]
                tools=TOOLS,
                messages=[*self.said, asked],
                extra_headers=fault,
            ) as stream:
                answer = stream.get_final_text()
            unmarked = {"role": "user", "content": QUESTIONS[turn]}
            self.said += [unmarked, {"role": "assistant", "content": answer or "(nothing)"}]
        return len(self.said) // 2 < len(QUESTIONS)


def serve(release: str, seconds: float, pause: float, pieces: int) -> None:
    """Works for so many seconds, or until so many pieces are done, with a pause of about that long between two."""
    chance = random.Random()
    desk = Desk(release, chance)
    closing = time.monotonic() + seconds
    while time.monotonic() < closing and pieces > 0:
        desk.work()
        pieces -= 1
        time.sleep(chance.expovariate(1 / pause))


@contextmanager
def providers() -> Iterator[dict[str, str]]:
    """The variables that lead the SDKs to a provider: those that are set, else to an emulated one."""
    if "ANTHROPIC_BASE_URL" in os.environ:
        yield {}
        return
    with emulator() as local:
        yield {"ANTHROPIC_BASE_URL": local.url, "OPENAI_BASE_URL": f"{local.url}/v1"}


def deploy(releases: Iterable[str], *limits: str) -> None:
    """One release after the other, each in a process of its own that is given the same limits."""
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES")
    with providers() as led:
        for release in releases:
            attributes = ",".join(filter(None, (given, f"service.version={release}")))
            command = [str(LAUNCHER), sys.executable, __file__, "--serve", release, *limits]
            print(f"release {release}", flush=True)
            with subprocess.Popen(
                command,
                env={"OTEL_SERVICE_NAME": "support-desk", **os.environ, **led, "OTEL_RESOURCE_ATTRIBUTES": attributes},
            ) as running:
                try:
                    if running.wait():
                        sys.exit(f"release {release} has failed")
                except SystemExit:  # when this process is to stop, that one has to send what it has counted
                    running.terminate()
                    raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="how long a release lives (default 600)")
    parser.add_argument("--pieces", type=int, default=10**9, help="after how much work it is over before that")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two calls, on average (default 1)")
    parser.add_argument("--once", action="store_true", help="each release once, instead of for ever")
    parser.add_argument("--serve", metavar="RELEASE", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as containers are stopped: what was counted is sent first
    with suppress(KeyboardInterrupt):
        if asked.serve:
            serve(asked.serve, asked.seconds, asked.pause, asked.pieces)
        else:
            limits = (f"--seconds={asked.seconds}", f"--pause={asked.pause}", f"--pieces={asked.pieces}")
            deploy(RELEASES if asked.once else cycle(RELEASES), *limits)


if __name__ == "__main__":
    main()
