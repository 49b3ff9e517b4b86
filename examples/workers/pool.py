"""The pools of the standard library.

    pip install 'otel-promptcache[all]'
    OTEL_SERVICE_NAME=night OTEL_PROMPTCACHE_LEDGER=true \
        opentelemetry-instrument python examples/workers/pool.py spawn
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import anthropic

from otel_promptcache import attribute

POLICY = "You sum up what customers wrote, in a sentence. " * 160


def summarize(letter: str) -> None:
    anthropic.Anthropic().messages.create(
        model="claude-sonnet-4-6",
        max_tokens=512,
        system=[{"type": "text", "text": POLICY, "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": letter}],
    )


def main() -> None:
    """Thirteen calls, in processes of three kinds, started in one of the three ways."""
    context = multiprocessing.get_context(sys.argv[1])
    letters = [f"letter {number}" for number in range(6)]
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        with attribute(team="mail"):  # goes along with what is submitted
            mail = executor.map(summarize, letters[:3])
        with attribute(team="legal"):
            legal = executor.map(summarize, letters[3:])
        print(len([*mail, *legal]), "letters")
    with context.Pool(1) as pool:  # knows of nothing; summarize could say it
        pool.map(summarize, letters)
    process = context.Process(target=summarize, args=letters[:1])
    process.start()
    process.join()


if __name__ == "__main__":
    main()
